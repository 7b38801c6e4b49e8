"""One VM of libvirt's as practice sees it: a machine that runs, or one that is to arrive."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from whimbrel.errors import CommandRefused, ConfigError, HostError, MachineEnded, Unsupported
from whimbrel.hypervisors.libvirt.connection import NoSuchDomain
from whimbrel.hypervisors.libvirt.domain_xml import channel_paths
from whimbrel.hypervisors.libvirt.inspect import LibvirtInspection
from whimbrel.hypervisors.libvirt.resuming import require_resuming
from whimbrel.hypervisors.libvirt.states import State
from whimbrel.hypervisors.libvirt.storage import LibvirtStorage
from whimbrel.hypervisors.libvirt.translate import under_way
from whimbrel.model.inventory import SECRET, MigrationAddress
from whimbrel.model.migration import Phase
from whimbrel.ports import Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from whimbrel.hypervisors.libvirt.connection import Connection, Domain
    from whimbrel.model.inventory import Vm
    from whimbrel.model.method import Tuning
    from whimbrel.model.storage import Extent
    from whimbrel.ports import Site

RUNS_WITHIN = 30.0
"""Seconds a destination may take to load the device state and run its guest."""

LEAVES_WITHIN = 30.0
"""Seconds for libvirt to end a source whose guest has gone."""

SILENT_AT_MOST = 20.0
"""Seconds that a far end may leave what QEMU has sent to it without an answer; TCP alone would try
for a quarter of an hour. A link that is cut for 5 s is found again in time (RFC 6298)."""

_PAUSES_WITHIN = 3.0
_LOOK_AGAIN = 0.02

_MIGRATION_IN, _COMPLETED = 4, 3  # virDomainJobOperation, virDomainJobType


class LibvirtMachine:
    """The port's `Machine`: one VM that libvirt holds, or shall hold.

    Attributes:
        leaving: libvirt's call that moves it away, while there is one.
        last: How far the last move from it came, as this whimbrel saw.
        expected: Whether its guest is still to arrive.
        promised: Whether libvirt has yet to be told of it: a VM of that name which is there all
            the same is somebody else's.
        proven: Whether it was proved that the destination sees the same disks: libvirt, which
            only looks at the kind of file system, then need not believe it.
        carries: The disks that its next move copies, how much of each chain, and the port where
            the destination takes them (0: any); None: no disk.
    """

    def __init__(
        self, vm: Vm, connection: Connection, domain: Domain | None, site: Site | None
    ) -> None:
        self.vm = vm
        self.leaving: Awaitable[None] | None = None
        self.last = Phase.IDLE
        self.expected = False
        self.promised = False
        self.proven = False
        self.carries: tuple[tuple[str, ...], Extent, int] | None = None
        self._connection, self._domain, self._site = connection, domain, site
        self._pid: int | None = None
        self._sockets: dict[str, Path] = {}

    @property
    def pid(self) -> int | None:
        """See `ports.Machine.pid`; None where only libvirt leads to its host."""
        return self._pid

    @property
    def host(self) -> str:
        """The name of its host."""
        return self._connection.name

    async def attach(self, sockets: str | None = None) -> None:
        """Find its process and the sockets of its channels.

        Args:
            sockets: What their paths begin with; None: ask libvirt, which does not answer while
                a post-copy brings the guest here.
        """
        domain = await self.domain()
        if sockets is None:
            paths = channel_paths(await domain.xml())
        else:
            paths = {name: sockets + name for name in self.vm.channels}
        found = {name: Path(path) for name, path in paths.items()}
        if self._site is not None:
            self._pid = await self._site.ask("libvirt_pid", name=domain.name, identity=domain.id)
            found = {name: await self._site.socket(path) for name, path in paths.items()}
        self._sockets = found

    async def domain(self) -> Domain:
        """Return libvirt's VM; `NoSuchDomain` while there is none."""
        if self._domain is None:
            found = await self._connection.domain(self.vm.name)
            self._domain = found if found and self.vm.uuid in {"", found.id} else None
        if self._domain is None:
            raise NoSuchDomain(f"{self._connection.name} has no VM {self.vm.name}.")
        return self._domain

    def channel(self, name: str) -> Path:
        """See `ports.Machine.channel`."""
        try:
            return self._sockets[name]
        except KeyError:
            known = ", ".join(self._sockets) or "none that can be reached"
            raise ConfigError(
                f'VM {self.vm.name} has no channel "{name}"; it has {known}.'
            ) from None

    async def limit_silence(self, address: MigrationAddress) -> None:
        """Let its QEMU's connections to an address end when the far end is silent for too long.

        Where no shell leads to its host, TCP goes on to try. Port 0: all those to that host.
        """
        if self._site is not None and self._pid is not None:
            with suppress(HostError):  # no right to do so, or gone
                await self._site.ask(
                    "limit_silence",
                    pid=self._pid,
                    port=address.port,
                    host=address.host,
                    seconds=SILENT_AT_MOST,
                )

    def inspection(self) -> LibvirtInspection:
        """See `ports.Machine.inspection`."""
        return LibvirtInspection(self.domain, self._site, self._pid, self.vm.memory)

    def storage(self) -> LibvirtStorage:
        """See `ports.Machine.storage`."""
        return LibvirtStorage(self, self._site)

    async def record(self, vm: Vm) -> None:
        """See `ports.Machine.record`; libvirt remembers by itself what it is made of."""
        self.vm = vm

    async def state(self) -> State:
        """Return what libvirt says of it."""
        try:
            return await (await self.domain()).state()
        except NoSuchDomain:
            return State.GONE

    async def running(self) -> bool:
        """See `ports.Machine.running`."""
        return (await self.state()).runs

    async def standing(self) -> Standing:
        """See `ports.Machine.standing`."""
        if self.expected and self.promised:
            return Standing(running=False, phase=Phase.IDLE)  # libvirt has yet to build it
        domain = await self.domain()
        state = await domain.state()
        if not state.lives:
            raise NoSuchDomain(f"VM {self.vm.name} has ended on {self._connection.name}.")
        return Standing(state.runs, await self._phase(domain, state))

    async def _phase(self, domain: Domain, state: State) -> Phase:
        told = {
            State.POSTCOPY: Phase.POSTCOPY,
            State.RUNNING_IN_POSTCOPY: Phase.POSTCOPY,
            State.LOST_POSTCOPY: Phase.POSTCOPY_PAUSED,
            State.RUNNING_IN_LOST_POSTCOPY: Phase.POSTCOPY_PAUSED,
            State.ARRIVING: Phase.PRECOPY,
        }
        if state in told:
            return told[state]
        with suppress(CommandRefused, Unsupported):  # only a source tells of a move under way
            if under_way(await domain.job()):
                return Phase.SWITCHOVER if state is State.HANDED_OVER else Phase.PRECOPY
        if state is State.HANDED_OVER:  # all was sent, and who led the move is gone
            return Phase.COMPLETED
        if self.last is Phase.IDLE:
            with suppress(CommandRefused, Unsupported):
                done = await domain.last_job()
                if (done.get("operation"), done.get("type")) == (_MIGRATION_IN, _COMPLETED):
                    return Phase.COMPLETED
        return self.last

    async def resume(self) -> None:
        """See `ports.Machine.resume`."""
        await (await self.domain()).resume()

    async def forget_move(self) -> None:
        """See `ports.Machine.forget_move`; there is nothing of the kind."""

    async def stop(self) -> None:
        """See `ports.Machine.stop`; what libvirt remembers of a VM beyond its end stays."""
        self.expected = False
        if self.promised:
            return
        leaving, self.leaving = self.leaving, None
        if leaving is not None:
            with suppress(TimeoutError, HostError):
                async with asyncio.timeout(LEAVES_WITHIN):
                    await leaving
        with suppress(NoSuchDomain):
            await (await self.domain()).destroy()


@dataclass(frozen=True)
class LibvirtAddress(MigrationAddress):
    """Where a guest of libvirt's goes: libvirt is told of hosts, not only of ports.

    Attributes:
        there: What waits there.
    """

    there: LibvirtReception | None = field(default=None, compare=False, repr=False, metadata=SECRET)


class LibvirtReception:
    """The port's `Reception`: libvirt builds the destination itself, when the move begins.

    Attributes:
        connection: Its host's libvirt.
        peer: The URI under which other hosts' libvirt reaches it; empty: whimbrel leads the move.
        sockets: What the paths of the channels' sockets begin with there; None: libvirt chooses.
        tuning: What was asked for.
    """

    def __init__(
        self,
        machine: LibvirtMachine,
        connection: Connection,
        address: MigrationAddress,
        tuning: Tuning,
        *,
        peer: str = "",
        sockets: str | None = None,
    ) -> None:
        self.machine = machine
        self.connection, self.peer = connection, peer
        self.sockets, self.tuning = sockets, tuning
        self.address = LibvirtAddress(
            address.host, address.port, credentials=address.credentials, there=self
        )
        self._attaching: asyncio.Task[None] | None = None

    def built(self) -> None:
        """Hear that libvirt has built the VM: what belongs to it is looked up meanwhile.

        Where libvirt has to be asked for that, only later: it would let us wait, and who waits
        is not noticed to be gone.
        """
        if self.sockets is not None and self._attaching is None:
            self._attaching = asyncio.create_task(self._attach())

    async def run(self) -> None:
        """See `ports.Reception.run`; where post-copy may begin, libvirt has begun to do it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + RUNS_WITHIN
        while not (state := await self.machine.state()).runs:
            if not state.lives:
                raise HostError(f"No guest has arrived on {self.connection.name}: it is {state}.")
            if state is State.PAUSED:
                await self.machine.resume()
                break
            if loop.time() > until:
                raise HostError(f"The guest did not run at the destination in {RUNS_WITHIN:.0f} s.")
            await asyncio.sleep(_LOOK_AGAIN)
        self.machine.expected = False
        if self._attaching is None:
            self._attaching = asyncio.create_task(self._attach())
        if self.sockets is not None:
            await self._attaching

    async def _attach(self) -> None:
        with suppress(HostError):  # it ended meanwhile, as the move's stream tells
            await self.machine.attach(self.sockets)

    async def listen_again(self) -> MigrationAddress:
        """See `ports.Reception.listen_again`; libvirt listens when the move is taken up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PAUSES_WITHIN
        while (state := await self.machine.state()) is State.RUNNING_IN_POSTCOPY:
            await require_resuming(self.connection)  # QEMU may notice a link that is cut very late
            if loop.time() > until:
                break
            await asyncio.sleep(_LOOK_AGAIN)
        if not state.lives:
            raise MachineEnded(f"VM {self.machine.vm.name} has ended at its destination.")
        if state is State.RUNNING_IN_LOST_POSTCOPY:
            await require_resuming(self.connection)
        else:
            raise CommandRefused(f"No post-copy has lost its connection: the guest is {state}.")
        return self.address

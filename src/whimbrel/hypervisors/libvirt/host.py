"""A host that libvirt runs, behind the port `Hypervisor`.

    source                                  destination
    start ─► libvirt ─► QEMU                receive ─► a port is chosen, the address tried
    send: one call of libvirt's ─────────►  libvirt builds the VM, and lets it stand
          ═══════ pages, device state ══════► paused
          it stands there ───────────────────► run: resume

libvirt is told of the destination's libvirt and not of a waiting QEMU, so what `receive` returns
carries that connection within its address.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from whimbrel.errors import CommandRefused, ConfigError, Unsupported
from whimbrel.hypervisors.libvirt.connection import Connection
from whimbrel.hypervisors.libvirt.departure import Departure
from whimbrel.hypervisors.libvirt.domain_xml import (
    at_destination,
    described,
    domain_xml,
    memory_limited,
)
from whimbrel.hypervisors.libvirt.machine import (
    LibvirtAddress,
    LibvirtMachine,
    LibvirtReception,
)
from whimbrel.hypervisors.libvirt.migration import LibvirtMigration
from whimbrel.hypervisors.libvirt.settings import Settings, settings_from
from whimbrel.hypervisors.libvirt.states import State
from whimbrel.hypervisors.libvirt.translate import (
    FINDS_ZEROS,
    address_parameters,
    flags_for,
    lacking,
    milliseconds,
    needs,
    parameters_for,
    under_way,
)
from whimbrel.hypervisors.libvirt.trial import trial_xml
from whimbrel.model.by_hand import ByHand
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.method import Transport, Tuning, rdma_refusal, zero_copy_refusal
from whimbrel.model.migration import Phase, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from whimbrel.hypervisors.libvirt.connection import Domain
    from whimbrel.hypervisors.libvirt.states import Happening, Versions
    from whimbrel.model.inventory import Disk
    from whimbrel.ports import Machine, Site


class LibvirtHost:
    """The port's `Hypervisor`: one host's libvirt, reached at its first use.

    Used with `async with`: its connection ends with it, VMs go on.

    Args:
        name: The host's name, for people.
        uri: libvirt's own URI of it.
        site: The way onto it, where there is one; not closed with this.
        peer: The URI under which other hosts' libvirt reaches it, to let the source's libvirt
            lead a move (peer-to-peer); empty: whimbrel leads it.
        sockets: Folder on the host for the sockets of channels; None: where libvirt has them.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        site: Site | None = None,
        *,
        peer: str = "",
        sockets: str | None = None,
    ) -> None:
        self.name = name
        self._uri, self._site = uri, site
        self._peer, self._sockets = peer, sockets
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._machines: dict[str, LibvirtMachine] = {}
        self._receptions: list[LibvirtReception] = []
        self._proven: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of libvirt; VMs go on."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def connection(self) -> Connection:
        """Return the connection, made at the first call, and anew where it has been lost."""
        async with self._connecting:
            if self._connection is not None and not await self._connection.stands():
                await self.close()
                self._machines.clear()  # they hold on to it
            if self._connection is None:
                self._connection = await Connection.open(self.name, self._uri)
            return self._connection

    async def versions(self) -> Versions:
        """Return which libvirt and QEMU answer."""
        return await (await self.connection()).versions()

    async def capabilities(self) -> frozenset[Capability]:
        """See `ports.Hypervisor.capabilities`."""
        return frozenset(Capability) - (await self.lacking()).keys()

    async def lacking(self) -> Mapping[Capability, str]:
        """See `ports.Hypervisor.lacking`; by the versions that answer on the live connection."""
        settings = await self.settings()
        return settings.lacking() | lacking(await self.versions())

    async def settings(self) -> Settings:
        """Return what the host's own files say, where a shell leads to them."""
        if self._site is None:
            return Settings()
        return settings_from(await self._site.ask("libvirt_settings"))

    async def start(self, vm: Vm) -> LibvirtMachine:
        """See `ports.Hypervisor.start`; libvirt forgets the VM when it ends."""
        connection = await self.connection()
        domain = await connection.boot(domain_xml(vm, self._prefix(vm.name)))
        return await self._hold(described(await domain.found_xml()), domain)

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> LibvirtReception:
        """See `ports.Hypervisor.receive`; the VM itself is built by libvirt, in `send`."""
        await self._require(tuning, address, Side.DESTINATION)
        connection = await self.connection()
        port = address.port or await self._free_port()
        taken = self._waiting(lambda each: each.address.port == port)
        if port and taken:
            raise CommandRefused(
                f"Port {port} of {self.name} waits for {taken.machine.vm.name}.",
                "Choose another port, or none.",
            )
        present = await connection.domain(vm.name)
        if present is not None and (await present.state()).lives:
            raise CommandRefused(f"{self.name} already has a VM {vm.name} that lives.")
        await self._prove(address.host)
        machine = LibvirtMachine(vm, connection, None, self._site)
        machine.promised = True
        return self._expect(machine, connection, replace(address, port=port), tuning)

    async def send(
        self, machine: Machine, tuning: Tuning, address: MigrationAddress
    ) -> LibvirtMigration:
        """See `ports.Hypervisor.send`."""
        held = self._own(machine)
        await self._require(tuning, address, Side.SOURCE)
        if not isinstance(address, LibvirtAddress) or address.there is None:
            raise ConfigError(f"VM {machine.vm.name} is run by libvirt: it can go to libvirt only.")
        domain, reception = await held.domain(), address.there
        if under_way(await domain.job()):  # libvirt would let us wait for it, and refuse then
            raise CommandRefused(
                f"libvirt on host {self.name} is at work on {machine.vm.name} already.",
                f"See at what: virsh domjobinfo {machine.vm.name}",
            )
        departure = await self._departure(held, address.there, tuning, address)
        if held.proven:
            departure = replace(departure, flags=departure.flags | {"UNSAFE"})
        await domain.set_downtime_limit(milliseconds(tuning.downtime_limit))
        heard: asyncio.Queue[Happening] = asyncio.Queue()
        ears = [
            await domain.connection.listen(domain.id, Side.SOURCE, heard),
            await reception.connection.listen(domain.id, Side.DESTINATION, heard),
        ]
        migration = LibvirtMigration(held, domain, heard, ears, departure)
        held.carries = None
        reception.machine.promised = False
        migration.depart()
        try:
            await migration.begun()
        except BaseException:  # whoever is interrupted now is told that nothing has begun
            await migration.call_off()
            raise
        return migration

    async def rejoin(self, machine: Machine) -> LibvirtMigration:
        """See `ports.Hypervisor.rejoin`."""
        held = self._own(machine)
        domain = await held.domain()
        heard: asyncio.Queue[Happening] = asyncio.Queue()
        ears = await domain.connection.listen(domain.id, Side.SOURCE, heard)
        migration = LibvirtMigration(held, domain, heard, [ears], None)
        job = await domain.job()
        if not under_way(job) and await domain.state() not in _HANDS_OVER:
            ears.close()
            raise CommandRefused("No move is under way.")
        migration.found(job)
        return migration

    async def expecting(self, machine: Machine, address: MigrationAddress) -> LibvirtReception:
        """See `ports.Hypervisor.expecting`."""
        held = self._own(machine)
        known = self._waiting(lambda each: each.machine is held)
        tuning = known.tuning if known is not None else Tuning()
        return self._expect(held, await self.connection(), address, tuning)

    async def seek(self, name: str) -> LibvirtMachine | None:
        """See `ports.Hypervisor.seek`."""
        domain = await (await self.connection()).domain(name)
        waiting = self._waiting(lambda each: each.machine.vm.name == name)
        if waiting is not None and waiting.machine.promised:
            return waiting.machine
        if domain is None or not (state := await domain.state()).lives:
            return None
        if waiting is not None:
            return waiting.machine
        held = self._machines.get(domain.id)
        if held is not None and held.last is not Phase.COMPLETED:
            return held
        if state.busy:  # nothing but its name can be told
            unknown = Vm(domain.name, 0, 0, uuid=domain.id)
            return LibvirtMachine(unknown, domain.connection, domain, self._site)
        return await self._hold(described(await domain.found_xml()), domain)

    def by_hand(self, name: str) -> ByHand:
        """See `ports.Hypervisor.by_hand`: whoever has virsh reaches libvirt as whimbrel does."""
        words = f"virsh -c '{self._uri}'"
        start = f"{words} start {name} (where it was not defined: create FILE)"
        return ByHand(f"{words} destroy {name}", start)

    async def _hold(self, vm: Vm, domain: Domain) -> LibvirtMachine:
        machine = LibvirtMachine(vm, domain.connection, domain, self._site)
        await machine.attach()
        self._machines[domain.id] = machine
        return machine

    def _own(self, machine: Machine) -> LibvirtMachine:
        if not isinstance(machine, LibvirtMachine):
            raise ConfigError(f"VM {machine.vm.name} is not run by libvirt on {self.name}.")
        return machine

    def _expect(
        self,
        machine: LibvirtMachine,
        connection: Connection,
        address: MigrationAddress,
        tuning: Tuning,
    ) -> LibvirtReception:
        machine.expected = True
        sockets = self._prefix(machine.vm.name)
        reception = LibvirtReception(
            machine, connection, address, tuning, peer=self._peer, sockets=sockets
        )
        self._receptions.append(reception)
        return reception

    def _waiting(self, wanted: Callable[[LibvirtReception], bool]) -> LibvirtReception | None:
        """Return the newest reception of a kind that still waits for its guest."""
        self._receptions = [each for each in self._receptions if each.machine.expected]
        return next(filter(wanted, reversed(self._receptions)), None)

    async def _free_port(self) -> int:
        """Choose a port; where another program has taken it, the move fails at its beginning.

        0: libvirt chooses, of those that its qemu.conf allows, which cannot be seen from here.
        """
        if self._site is None:
            return 0
        ports = (await self.settings()).ports
        self._waiting(lambda _: True)
        free = set(ports) - {each.address.port for each in self._receptions}
        if not free:
            raise CommandRefused(f"All {len(ports)} migration ports of {self.name} are taken.")
        return secrets.choice(sorted(free))

    def _prefix(self, name: str) -> str | None:
        return None if self._sockets is None else f"{self._sockets}/{name}-"

    async def _require(self, tuning: Tuning, address: MigrationAddress, side: Side) -> None:
        """Raise where this host cannot do what is asked, or would do it less privately."""
        _agree(tuning, address)
        lacking = await self.lacking()
        for capability in sorted(needs(tuning) & lacking.keys()):
            raise Unsupported(f"Host {self.name} has no {capability}: {lacking[capability]}")
        if address.credentials is not None:
            (await self.settings()).require(self.name, side, address.credentials)

    async def _prove(self, address: str) -> None:
        """Try once whether somebody can listen at an address; `CommandRefused` where not.

        libvirt tells of no host's addresses, and refuses one only amid a move.
        """
        if address in self._proven:
            return
        try:
            await (self._prove_by_libvirt(address) if self._site is None else self._listen(address))
        except CommandRefused as error:
            raise CommandRefused(
                error.what, f"See whether {address} is an address of host {self.name}."
            ) from error
        self._proven.add(address)

    async def _listen(self, address: str) -> None:
        assert self._site is not None  # noqa: S101 - only who has one comes here
        token = secrets.token_hex(8)
        told = await self._site.ask("preflight_listen", address=address, port=0, token=token)
        if "error" in told:
            words = f"Nothing can listen at {address} on host {self.name}: {told['words']}"
            raise CommandRefused(words)
        await self._site.ask("preflight_heard", token=token, patience=0.0)  # listens no more

    async def _prove_by_libvirt(self, address: str) -> None:
        """Have libvirt try, by a VM that never runs; that takes it some tenths of a second."""
        connection = await self.connection()
        name = f"whimbrel-trial-{secrets.token_hex(4)}"
        xml = trial_xml(name, address, await self._free_port())
        await (await connection.boot(xml, paused=True)).destroy()

    async def _departure(
        self,
        machine: LibvirtMachine,
        reception: LibvirtReception,
        tuning: Tuning,
        address: MigrationAddress,
    ) -> Departure:
        domain = await machine.domain()
        persistent, luggage = await domain.persistent(), await machine.storage().luggage()
        if luggage is not None:
            both = [await each.versions() for each in (domain.connection, reception.connection)]
            oldest = min(min(each.daemon, each.library) for each in both)
            luggage = replace(luggage, sparse=oldest >= FINDS_ZEROS)
        living = await domain.xml(movable=True)
        if tuning.transport is Transport.RDMA and not memory_limited(living):
            raise Unsupported(*_UNLIMITED)
        flags = flags_for(
            tuning, persistent=persistent, encrypted=address.encrypted, luggage=luggage
        )
        parameters = parameters_for(tuning)
        parameters |= address_parameters(address, tuning.transport, luggage)
        disks = _elsewhere(machine.vm, reception.machine.vm)
        there = (reception.sockets, tuning.prepared_memory, disks)
        sparse = luggage is not None and luggage.sparse
        parameters["destination_xml"] = at_destination(living, *there, sparse=sparse)
        if persistent:
            kept = at_destination(await domain.kept_xml(), reception.sockets, None, disks)
            parameters["persistent_xml"] = kept
        return Departure(domain, reception, flags, parameters)


_HANDS_OVER = {State.POSTCOPY, State.LOST_POSTCOPY}
"""States of a source of which libvirt, when its leader is gone, may tell no figures."""

_UNLIMITED = (
    "libvirt moves by RDMA only a VM whose memory has a hard limit, since all of it may be locked.",
    "Give the VM <memtune><hard_limit>, larger than its memory, and start it again.",
)


def _agree(tuning: Tuning, address: MigrationAddress) -> None:
    """Raise where a move would be less private than its tuning says, or cannot be private."""
    if address.key:
        raise Unsupported(
            "libvirt encrypts with its hosts' certificates only, never with a key per move.",
            "Have the move use certificates.",
        )
    if tuning.encrypted and not address.encrypted:
        raise ConfigError("The move shall be encrypted, but there are no certificates for it.")
    if address.encrypted and tuning.transport is Transport.RDMA:
        raise Unsupported("QEMU cannot encrypt a move by RDMA.", "Choose another method.")
    # libvirt leaves most of it to QEMU, amid the move
    refusal = rdma_refusal(tuning) or zero_copy_refusal(tuning)
    if refusal is not None:
        raise Unsupported(*refusal)


def _elsewhere(here: Vm, there: Vm) -> dict[str, Disk]:
    """Return the disks that lie elsewhere at the destination, by name."""
    known = {disk.name: (disk.path, disk.format) for disk in here.disks}
    return {
        disk.name: disk
        for disk in there.disks
        if disk.name in known and known[disk.name] != (disk.path, disk.format)
    }

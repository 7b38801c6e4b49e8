"""Simulated hosts, the wire between them, and the machines on them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from whimbrel.errors import CommandRefused, HostUnreachable, Unsupported
from whimbrel.hypervisors.simulated.inspect import SimulatedInspection
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile
from whimbrel.model.migration import Phase
from whimbrel.ports import Migration, Standing, Storage
from whimbrel.theory.simulate import Change

FIRST_PORT = 49152
"""The first port the network gives away."""


Mourner = Callable[[], None]
"""Somebody to be told when a machine has ended."""


class State(Enum):
    """What a simulated machine's guest does."""

    RUNNING = "running"
    STOPPED = "stopped"
    WAITING = "waiting for its state"
    HANDED_OVER = "handed over to another host"
    GONE = "gone"


@dataclass(frozen=True)
class Faults:
    """What shall go wrong on one host.

    Attributes:
        fails_in: Moves from here fail in this phase: pre-copy, switchover or post-copy.
        unreachable_in: The connection to this host breaks when a move from here is in this
            phase; the move itself goes on unseen.
        refuses_to_run: A guest that has come here cannot be started.
        befalls: What happens to every move from here, in simulated seconds since it began; a
            guest that begins to write faster, say.
    """

    fails_in: Phase | None = None
    unreachable_in: Phase | None = None
    refuses_to_run: bool = False
    befalls: tuple[Change, ...] = ()


@dataclass
class SimulatedNetwork:
    """The wire between simulated hosts.

    Attributes:
        link: What it carries.
        speed: Simulated seconds in a real one.
        addresses: The addresses that hosts have on it.
        listening: Who waits for a guest, by address and port.
        again: Who waits for a post-copy that has lost its connection.
        cut: Whether nothing gets through; what is on its way is not told by itself.
    """

    link: LinkProfile = field(default_factory=lambda: LinkProfile({1: 1.25e9}))
    speed: float = 1.0
    addresses: frozenset[str] = frozenset({"127.0.0.1"})
    listening: dict[tuple[str, int], "SimulatedReception"] = field(default_factory=dict)
    again: dict[tuple[str, int], "SimulatedReception"] = field(default_factory=dict)
    cut: bool = False

    def place(self, wanted: MigrationAddress) -> MigrationAddress:
        """Return the address with a free port; `CommandRefused` where there is none."""
        if wanted.host not in self.addresses:
            raise CommandRefused(
                f"No simulated host has the address {wanted.host}.",
                f"Use one of: {', '.join(sorted(self.addresses))}.",
            )
        if wanted.port and (wanted.host, wanted.port) in self.listening:
            raise CommandRefused(f"Port {wanted.port} of {wanted.host} is taken.", "Use another.")
        port = wanted.port or FIRST_PORT
        while (wanted.host, port) in self.listening:
            port += 1
        return replace(wanted, port=port)


@dataclass
class Site:
    """One simulated host, as its machines see it.

    Attributes:
        name: For people.
        network: The wire it is on.
        profile: What moving memory costs on it.
        faults: What shall go wrong on it.
        machines: What has been started and has not ended.
        reachable: Whether it answers.
    """

    name: str
    network: SimulatedNetwork
    profile: HostProfile
    faults: Faults
    machines: "list[SimulatedMachine]" = field(default_factory=list)
    reachable: bool = True

    def reach(self) -> None:
        """Raise `HostUnreachable` where the connection to this host has broken."""
        if not self.reachable:
            raise HostUnreachable(f"{self.name} does not answer.")


class SimulatedMachine:
    """The port's `Machine`.

    Attributes:
        migration: The move on which its guest is to another host; None where it stays.
        phase: How far the last move from it or to it is.
        memory: What its guest's memory holds.
        reception: What waits for its guest, where it was built for one.
        mourners: Called when it ends.
    """

    def __init__(self, vm: Vm, site: Site, state: State) -> None:
        self._vm, self._site, self._state = vm, site, state
        self.migration: Migration | None = None
        self.reception: SimulatedReception | None = None
        self.phase = Phase.IDLE
        self.memory = MemoryProfile(vm.memory)
        self.mourners: list[Mourner] = []
        site.machines.append(self)

    @property
    def vm(self) -> Vm:
        """See `ports.Machine.vm`."""
        return self._vm

    @property
    def pid(self) -> int | None:
        """None: no process holds it."""
        return None

    def channel(self, name: str) -> Path:
        """Refuse: nobody would answer on a simulated guest's channel."""
        raise CommandRefused(f'The simulated guest {self._vm.name} has no channel "{name}".')

    async def record(self, vm: Vm) -> None:
        """See `ports.Machine.record`."""
        self._vm = vm

    def storage(self) -> Storage:
        """Refuse: a simulated machine has no disks."""
        raise Unsupported(f"The simulated VM {self._vm.name} has no disks.")

    def inspection(self) -> SimulatedInspection:
        """See `ports.Machine.inspection`."""
        return SimulatedInspection(self.memory, self._site.reach, self._site.network.speed)

    async def running(self) -> bool:
        """See `ports.Machine.running`."""
        self._site.reach()
        return self._state is State.RUNNING

    async def standing(self) -> Standing:
        """See `ports.Machine.standing`."""
        if self._state is State.GONE:
            raise HostUnreachable(f"{self._vm.name} has ended on {self._site.name}.")
        return Standing(await self.running(), self.phase)

    async def resume(self) -> None:
        """See `ports.Machine.resume`; a guest that was handed over is not taken back."""
        self._site.reach()
        if self._state is State.GONE:
            raise HostUnreachable(f"{self._vm.name} has ended on {self._site.name}.")
        if self._state in {State.HANDED_OVER, State.WAITING}:
            raise CommandRefused(
                f"{self._vm.name} cannot run on {self._site.name}: it is {self._state.value}."
            )
        self._state = State.RUNNING

    async def forget_move(self) -> None:
        """See `ports.Machine.forget_move`; a simulated move needs nothing that could be left."""
        self._site.reach()

    async def stop(self) -> None:
        """See `ports.Machine.stop`."""
        self._site.reach()
        self.vanish()

    def vanish(self) -> None:
        """End at once and without a word, as in a power cut."""
        if self._state is State.GONE:
            return
        self._state = State.GONE
        self._site.machines.remove(self)
        for told in self.mourners:
            told()

    def enter(self, state: State) -> None:
        """Take on a state, unless it has ended."""
        if self._state is not State.GONE:
            self._state = state

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._state is State.GONE


class SimulatedReception:
    """The port's `Reception`."""

    def __init__(self, machine: SimulatedMachine, site: Site, address: MigrationAddress) -> None:
        self._machine, self._site, self._address = machine, site, address
        self._settled = asyncio.Event()
        self._lost = ""
        machine.mourners.append(self._settle)
        machine.reception = self
        site.network.listening[address.host, address.port] = self

    @property
    def address(self) -> MigrationAddress:
        """See `ports.Reception.address`."""
        return self._address

    @property
    def machine(self) -> SimulatedMachine:
        """See `ports.Reception.machine`."""
        return self._machine

    @property
    def site(self) -> Site:
        """The host that waits."""
        return self._site

    async def run(self) -> None:
        """See `ports.Reception.run`."""
        await self._settled.wait()
        self._site.reach()
        if self._machine.gone or self._lost:
            reason = self._lost or "its machine has ended"
            raise HostUnreachable(f"{self._machine.vm.name} cannot run here: {reason}.")
        if self._site.faults.refuses_to_run:
            raise CommandRefused(f"{self._site.name} refuses to run the guest, as was asked for.")
        self._machine.enter(State.RUNNING)

    async def listen_again(self) -> MigrationAddress:
        """See `ports.Reception.listen_again`."""
        self._site.reach()
        if self._machine.phase is not Phase.POSTCOPY_PAUSED:
            raise CommandRefused("No post-copy has lost its connection.")
        self._site.network.again[self._address.host, self._address.port] = self
        return self._address

    def arrive(self) -> None:
        """Note that the source has handed the guest over."""
        self._settle()

    def lose(self, reason: str) -> None:
        """Note that the guest will not come, or not whole."""
        self._lost = self._lost or reason
        self._machine.enter(State.WAITING)
        self._settle()

    def _settle(self) -> None:
        self._settled.set()
        self._site.network.listening.pop((self._address.host, self._address.port), None)

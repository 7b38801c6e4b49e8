"""A hypervisor that plays a script, and counts where its guest runs."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel.errors import CommandRefused, HostError, HostUnreachable
from whimbrel.model.by_hand import ByHand
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.memory import MemoryProfile
from whimbrel.model.method import Tuning
from whimbrel.model.migration import ENDS, Action, Cancel, Decision, Event, Phase, PhaseChange
from whimbrel.model.units import PAGE
from whimbrel.ports import Ended, Inspection, Machine, Standing, Storage
from whimbrel.theory.dirtying import uniform

VM = Vm("guest", 1 << 28)
ADDRESS = MigrationAddress("127.0.0.1", 4444)


def busy(vm: Vm) -> MemoryProfile:
    """Return the memory of a guest that writes faster than most links carry."""
    return MemoryProfile(vm.memory, dirty=uniform(vm.memory / PAGE / 2, 1e6))


@dataclass
class FakeMachine:
    """A machine that knows whether its guest runs and whether it exists."""

    vm: Vm = VM
    pid: int | None = None
    runs: bool = False
    stopped: bool = False
    silent: bool = False
    phase: Phase = Phase.IDLE
    forgotten: int = 0

    def channel(self, name: str) -> Path:
        return Path(name)

    def inspection(self) -> Inspection:
        raise CommandRefused("nothing to look into")

    async def record(self, vm: Vm) -> None:
        self.vm = vm

    def storage(self) -> Storage:
        raise CommandRefused("no disks")

    async def running(self) -> bool:
        if self.silent:
            raise HostUnreachable("no answer")
        return self.runs and not self.stopped

    async def standing(self) -> Standing:
        if self.silent or self.stopped:
            raise HostUnreachable("no answer")
        return Standing(self.runs, self.phase)

    async def resume(self) -> None:
        if self.silent or self.stopped:
            raise HostUnreachable("no answer")
        self.runs = True

    async def forget_move(self) -> None:
        if self.silent or self.stopped:
            raise HostUnreachable("no answer")
        self.forgotten += 1

    async def stop(self) -> None:
        self.stopped = True
        self.runs = False


@dataclass
class FakeReception:
    machine: FakeMachine
    refuses: bool = False
    address: MigrationAddress = ADDRESS
    deaf: bool = False
    listens: int = 0

    async def run(self) -> None:
        if self.refuses:
            raise HostError("the device state does not fit")
        self.machine.runs = True

    async def listen_again(self) -> MigrationAddress:
        if self.deaf:
            raise HostUnreachable("no answer")
        self.listens += 1
        return self.address


@dataclass
class FakeMigration:
    """Plays events; an exception in the script is raised; a cancel ends it where it stands."""

    machine: FakeMachine
    script: list[Event | HostError]
    there: FakeMachine | None = None
    applied: list[Action] = field(default_factory=list)
    cancelled: bool = False
    phase: Phase = Phase.IDLE
    hold: asyncio.Event | None = None
    gone: bool = False
    pauses: int = 0
    resumed: list[MigrationAddress] = field(default_factory=list)

    async def watch(self) -> AsyncIterator[Event]:
        for step in self.script:
            if isinstance(step, HostError):
                raise step
            if isinstance(step, PhaseChange):
                self._enter(step.phase)
            yield step
            if self.hold is not None:
                await self.hold.wait()
            if self.cancelled and self.phase not in ENDS:
                self._enter(Phase.CANCELLED)
                yield PhaseChange(Phase.CANCELLED, step.at)
                return

    def _enter(self, phase: Phase) -> None:
        self.phase = self.machine.phase = phase
        if self.there is not None:
            self.there.phase = phase
        if phase in {Phase.POSTCOPY, Phase.COMPLETED, Phase.SWITCHOVER}:
            self.machine.runs = False
        self.gone = self.gone or phase in {Phase.POSTCOPY, Phase.COMPLETED}
        # QEMU takes a guest back by itself only before it was given away.
        if phase in {Phase.FAILED, Phase.CANCELLED} and not self.machine.stopped and not self.gone:
            self.machine.runs = True

    async def apply(self, action: Action) -> None:
        if isinstance(action, Cancel):
            if self.phase in {Phase.POSTCOPY, *ENDS}:
                raise CommandRefused("too late")
            self.cancelled = True
            if self.hold is not None:
                self.hold.set()
        self.applied.append(action)

    async def pause(self) -> None:
        self.pauses += 1

    async def resume(self, address: MigrationAddress) -> None:
        self.resumed.append(address)

    async def ended(self) -> Ended:
        return Ended(self.phase, "as scripted", 1.0, 0.1, 0.01, 1000)


@dataclass
class FakeHypervisor:
    """One host; what it starts, receives and sends is given beforehand."""

    name: str
    reception: FakeReception | None = None
    migration: FakeMigration | None = None
    held: FakeMachine | None = None
    rejoined: list[FakeMigration] = field(default_factory=list)

    async def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    async def lacking(self) -> Mapping[Capability, str]:
        return {}

    async def start(self, vm: Vm) -> FakeMachine:
        return FakeMachine(vm, runs=True)

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> FakeReception:
        if self.reception is None:
            raise HostError("cannot receive")
        return self.reception

    async def send(
        self, machine: Machine, tuning: Tuning, address: MigrationAddress
    ) -> FakeMigration:
        if self.migration is None:
            raise HostError("cannot send")
        return self.migration

    async def rejoin(self, machine: Machine) -> FakeMigration:
        if self.migration is None or self.migration.phase in ENDS:
            raise CommandRefused("no move is under way")
        # Whoever comes next hears the phase it is in; a cancel ends it, or the connection breaks.
        phase = PhaseChange(self.migration.phase, 0.0)
        script: list[Event | HostError] = [phase, phase, HostUnreachable("cut")]
        told = FakeMigration(self.migration.machine, script, self.migration.there)
        told.gone = self.migration.gone
        self.rejoined.append(told)
        return told

    async def expecting(self, machine: Machine, address: MigrationAddress) -> FakeReception:
        if self.reception is None:
            raise CommandRefused("nobody is expected")
        return self.reception

    async def seek(self, name: str) -> FakeMachine | None:
        held = self.reception.machine if self.reception else self.held
        if held is not None and held.silent:
            raise HostUnreachable("no answer")
        return None if held is None or held.stopped else held

    def by_hand(self, name: str) -> ByHand:
        return ByHand()


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.decisions: list[Decision] = []
        self.arrivals = 0

    def prepared(self, machine: Machine) -> None:
        pass

    def happened(self, event: Event) -> None:
        self.events.append(event)

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    def arrived(self, machine: Machine) -> None:
        self.arrivals += 1

"""The simulated host, and two of them for a test or a trial."""

import asyncio
from collections.abc import Callable, Mapping

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.hypervisors.simulated.machine import (
    Faults,
    SimulatedMachine,
    SimulatedNetwork,
    SimulatedReception,
    Site,
    State,
)
from whimbrel.hypervisors.simulated.migration import CourseOf, SimulatedMigration
from whimbrel.model.by_hand import ByHand
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import ACCELERATORS, Postcopy, Tuning, zero_copy_refusal
from whimbrel.model.prediction import Course
from whimbrel.model.units import GIB, format_size
from whimbrel.ports import Machine, Migration, Reception
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import Change, preparation, simulate

EVERYTHING = frozenset(Capability) - {
    Capability.RDMA,
    Capability.RDMA_PIN_ALL,
    Capability.MPTCP,
    *(codec.capability for codec in ACCELERATORS),
}
"""What a simulated host can do unless told otherwise."""


def idle_guest(vm: Vm) -> MemoryProfile:
    """Return the memory of a guest that has booted and does nothing."""
    return MemoryProfile(total=vm.memory, zero_share=0.8, untouched_share=0.8)


class SimulatedHypervisor:
    """The port's `Hypervisor`.

    Args:
        name: The host's name.
        network: The wire it is on.
        capabilities: What it can do.
        memory: Bytes of the host's memory; guests beyond it do not start.
        host: What moving memory costs here.
        guest: What the memory of a guest started here holds.
        rules: The QEMU it pretends to be.
        faults: What shall go wrong.
    """

    def __init__(
        self,
        name: str,
        network: SimulatedNetwork,
        *,
        capabilities: frozenset[Capability] = EVERYTHING,
        memory: int = 64 * GIB,
        host: HostProfile | None = None,
        guest: Callable[[Vm], MemoryProfile] = idle_guest,
        rules: QemuRules | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._site = Site(name, network, host or HostProfile(), faults or Faults())
        self._capabilities, self._memory = capabilities, memory
        self._guest, self._rules = guest, rules or QemuRules()

    @property
    def name(self) -> str:
        """See `ports.Hypervisor.name`."""
        return self._site.name

    @property
    def machines(self) -> tuple[SimulatedMachine, ...]:
        """The machines that have not ended."""
        return tuple(self._site.machines)

    async def capabilities(self) -> frozenset[Capability]:
        """See `ports.Hypervisor.capabilities`."""
        self._site.reach()
        return self._capabilities

    async def lacking(self) -> Mapping[Capability, str]:
        """See `ports.Hypervisor.lacking`."""
        self._site.reach()
        missing = frozenset(Capability) - self._capabilities
        return dict.fromkeys(missing, f"{self._site.name} is simulated without it")

    async def start(self, vm: Vm) -> Machine:
        """See `ports.Hypervisor.start`."""
        self._site.reach()
        return self._build(vm, State.RUNNING)

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> Reception:
        """See `ports.Hypervisor.receive`."""
        self._site.reach()
        self._need(tuning)
        placed = self._site.network.place(address)
        survey = Survey(self._guest(vm), self._site.network.link, destination=self._site.profile)
        machine = self._build(vm, State.WAITING)
        reception = SimulatedReception(machine, self._site, placed)
        await asyncio.sleep(preparation(survey, tuning) / self._site.network.speed)
        return reception

    async def send(self, machine: Machine, tuning: Tuning, address: MigrationAddress) -> Migration:
        """See `ports.Hypervisor.send`."""
        self._site.reach()
        self._need(tuning)
        if machine not in self._site.machines or not isinstance(machine, SimulatedMachine):
            raise CommandRefused(f"{self._site.name} does not hold {machine.vm.name}.")
        if machine.migration is not None:
            raise CommandRefused(f"{machine.vm.name} is already being moved.")
        reception = self._site.network.listening.get((address.host, address.port))
        if reception is None:
            raise CommandRefused(f"Nobody listens at {address.host}:{address.port}.")
        if reception.machine.vm.memory != machine.vm.memory:
            raise CommandRefused("The destination was built with another size of memory.")
        survey = Survey(
            self._guest(machine.vm),
            self._site.network.link,
            self._site.profile,
            reception.site.profile,
        )
        may_pull = tuning.postcopy is not Postcopy.NEVER
        return SimulatedMigration(
            machine,
            reception,
            self._site,
            self._course(survey, tuning),
            may_pull=may_pull,
            pauses=tuning.pause_before_switchover,
        )

    async def rejoin(self, machine: Machine) -> Migration:
        """See `ports.Hypervisor.rejoin`; the same move, which goes on being told to one only."""
        self._site.reach()
        if not isinstance(machine, SimulatedMachine) or machine.migration is None:
            raise CommandRefused(f"No move of {machine.vm.name} is under way.")
        return machine.migration

    async def expecting(self, machine: Machine, address: MigrationAddress) -> Reception:
        """See `ports.Hypervisor.expecting`."""
        self._site.reach()
        if not isinstance(machine, SimulatedMachine) or machine.reception is None:
            raise CommandRefused(f"{machine.vm.name} was not built to receive a guest.")
        if machine.reception.address != address:
            raise CommandRefused(f"{machine.vm.name} does not listen at {address.host}.")
        return machine.reception

    async def seek(self, name: str) -> Machine | None:
        """See `ports.Hypervisor.seek`."""
        self._site.reach()
        return next((each for each in self._site.machines if each.vm.name == name), None)

    def by_hand(self, name: str) -> ByHand:
        """See `ports.Hypervisor.by_hand`."""
        return ByHand(end=f"whimbrel down {name} --now --on {self.name}")

    def _course(self, survey: Survey, tuning: Tuning) -> CourseOf:
        def course_of(changes: tuple[Change, ...], horizon: float) -> Course:
            return simulate(
                survey,
                tuning,
                self._rules,
                deadline=horizon,
                changes=sorted((*self._site.faults.befalls, *changes), key=lambda each: each.at),
                patient=True,
                controlled=False,
            )

        return course_of

    def _build(self, vm: Vm, state: State) -> SimulatedMachine:
        if vm.memory > self._memory:
            raise CommandRefused(
                f"{self._site.name} cannot give {vm.name} {format_size(vm.memory)} of memory."
            )
        if any(each.vm.name == vm.name for each in self._site.machines):
            raise CommandRefused(f"{self._site.name} already has a machine called {vm.name}.")
        machine = SimulatedMachine(vm, self._site, state)
        machine.memory = self._guest(vm)
        return machine

    def _need(self, tuning: Tuning) -> None:
        missing = sorted(tuning.needs - self._capabilities)
        if missing:
            raise Unsupported(
                f"{self._site.name} lacks: {', '.join(missing)}.", "Use another method."
            )
        refusal = zero_copy_refusal(tuning)
        if refusal is not None:
            raise Unsupported(*refusal)


def simulated_pair(
    *,
    speed: float = 1.0,
    link: LinkProfile | None = None,
    capabilities: frozenset[Capability] = EVERYTHING,
    guest: Callable[[Vm], MemoryProfile] = idle_guest,
    rules: QemuRules | None = None,
    source_faults: Faults | None = None,
    destination_faults: Faults | None = None,
) -> tuple[SimulatedHypervisor, SimulatedHypervisor]:
    """Return two hosts "a" and "b" on one network.

    Args:
        speed: Simulated seconds in a real one.
        link: The network; 10 Gbit/s where None.
        capabilities: What both can do.
        guest: What their guests' memory holds.
        rules: The QEMU both pretend to be.
        source_faults: What shall go wrong on "a".
        destination_faults: What shall go wrong on "b".
    """
    network = SimulatedNetwork(link or LinkProfile({1: 1.25e9}), speed)
    source, destination = (
        SimulatedHypervisor(
            name, network, capabilities=capabilities, guest=guest, rules=rules, faults=faults
        )
        for name, faults in (("a", source_faults), ("b", destination_faults))
    )
    return source, destination

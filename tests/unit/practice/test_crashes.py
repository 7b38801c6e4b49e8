"""A whimbrel that dies anywhere in a move, and one that recovers it: the guest runs once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.practice.fakes import Silent, busy
from whimbrel.hypervisors.simulated import SimulatedHypervisor, simulated_pair
from whimbrel.hypervisors.simulated.host import idle_guest
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.journal import Entry, Step
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import Side
from whimbrel.model.units import MIB
from whimbrel.ports import Hypervisor, Machine
from whimbrel.practice.move import Request, move
from whimbrel.practice.record import Record, Unwritten
from whimbrel.practice.repair import Deserted, Repaired, repair

VM = Vm("guest", 256 * MIB)
ADDRESS = MigrationAddress("127.0.0.1")


class Crash(BaseException):
    """The power cut of a whimbrel: nothing of it goes on, and nothing is undone."""


@dataclass
class Fuse:
    """Counts what a whimbrel asks of the world, and ends it at one of these points."""

    blows_at: int
    count: int = 0
    blown: bool = False

    def touch(self) -> None:
        """Let one more thing happen, or nothing ever again."""
        self.count += 1
        if self.blown or self.count >= self.blows_at:
            self.blown = True
            raise Crash


class Fused:
    """Anything, of which each method can be the last that is called, before or after it acts."""

    def __init__(self, real: object, fuse: Fuse) -> None:
        self._real = real
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name == "watch":
            return lambda: self._watched(found)
        if not asyncio.iscoroutinefunction(found):
            return _fused(found, self._fuse)
        return self._called(found)

    def _called(self, found: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            self._fuse.touch()
            answer = await found(*(_bare(each) for each in arguments))
            self._fuse.touch()
            return _fused(answer, self._fuse)

        return call

    async def _watched(self, found: Callable[[], Any]) -> Any:
        async for event in found():
            self._fuse.touch()
            yield event


def _fused(value: Any, fuse: Fuse) -> Any:
    ours = type(value).__name__ in {
        "SimulatedMachine",
        "SimulatedReception",
        "SimulatedMigration",
        "SimulatedHypervisor",
    }
    return Fused(value, fuse) if ours else value


def _bare(value: Any) -> Any:
    return value._real if isinstance(value, Fused) else value


@dataclass
class Memory:
    """A journal that outlives the crash."""

    fuse: Fuse
    steps: list[Step] = field(default_factory=list)

    async def write(self, entry: Entry) -> None:
        self.fuse.touch()
        self.steps.append(entry.step)
        self.fuse.touch()

    def note(self, entry: Entry) -> None:
        pass


TUNINGS = {
    "pre-copy": Tuning(),
    "paused": Tuning(pause_before_switchover=True),
    "post-copy": Tuning(postcopy=Postcopy.AFTER_FIRST_PASS),
    "paused post-copy": Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, pause_before_switchover=True),
}


@dataclass
class Scene:
    """Two simulated hosts and a guest on the first."""

    source: SimulatedHypervisor
    destination: SimulatedHypervisor
    machine: Machine

    async def running(self) -> list[Side]:
        """Return where the guest runs."""
        sides = {Side.SOURCE: self.source, Side.DESTINATION: self.destination}
        return [
            side for side, host in sides.items() for each in host.machines if await each.running()
        ]

    async def moved(self, tuning: Tuning, fuse: Fuse) -> Memory:
        """Move, until the fuse blows; return the journal."""
        journal = Memory(fuse)
        request = Request(
            cast("Hypervisor", Fused(self.source, fuse)),
            cast("Machine", Fused(self.machine, fuse)),
            cast("Hypervisor", Fused(self.destination, fuse)),
            ADDRESS,
            tuning,
            timeout=600.0,
            journal=journal,
        )
        try:
            await move(request, Silent())
        except Crash:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if "whimbrel/practice" in str(
                    getattr(task.get_coro(), "cr_code", "")
                ):  # the hosts go on
                    task.cancel()
        return journal

    async def recovered(self, journal: Memory, *, exact: bool = True) -> Repaired:
        """Recover as `whimbrel recover` does."""
        steps = [step for step in journal.steps if step is not Step.CLOSED]
        lost = Deserted(
            VM.name,
            self.source,
            self.destination,
            await self._address(),
            steps[-1] if steps else None,
            exact=exact,
        )
        return await repair(lost, Record(Unwritten()))

    async def _address(self) -> MigrationAddress | None:
        for machine in self.destination.machines:
            if machine.reception is not None:
                return machine.reception.address
        return None


async def scene(name: str) -> Scene:
    guest = busy if "post-copy" in name else idle_guest
    source, destination = simulated_pair(speed=200, guest=guest)
    return Scene(source, destination, await source.start(VM))


def vanish(host: SimulatedHypervisor) -> None:
    """Let every machine of a host lose its power."""
    for machine in host.machines:
        machine.vanish()


async def crash_and_recover(name: str, point: int) -> bool:
    """Crash at a point; return whether the move got so far."""
    on = await scene(name)
    fuse = Fuse(point)
    journal = await on.moved(TUNINGS[name], fuse)
    assert len(await on.running()) <= 1
    done = await on.recovered(journal)
    assert len(await on.running()) == 1, (name, point, journal.steps, done.cases)
    assert await on.running() == [done.runs_on]
    assert len(on.source.machines) + len(on.destination.machines) == 1
    return fuse.blown


@pytest.mark.parametrize("name", TUNINGS)
async def test_a_whimbrel_that_dies_at_any_point_loses_no_guest(name: str) -> None:
    point = 1
    while await crash_and_recover(name, point):
        point += 1
    assert point > 20  # it went through all of a move


async def die_with_a_host(name: str, point: int, dead: frozenset[Side], *, exact: bool) -> None:
    on = await scene(name)
    journal = await on.moved(TUNINGS[name], Fuse(point))
    hosts = {Side.SOURCE: on.source, Side.DESTINATION: on.destination}
    ran_on = await on.running()
    for side in dead:
        vanish(hosts[side])
    done = await on.recovered(journal, exact=exact)
    running = await on.running()
    assert len(running) <= 1
    assert done.runs_on in {None, *running}
    if ran_on and ran_on[0] not in dead and Step.POSTCOPY not in journal.steps:
        assert running == ran_on, done.cases


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(TUNINGS)),
    st.integers(1, 60),
    st.frozensets(st.sampled_from(Side)),
    st.booleans(),
)
def test_whatever_dies_with_it_the_guest_never_runs_twice(
    name: str, point: int, dead: frozenset[Side], exact: bool
) -> None:
    asyncio.run(die_with_a_host(name, point, dead, exact=exact))

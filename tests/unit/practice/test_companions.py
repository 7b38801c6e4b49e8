"""What travels beside memory is told each thing in time, and the journal before it is done."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from unit.practice.fakes import ADDRESS, VM, Silent, busy
from whimbrel.errors import HostError
from whimbrel.hypervisors.simulated import SimulatedHypervisor, simulated_pair
from whimbrel.hypervisors.simulated.host import idle_guest
from whimbrel.model.journal import Entry, Step
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import Phase, Side
from whimbrel.model.outcome import Ending
from whimbrel.ports import Machine, Reception
from whimbrel.practice.move import Moved, Request, move


@dataclass
class Diary:
    """A journal and companions that write into one list."""

    pauses = True

    lines: list[str] = field(default_factory=list)
    refuses: str = ""
    hangs: bool = False

    async def write(self, entry: Entry) -> None:
        self.lines.append(entry.step.value)
        if entry.step.value == self.refuses:
            raise HostError("the disk is full")

    def note(self, entry: Entry) -> None:
        pass

    def _tell(self, what: str) -> None:
        self.lines.append(what)
        if what == self.refuses:
            raise HostError(f"{what} failed")

    async def before_memory(self, reception: Reception) -> None:
        assert not await reception.machine.running()
        self._tell("mirrors in step")
        if self.hangs:
            await asyncio.Event().wait()

    async def before_handover(self) -> None:
        self._tell("copy whole")

    async def after_failure(self, machine: Machine | None) -> None:
        self._tell("undone")

    async def after_arrival(self) -> None:
        self._tell("released")


@dataclass
class Scene:
    source: SimulatedHypervisor
    destination: SimulatedHypervisor
    request: Request
    diary: Diary

    async def running(self) -> list[Side]:
        sides = {Side.SOURCE: self.source, Side.DESTINATION: self.destination}
        return [
            side for side, host in sides.items() for each in host.machines if await each.running()
        ]

    async def play(self) -> Moved:
        return await move(self.request, Silent())


async def scene(tuning: Tuning | None = None, *, refuses: str = "", hangs: bool = False) -> Scene:
    postcopy = tuning is not None and tuning.postcopy is not Postcopy.NEVER
    source, destination = simulated_pair(speed=200, guest=busy if postcopy else idle_guest)
    machine = await source.start(VM)
    diary = Diary(refuses=refuses, hangs=hangs)
    request = Request(
        source,
        machine,
        destination,
        replace(ADDRESS, port=0),
        tuning or Tuning(),
        timeout=600.0,
        companions=(diary,),
        journal=diary,
    )
    return Scene(source, destination, request, diary)


async def test_each_step_is_written_down_before_it_is_taken() -> None:
    on = await scene()
    moved = await on.play()
    assert moved.outcome.ending is Ending.COMPLETED
    assert on.diary.lines == [
        "opened",
        "prepared",
        "mirrors in step",
        "sending",
        "handing-over",
        "copy whole",
        "running-there",
        "stopping-here",
        "released",
        "closed",
    ]
    assert await on.running() == [Side.DESTINATION]


async def test_disks_are_handed_over_before_a_post_copy_begins() -> None:
    on = await scene(Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=200e6))
    moved = await on.play()
    assert Phase.POSTCOPY in [change.phase for change in moved.outcome.phases]
    assert on.diary.lines[3:9] == [
        "sending",
        "postcopy",
        "handing-over",
        "copy whole",
        "running-there",
        "stopping-here",
    ]
    assert await on.running() == [Side.DESTINATION]


@pytest.mark.parametrize("refuses", ["opened", "prepared", "mirrors in step", "sending"])
async def test_what_fails_before_anything_is_sent_is_raised_and_undone(refuses: str) -> None:
    on = await scene(refuses=refuses)
    with pytest.raises(HostError):
        await on.play()
    assert await on.running() == [Side.SOURCE]
    assert on.destination.machines == ()


@pytest.mark.parametrize("refuses", ["handing-over", "copy whole", "postcopy"])
async def test_what_fails_at_the_hand_over_leaves_the_guest_at_the_source(refuses: str) -> None:
    on = await scene(
        Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=200e6), refuses=refuses
    )
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.FAILED, Side.SOURCE)
    assert "disk is full" in moved.outcome.reason or "copy whole failed" in moved.outcome.reason
    assert on.diary.lines[-3:] == ["undone", "stopping-there", "closed"]
    assert await on.running() == [Side.SOURCE]
    assert on.destination.machines == ()


@pytest.mark.parametrize("refuses", ["running-there", "stopping-here", "closed", "released"])
async def test_past_the_hand_over_nothing_holds_the_guest_up(refuses: str) -> None:
    on = await scene(refuses=refuses)
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.COMPLETED, Side.DESTINATION)
    assert await on.running() == [Side.DESTINATION]
    assert on.source.machines == ()


async def test_a_copy_that_takes_longer_than_the_move_may_is_given_up() -> None:
    on = await scene(hangs=True)
    on.request = replace(on.request, timeout=0.05)
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.TIMEOUT, Side.SOURCE)
    assert on.diary.lines[-3:] == ["undone", "stopping-there", "closed"]
    assert await on.running() == [Side.SOURCE]


async def test_an_interrupt_during_the_copy_undoes_it() -> None:
    on = await scene(hangs=True)
    playing = asyncio.ensure_future(on.play())
    while "mirrors in step" not in on.diary.lines:  # noqa: ASYNC110 - a plain list
        await asyncio.sleep(0.001)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert on.diary.lines[-3:] == ["undone", "stopping-there", "closed"]
    assert await on.running() == [Side.SOURCE]
    assert on.destination.machines == ()


async def test_without_companions_nothing_waits_before_the_hand_over() -> None:
    on = await scene()
    on.request = replace(on.request, companions=())
    await on.play()
    assert Step.HANDING_OVER.value not in on.diary.lines

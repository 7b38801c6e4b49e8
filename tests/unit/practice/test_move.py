import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.practice.fakes import (
    ADDRESS,
    VM,
    FakeHypervisor,
    FakeMachine,
    FakeMigration,
    FakeReception,
    Silent,
)
from whimbrel.errors import HostError, HostUnreachable
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import (
    ENDS,
    TRANSITIONS,
    Cancel,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    Side,
    StartPostcopy,
)
from whimbrel.model.outcome import Ending
from whimbrel.ports import Ended
from whimbrel.practice import repair
from whimbrel.practice.move import Moved, Request, move

Script = Sequence[Event | HostError]


@pytest.fixture(autouse=True, scope="module")
def _at_once() -> Iterator[None]:
    """Let no repair wait before it looks again: fakes change by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repair, "LOOK_AGAIN", 0.0)
        yield


@dataclass
class Scene:
    here: FakeMachine
    there: FakeMachine
    request: Request
    migration: FakeMigration
    watcher: Silent

    async def play(self) -> Moved:
        return await move(self.request, self.watcher)

    @property
    def running(self) -> list[Side]:
        sides = {Side.SOURCE: self.here, Side.DESTINATION: self.there}
        return [side for side, machine in sides.items() if machine.runs]


def scene(script: Script, *, refuses: bool = False, tuning: Tuning | None = None) -> Scene:
    here, there = FakeMachine(VM, runs=True), FakeMachine(VM)
    migration = FakeMigration(here, list(script), there)
    source = FakeHypervisor("a", migration=migration, held=here)
    destination = FakeHypervisor("b", reception=FakeReception(there, refuses))
    request = Request(source, here, destination, ADDRESS, tuning or Tuning(), timeout=60.0)
    return Scene(here, there, request, migration, Silent())


def through(*phases: Phase) -> list[Event]:
    return [PhaseChange(phase, float(number)) for number, phase in enumerate(phases)]


COMPLETE = through(Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER, Phase.COMPLETED)


async def test_a_completed_move_runs_the_guest_there_and_ends_the_source() -> None:
    on = scene(COMPLETE)
    moved = await on.play()
    assert moved.outcome.ending is Ending.COMPLETED
    assert moved.outcome.runs_on is Side.DESTINATION
    assert moved.machine is on.there
    assert on.running == [Side.DESTINATION]
    assert on.here.stopped
    assert on.watcher.arrivals == 1
    assert moved.outcome.wall_time is not None
    assert moved.outcome.preparation_time is not None
    assert moved.outcome.wall_time >= moved.outcome.preparation_time


async def test_figures_asked_for_when_the_guest_has_arrived_count_for_no_time() -> None:
    now = 0.0

    class Slow(FakeMigration):
        async def ended(self) -> Ended:
            nonlocal now
            now += 100.0
            return await super().ended()

    on = scene(COMPLETE)
    slow = Slow(on.here, list(COMPLETE), on.there)
    source = FakeHypervisor("a", migration=slow, held=on.here)
    moved = await move(replace(on.request, source=source), on.watcher, lambda: now)
    assert now == 100.0
    assert moved.outcome.wall_time == moved.outcome.arrival_time == 0.0


async def test_a_destination_that_cannot_receive_leaves_everything_as_it_was() -> None:
    on = scene(COMPLETE)
    on.request = Request(
        on.request.source, on.here, FakeHypervisor("b"), ADDRESS, Tuning(), timeout=60.0
    )
    with pytest.raises(HostError, match="cannot receive"):
        await on.play()
    assert on.running == [Side.SOURCE]


async def test_a_source_that_cannot_send_leaves_nothing_at_the_destination() -> None:
    on = scene(COMPLETE)
    on.request = Request(
        FakeHypervisor("a", held=on.here),
        on.here,
        on.request.destination,
        ADDRESS,
        Tuning(),
        timeout=60.0,
    )
    with pytest.raises(HostError, match="cannot send"):
        await on.play()
    assert on.there.stopped
    assert on.running == [Side.SOURCE]


async def test_a_failed_move_leaves_the_guest_at_the_source() -> None:
    on = scene(through(Phase.SETUP, Phase.PRECOPY, Phase.FAILED))
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.FAILED, Side.SOURCE)
    assert moved.outcome.downtime_reported is None
    assert on.running == [Side.SOURCE]
    assert on.there.stopped


async def test_a_guest_that_cannot_run_there_goes_on_at_the_source() -> None:
    on = scene(COMPLETE, refuses=True)
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.FAILED, Side.SOURCE)
    assert "does not fit" in moved.outcome.reason
    assert on.running == [Side.SOURCE]
    assert on.there.stopped


async def test_a_move_past_its_deadline_is_called_back() -> None:
    late = Observation(61.0, Phase.PRECOPY)
    on = scene([*through(Phase.SETUP, Phase.PRECOPY), late, late])
    moved = await on.play()
    assert moved.outcome.ending is Ending.TIMEOUT
    assert "60 s" in moved.outcome.reason
    assert on.migration.applied == [Cancel()]
    assert on.running == [Side.SOURCE]


async def test_post_copy_runs_the_guest_there_at_once_and_is_not_called_back() -> None:
    script = [
        *through(Phase.SETUP, Phase.PRECOPY),
        Pass(2, 3.0, 1, 1),
        Observation(3.5, Phase.PRECOPY),
        PhaseChange(Phase.POSTCOPY, 4.0),
        Observation(70.0, Phase.POSTCOPY),
        PhaseChange(Phase.COMPLETED, 71.0),
    ]
    on = scene(script, tuning=Tuning(postcopy=Postcopy.AFTER_FIRST_PASS))
    moved = await on.play()
    assert moved.outcome.ending is Ending.COMPLETED
    assert on.migration.applied == [StartPostcopy()]
    assert on.watcher.arrivals == 1
    assert on.running == [Side.DESTINATION]


async def test_a_guest_lost_in_post_copy_is_said_to_be_nowhere() -> None:
    script = [*through(Phase.SETUP, Phase.PRECOPY, Phase.POSTCOPY), HostUnreachable("cut")]
    on = scene(script)
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.FAILED, None)
    assert moved.machine is None
    assert not on.here.runs


async def test_a_silent_source_is_not_overruled_from_the_destination() -> None:
    on = scene([*through(Phase.SETUP, Phase.PRECOPY), HostUnreachable("cut")])
    on.here.silent = True
    moved = await on.play()
    assert moved.outcome.runs_on is None
    assert not on.there.runs
    assert not on.there.stopped


async def test_a_source_that_answers_after_a_broken_stream_keeps_the_guest() -> None:
    on = scene([*through(Phase.SETUP, Phase.PRECOPY), HostUnreachable("cut")])
    moved = await on.play()
    assert (moved.outcome.ending, moved.outcome.runs_on) == (Ending.FAILED, Side.SOURCE)
    assert on.there.stopped


async def test_an_interrupt_calls_the_move_back_before_it_goes_on() -> None:
    on = scene([*through(Phase.SETUP, Phase.PRECOPY), *[Observation(1.0, Phase.PRECOPY)] * 5])
    on.migration.hold = asyncio.Event()
    playing = asyncio.ensure_future(on.play())
    while not on.watcher.events:  # noqa: ASYNC110 - the watcher is a plain list
        await asyncio.sleep(0)  # one turn of the loop: nothing is waited for in time
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert on.migration.applied == [Cancel()]
    assert on.running == [Side.SOURCE]
    assert on.there.stopped


@st.composite
def walks(draw: st.DrawFn) -> list[Event | HostError]:
    """Any way through the table of transitions, cut by a lost connection at any point."""
    phase, events = Phase.IDLE, list[Event | HostError]()
    while phase not in ENDS and len(events) < 12:
        phase = draw(st.sampled_from(sorted(TRANSITIONS[phase])))
        events.append(PhaseChange(phase, float(len(events))))
    if phase not in ENDS:
        events.append(HostUnreachable("the connection broke"))
    cut = draw(st.integers(1, 2 * len(events)))
    return events if cut >= len(events) else [*events[:cut], HostUnreachable("cut")]


@given(walks(), st.booleans(), st.booleans())
def test_the_guest_never_runs_twice_and_is_where_the_outcome_says(
    script: Script, refuses: bool, silent: bool
) -> None:
    on = scene(script, refuses=refuses)
    on.here.silent = silent
    moved = asyncio.run(on.play())
    assert len(on.running) <= 1
    if moved.outcome.runs_on is not None:
        assert on.running == [moved.outcome.runs_on]
        assert moved.machine is not None

"""What the scheduler does when something is due, was missed, fails, or another one is there."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.schedule.jobs import again, once
from whimbrel.errors import ConfigError
from whimbrel.model.job import Job, JobRun, RunState
from whimbrel.schedule.kept import Jobs, holder
from whimbrel.schedule.scheduler import TOLD_APART, Scheduler, Told, passed_over
from whimbrel.store import Store

DONE = "print('moved')"
FAILS = "import sys; print('the disk is full', file=sys.stderr); sys.exit(4)"
WAITS = """
import signal, sys
def stop(*_):
    print("called back", file=sys.stderr)
    sys.exit(4)
signal.signal(signal.SIGINT, stop)
open(sys.argv[1], "w").close()
while True:
    signal.pause()
"""


def python(program: str, *more: str) -> Callable[[Sequence[str]], list[str]]:
    return lambda _: [sys.executable, "-c", program, *more]


@dataclass
class Bench:
    """A store, and schedulers whose clock stands where it is put."""

    path: Path
    stores: list[Store] = field(default_factory=list)
    told: list[JobRun] = field(default_factory=list)
    complaints: list[ConfigError] = field(default_factory=list)
    time: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def jobs(self) -> Jobs:
        self.stores.append(Store.open(self.path))
        return Jobs(self.stores[-1])

    def scheduler(self, program: str = DONE, *more: str) -> Scheduler:
        return Scheduler(
            self.jobs(),
            told=self._hear,
            complained=self.complaints.append,
            launcher=python(program, *more),
            now=lambda: self.time,
        )

    def _hear(self, told: Told) -> None:
        self.told.append(told.run)
        self.news.set()

    async def settle(self, scheduler: Scheduler, at: float) -> list[tuple[float, RunState]]:
        """Let a scheduler look at a time, and return what became of all turns."""
        self.time = at
        await scheduler.look()
        await scheduler.finished()
        return [(run.due, run.state) for run in reversed(scheduler.jobs.runs())]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "moves.sqlite")
    yield made
    for store in made.stores:
        store.close()


def add(bench: Bench, job: Job) -> Job:
    return bench.jobs().add(job)


async def test_a_job_is_carried_out_at_its_time_once_and_its_result_kept(bench: Bench) -> None:
    add(bench, once())
    scheduler = bench.scheduler()
    assert await bench.settle(scheduler, 999.0) == []
    assert await bench.settle(scheduler, 1000.0) == [(1000.0, RunState.DONE)]
    assert await bench.settle(scheduler, 1001.0) == [(1000.0, RunState.DONE)]
    [run] = scheduler.jobs.runs()
    assert (run.code, run.message, run.ended) == (0, "moved", 1000.0)
    assert [each.state for each in bench.told] == [RunState.RUNNING, RunState.DONE]


async def test_a_command_that_fails_is_kept_with_its_code_and_words(bench: Bench) -> None:
    add(bench, once())
    scheduler = bench.scheduler(FAILS)
    await bench.settle(scheduler, 1000.0)
    [run] = scheduler.jobs.runs()
    assert (run.code, run.message) == (4, "the disk is full")


async def test_a_turn_missed_while_down_is_caught_up_within_its_window(bench: Bench) -> None:
    add(bench, once())
    assert await bench.settle(bench.scheduler(), 1600.0) == [(1000.0, RunState.DONE)]


async def test_a_turn_missed_for_too_long_is_reported(bench: Bench) -> None:
    add(bench, once())
    scheduler = bench.scheduler()
    assert await bench.settle(scheduler, 1601.0) == [(1000.0, RunState.MISSED)]
    [run] = scheduler.jobs.runs()
    assert "10 min 1 s later it was not begun any more" in run.message
    assert run.code is None


async def test_of_several_missed_turns_the_latest_is_caught_up_and_all_are_kept(
    bench: Bench,
) -> None:
    add(bench, again(added=1.0))
    found = await bench.settle(bench.scheduler(), 4 * 3600.0 + 10)
    states = [RunState.MISSED] * 3 + [RunState.DONE]
    assert found == [(3600.0 * (hour + 1), state) for hour, state in enumerate(states)]


@given(st.integers(1, 300))
def test_no_turn_that_was_passed_over_goes_unmentioned(count: int) -> None:
    found = passed_over([60.0 * turn for turn in range(count)])
    assert len(found) == min(count - 1, TOLD_APART)
    if count - 1 > TOLD_APART:
        assert f"So were {count - 1 - TOLD_APART} turns" in found[0][1]


async def test_two_schedulers_at_once_carry_it_out_once(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(bench, once())
    program = f"open({str(log)!r}, 'a').write('x')"
    bench.time = 1000.0
    both = [bench.scheduler(program), bench.scheduler(program)]
    await asyncio.gather(*(each.look() for each in both))
    await asyncio.gather(*(each.finished() for each in both))
    assert log.read_text() == "x"


async def test_a_turn_waits_for_no_turn_before_it(bench: Bench, tmp_path: Path) -> None:
    add(bench, again(added=1.0))
    scheduler = bench.scheduler(WAITS, str(tmp_path / "up"))
    bench.time = 3600.0
    await scheduler.look()
    bench.time = 7200.0
    await scheduler.look()
    await up(tmp_path / "up")
    scheduler.interrupt()
    await scheduler.finished()
    late, first = scheduler.jobs.runs()
    assert late.state is RunState.MISSED
    assert "still on its way" in late.message
    assert (first.code, first.message) == (4, "called back")


async def up(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)


async def test_a_run_whose_scheduler_was_killed_is_called_lost(bench: Bench) -> None:
    job = add(bench, once())
    gone = f"{holder().rsplit(' ', 1)[0]} 1"
    bench.jobs().claim(JobRun(job.number, 1000.0, RunState.RUNNING, gone, 1000.0))
    scheduler = bench.scheduler()
    assert await bench.settle(scheduler, 1100.0) == [(1000.0, RunState.LOST)]
    assert "whimbrel recover" in scheduler.jobs.runs()[0].message


async def test_a_command_that_cannot_be_started_is_kept_as_such(bench: Bench) -> None:
    add(bench, once(folder="/nowhere/at/all"))
    scheduler = bench.scheduler()
    assert await bench.settle(scheduler, 1000.0) == [(1000.0, RunState.DONE)]
    [run] = scheduler.jobs.runs()
    assert run.code is None
    assert "could not be started" in run.message


async def test_the_last_words_are_kept_of_a_command_that_writes_very_much(bench: Bench) -> None:
    add(bench, once())
    scheduler = bench.scheduler("print('x' * 3_000_000); print('the end')")
    await bench.settle(scheduler, 1000.0)
    message = scheduler.jobs.runs()[0].message
    assert message.endswith("the end")
    assert len(message) < 5000


async def test_a_scheduler_that_runs_wakes_at_the_time_and_learns_of_new_jobs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whimbrel.schedule.scheduler.LOOK_EVERY", 0.05)
    scheduler = bench.scheduler()
    stopped = asyncio.Event()
    running = asyncio.create_task(scheduler.run(stopped))
    await asyncio.sleep(0)
    add(bench, once())
    bench.time = 1000.0
    async with asyncio.timeout(20):
        while len(bench.told) < 2:
            bench.news.clear()
            await bench.news.wait()
    stopped.set()
    await running
    assert bench.told[-1].state is RunState.DONE


async def test_a_scheduler_that_is_stopped_waits_for_what_it_began(
    bench: Bench, tmp_path: Path
) -> None:
    add(bench, once())
    scheduler = bench.scheduler(WAITS, str(tmp_path / "up"))
    stopped = asyncio.Event()
    bench.time = 1000.0
    running = asyncio.create_task(scheduler.run(stopped))
    await up(tmp_path / "up")
    stopped.set()
    await asyncio.sleep(0)
    assert not running.done()
    scheduler.interrupt()
    await running
    assert scheduler.jobs.runs()[0].message == "called back"


async def test_a_store_that_is_locked_is_complained_of_and_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whimbrel.store.PATIENCE", 0.05)
    add(bench, once())
    scheduler = bench.scheduler()
    bench.time = 1000.0
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await scheduler.look()
    assert "locked" in bench.complaints[0].what
    assert await bench.settle(scheduler, 1000.0) == [(1000.0, RunState.DONE)]

"""Jobs are kept, and each turn belongs to one scheduler."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from unit.records import moved
from unit.schedule.jobs import again, once
from whimbrel.errors import ConfigError
from whimbrel.model.job import JobRun, RunState
from whimbrel.schedule.kept import Jobs, has_ended, holder, missed
from whimbrel.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "moves.sqlite") as opened:
        yield opened


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return Jobs(store)


def turn(job: int, due: float = 1000.0) -> JobRun:
    return JobRun(job, due, RunState.RUNNING, holder(), due)


def test_jobs_come_back_as_they_were_given(jobs: Jobs) -> None:
    added = [jobs.add(once()), jobs.add(again(folder="/tmp/a b"))]  # noqa: S108
    assert list(jobs.all()) == added
    assert jobs.get(added[1].number) == added[1]


def test_a_number_is_never_given_twice(jobs: Jobs) -> None:
    first = jobs.add(once())
    jobs.remove(first.number)
    assert jobs.add(once()).number > first.number


def test_a_job_that_is_not_there_is_told(jobs: Jobs) -> None:
    for ask in (jobs.get, jobs.remove):
        with pytest.raises(ConfigError, match="no job 7"):
            ask(7)


def test_a_turn_is_taken_once(jobs: Jobs) -> None:
    job = jobs.add(once())
    run = jobs.claim(turn(job.number))
    assert run is not None
    assert run.number
    assert jobs.claim(turn(job.number)) is None
    assert jobs.claim(missed(job, 1000.0, holder(), "late")) is None
    assert jobs.running() == (run,)


def test_of_many_at_once_one_takes_the_turn(tmp_path: Path) -> None:
    path = tmp_path / "moves.sqlite"
    with Store.open(path) as store:
        job = Jobs(store).add(once())
    taken = []
    together = threading.Barrier(8)

    def take() -> None:
        with Store.open(path) as store:
            together.wait()
            taken.append(Jobs(store).claim(turn(job.number)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 8
    assert sum(run is not None for run in taken) == 1


def test_a_job_that_was_removed_has_no_turns(jobs: Jobs) -> None:
    job = jobs.add(once())
    jobs.claim(turn(job.number))
    jobs.remove(job.number)
    assert jobs.claim(turn(job.number, 2000.0)) is None
    assert jobs.runs() == ()


def test_what_became_of_a_turn_is_kept(jobs: Jobs) -> None:
    job = jobs.add(once())
    run = jobs.claim(turn(job.number))
    assert run is not None
    done = replace(run, state=RunState.DONE, ended=1010.0, code=4, message="no", move=3)
    jobs.finish(done)
    assert jobs.runs(job.number) == (done,)
    assert jobs.running() == ()


def test_turns_are_settled_up_to_the_last_that_is_kept(jobs: Jobs) -> None:
    job = jobs.add(again(added=50.0))
    assert jobs.seen_until(job) == 50.0
    jobs.claim(turn(job.number, 3600.0))
    assert jobs.seen_until(job) == 3600.0


def test_the_move_of_a_turn_is_found_by_its_vm_and_time(store: Store, jobs: Jobs) -> None:
    store.add(replace(moved(100.0), vm="vm1"))
    number = store.add(replace(moved(200.0), vm="vm1"))
    store.add(replace(moved(300.0), vm="other"))
    assert jobs.move_since(150.0, ("move", "vm1")) == number
    assert jobs.move_since(250.0, ("move", "vm1")) is None


def test_whoever_holds_a_turn_is_known_to_live_or_to_have_ended() -> None:
    assert not has_ended(holder())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = holder(child.pid)
        assert not has_ended(name)
        child.kill()
    assert has_ended(name)
    machine, boot, pid, start = holder().split()
    assert has_ended(f"{machine} other-boot {pid} {start}")
    assert has_ended(f"{machine} {boot} {os.getpid()} {int(start) + 1}")
    assert not has_ended(f"another {boot} 1 1")

import asyncio
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import HostError
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import (
    Entry,
    Step,
    decision_entry,
    decision_of,
    event_entry,
    event_of,
)
from whimbrel.model.migration import (
    Cancel,
    Decision,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    Proceed,
    SetBandwidthLimit,
    SetDowntimeLimit,
    Side,
    StartPostcopy,
)
from whimbrel.practice.history import histories, history, unfinished
from whimbrel.practice.journal import CHUNK, LAST_ROOM, FileJournal, Tail

numbers = st.floats(0, 1e6)
events = st.one_of(
    st.builds(Observation, numbers, st.sampled_from(Phase), st.integers(0), bandwidth=numbers),
    st.builds(Pass, st.integers(1), numbers, st.integers(0), st.integers(0)),
    st.builds(PhaseChange, st.sampled_from(Phase), numbers, st.text()),
)
actions = st.one_of(
    st.builds(StartPostcopy),
    st.builds(Cancel),
    st.builds(Proceed),
    st.builds(SetDowntimeLimit, numbers),
    st.builds(SetBandwidthLimit, st.none() | numbers),
)


def begun(folder: Path, vm: str = "web") -> FileJournal:
    return FileJournal.create(vm, "a", "b", folder=folder)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size`: what a full disk does, for this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(events)
def test_events_come_back_as_they_were(event: Event) -> None:
    entry = event_entry(event, 1.0)
    assert event_of(Entry(entry.step, entry.at, json.loads(json.dumps(entry.fields)))) == event


@given(st.builds(Decision, actions, st.text(), numbers))
def test_decisions_come_back_as_they_were(decision: Decision) -> None:
    entry = decision_entry(decision, 1.0)
    again = Entry(entry.step, entry.at, json.loads(json.dumps(entry.fields)))
    assert decision_of(again) == decision


async def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        await journal.write(Entry(Step.OPENED, 1.0, {"vm": "web"}))
        await journal.write(Entry(Step.PREPARED, 2.0, {"host": "10.0.0.2", "port": 4444}))
        journal.note(event_entry(PhaseChange(Phase.PRECOPY, 0.5), 3.0))
        journal.note(decision_entry(Decision(Cancel(), "why not", 0.6), 3.1))
        await journal.write(Entry(Step.CLOSED, 4.0, {"ending": "completed", "runs_on": "source"}))
    told = history(journal.path)
    assert (told.vm, told.source, told.destination, told.move) == ("web", "a", "b", journal.move)
    assert told.address == MigrationAddress("10.0.0.2", 4444)
    assert told.events == (PhaseChange(Phase.PRECOPY, 0.5),)
    assert told.decisions == (Decision(Cancel(), "why not", 0.6),)
    assert told.closed
    assert told.runs_on is Side.SOURCE
    assert told.ending == "completed"
    assert told.holder.pid == os.getpid()
    assert not journal.path.read_bytes().endswith(b"\n\n")


async def test_nobody_else_may_read_a_journal(tmp_path: Path) -> None:
    with begun(tmp_path / "new") as journal:
        assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


async def test_several_read_a_journal_while_it_is_written(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        first, second = Tail(journal.path), Tail(journal.path)
        await journal.write(Entry(Step.OPENED, 1.0))
        assert [entry.step for entry in first.new()] == [Step.OPENED]
        assert first.new() == ()
        await journal.write(Entry(Step.SENDING, 2.0))
        assert [entry.step for entry in first.new()] == [Step.SENDING]
        assert [entry.step for entry in second.new()] == [Step.OPENED, Step.SENDING]
        assert history(journal.path).conducted
    assert not history(journal.path).conducted


async def test_a_line_that_is_not_whole_yet_is_read_later(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        await journal.write(Entry(Step.OPENED, 1.0))
        whole = journal.path.read_bytes()
        end = len(whole.rstrip(b"\n")) + 1
        line = b'{"step": "sending", "at": 2.0, "fields": {}}'
        with journal.path.open("r+b") as file:
            file.seek(end)
            file.write(line[:20])
        tail = Tail(journal.path)
        assert [entry.step for entry in tail.new()] == [Step.OPENED]
        with journal.path.open("r+b") as file:
            file.seek(end)
            file.write(line)
        assert [entry.step for entry in tail.new()] == [Step.SENDING]


async def test_a_line_that_a_crash_tore_does_not_hide_what_follows(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    await journal.write(Entry(Step.OPENED, 1.0))
    with journal.path.open("r+b") as file:
        file.seek(len(journal.path.read_bytes().rstrip(b"\n")) + 1)
        file.write(b'{"step": "sen')
    journal._descriptor, old = -1, journal._descriptor  # as kill -9 leaves it
    os.close(old)
    with FileJournal.reopen(journal.path, journal.move) as again:
        await again.write(Entry(Step.STOPPING_THERE, 2.0))
    assert history(journal.path).last is Step.STOPPING_THERE


async def test_a_journal_that_is_written_is_not_taken_over(tmp_path: Path) -> None:
    with begun(tmp_path) as journal, pytest.raises(HostError, match="conducted"):
        FileJournal.reopen(journal.path, journal.move)


async def test_only_the_latest_move_of_a_vm_can_be_unfinished(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        await journal.write(Entry(Step.SENDING, 1.0))
    assert [each.path for each in unfinished("web", tmp_path)] == [journal.path]
    with begun(tmp_path) as later:
        await later.write(Entry(Step.SENDING, 1.0))
        assert unfinished("web", tmp_path) == ()
        await later.write(Entry(Step.CLOSED, 2.0, {"ending": "failed", "runs_on": "source"}))
    assert unfinished("web", tmp_path) == ()
    assert [each.path for each in histories("web", tmp_path)] == [later.path, journal.path]
    assert histories("db", tmp_path) == ()


async def test_a_move_whose_place_is_unknown_is_unfinished(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        await journal.write(Entry(Step.CLOSED, 2.0, {"ending": "failed", "runs_on": None}))
    assert len(unfinished(folder=tmp_path)) == 1


async def test_observations_are_thinned_and_nothing_else_is(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        for tenth in range(20):
            journal.note(event_entry(Observation(tenth / 10, Phase.PRECOPY), tenth / 10))
            journal.note(event_entry(Pass(tenth + 1, tenth / 10, 0, 0), tenth / 10))
    told = history(journal.path).events
    assert sum(isinstance(event, Pass) for event in told) == 20
    assert sum(isinstance(event, Observation) for event in told) == 4


async def test_a_full_disk_is_told_before_anything_irreversible(tmp_path: Path) -> None:
    with full_disk(CHUNK // 2), pytest.raises(HostError, match="cannot be written") as caught:
        begun(tmp_path)
    assert "Make room" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_the_last_steps_find_room_when_the_disk_has_become_full(tmp_path: Path) -> None:
    with begun(tmp_path) as journal, full_disk(CHUNK):
        large = Entry(Step.SENDING, 0.0, {"padding": "x" * 1000})
        for _ in range((CHUNK - LAST_ROOM) // 1100):
            await journal.write(large)
        with pytest.raises(HostError):
            await asyncio.gather(*(journal.write(large) for _ in range(10)))
        journal.note(event_entry(PhaseChange(Phase.COMPLETED, 0.0), 0.0))
        await journal.write(Entry(Step.RUNNING_THERE, 1.0))
        await journal.write(Entry(Step.CLOSED, 2.0, {"ending": "completed", "runs_on": "source"}))
    steps = [entry.step for entry in history(journal.path).entries]
    assert steps[-2:] == [Step.RUNNING_THERE, Step.CLOSED]


WRITER = """
import asyncio, sys
from pathlib import Path
from whimbrel.model.journal import Entry, Step
from whimbrel.practice.journal import FileJournal

async def main():
    journal = FileJournal.create("web", "a", "b", folder=Path(sys.argv[1]))
    await journal.write(Entry(Step.OPENED, 1.0))
    await journal.write(Entry(Step.SENDING, 2.0))
    print("written", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_writer_leaves_a_journal_that_says_so(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            [running] = histories(folder=tmp_path)
            assert running.conducted
        finally:
            writer.kill()
            writer.wait()
    [left] = unfinished(folder=tmp_path)
    assert left.last is Step.SENDING


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"schema": "other/1"}\n{"step": "opened"}\n')
    with pytest.raises(HostError, match="no journal"):
        history(tmp_path / "x.jsonl")
    with pytest.raises(HostError, match="cannot be read"):
        history(tmp_path / "nothing.jsonl")
    assert histories(folder=tmp_path) == ()

import socket
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import LabError
from whimbrel.lab.heartbeat import (
    FRAME,
    MAGIC,
    Beat,
    FrameReader,
    HeartbeatListener,
    Record,
    gap_across_switchover,
    longest_gap,
)

TIMES = st.lists(st.floats(0, 100), max_size=30).map(sorted)


def frame(sequence: int, pages: int = 0) -> bytes:
    return FRAME.pack(MAGIC, sequence, sequence * 5_000_000, pages)


def record(*arrivals: tuple[float, str]) -> Record:
    beats = Record()
    for sequence, (arrival, label) in enumerate(arrivals):
        beats.add(arrival, label, Beat(sequence, 0, 7 * sequence))
    return beats


@given(st.lists(st.integers(0, 2**64 - 1).filter(lambda n: n < 2**60), max_size=8), st.data())
def test_frames_are_the_same_however_the_bytes_are_cut(
    sequences: list[int], data: st.DataObject
) -> None:
    stream = b"".join(FRAME.pack(MAGIC, number, 1, 2) for number in sequences)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    reader = FrameReader()
    pieces = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
    assert [beat.sequence for piece in pieces for beat in reader.feed(piece)] == sequences


@pytest.mark.parametrize("cut", range(1, FRAME.size))
def test_after_the_rest_of_a_cut_frame_the_next_one_is_read(cut: int) -> None:
    assert FrameReader().feed(frame(1)[cut:] + frame(2)) == [Beat(2, 10_000_000, 0)]


@pytest.mark.parametrize("kept", range(1, FRAME.size - len(MAGIC) + 1))
def test_a_frame_cut_short_by_the_next_is_dropped(kept: int) -> None:
    assert FrameReader().feed(frame(1)[:kept] + frame(2)) == [Beat(2, 10_000_000, 0)]


def test_the_longest_gap_lies_between_two_beats() -> None:
    beats = record((1.0, "a"), (1.1, "a"), (1.5, "a"), (1.6, "a"))
    assert longest_gap(beats, 1.0, 1.6) == pytest.approx(0.4)


def test_the_edges_of_the_window_count() -> None:
    beats = record((1.0, "a"), (2.0, "a"), (2.1, "a"))
    assert longest_gap(beats, 2.0, 5.0) == pytest.approx(2.9)
    assert longest_gap(beats, 1.5, 2.1) == pytest.approx(0.5)


def test_a_gap_is_unknown_when_nothing_was_heard_before_its_end() -> None:
    assert longest_gap(Record(), 0, 1) is None
    assert longest_gap(record((5.0, "a")), 0, 1) is None


@given(TIMES, st.floats(0, 100), st.floats(0, 100))
def test_the_longest_gap_is_at_most_the_window_and_at_least_its_mean(
    arrivals: list[float], one: float, other: float
) -> None:
    since, until = sorted((one, other))
    gap = longest_gap(record(*((arrival, "a") for arrival in arrivals)), since, until)
    if gap is None:
        assert not any(arrival <= until for arrival in arrivals)
        return
    inside = sum(since <= arrival <= until for arrival in arrivals)
    assert (until - since) / (inside + 1) - 1e-9 <= gap <= until - since


@given(TIMES, st.floats(0, 100))
def test_one_more_beat_never_makes_a_gap_longer(arrivals: list[float], extra: float) -> None:
    before = longest_gap(record(*((arrival, "a") for arrival in arrivals)), 0, 100)
    after = longest_gap(record(*((a, "a") for a in sorted([*arrivals, extra]))), 0, 100)
    assert after is not None
    assert before is None or after <= before


def test_the_switchover_gap_is_from_the_last_of_one_side_to_the_first_of_the_other() -> None:
    beats = record((1.0, "source"), (1.2, "source"), (1.5, "destination"), (1.6, "destination"))
    assert gap_across_switchover(beats, "source", "destination") == pytest.approx(0.3)


def test_the_switchover_gap_is_unknown_until_both_sides_were_heard() -> None:
    beats = record((1.0, "source"))
    assert gap_across_switchover(beats, "source", "destination") is None
    assert gap_across_switchover(beats, "destination", "source") is None


class BeatPort:
    """A socket that offers a beat port as QEMU does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(1)
        self._connection: socket.socket | None = None

    def send(self, data: bytes) -> None:
        if self._connection is None:
            self._connection, _ = self._server.accept()
        self._connection.sendall(data)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._server.close()


def test_two_sides_are_heard_and_told_apart(tmp_path: Path) -> None:
    ports = {label: BeatPort(tmp_path / label) for label in ("source", "destination")}
    with HeartbeatListener() as listener:
        for sequence, (label, port) in enumerate(ports.items()):
            listener.add(label, port.path)
            port.send(frame(sequence, pages=9))
            assert listener.wait_for_beat(label, 60)
        beats = listener.record()
        gap = listener.gap_across_switchover("source", "destination")
    for port in ports.values():
        port.close()
    assert beats.labels == ["source", "destination"]
    assert list(beats.sequences) == [0, 1]
    assert list(beats.pages_dirtied) == [9, 9]
    assert gap == beats.arrivals[1] - beats.arrivals[0]


def test_a_side_that_goes_away_is_forgotten_and_the_others_are_heard(tmp_path: Path) -> None:
    first, second = BeatPort(tmp_path / "1"), BeatPort(tmp_path / "2")
    with HeartbeatListener() as listener:
        listener.add("first", first.path)
        first.send(frame(1))
        assert listener.wait_for_beat("first", 60)
        first.close()
        listener.add("second", second.path)
        second.send(frame(2))
        assert listener.wait_for_beat("second", 60)
    second.close()


def test_a_removed_side_is_no_longer_heard(tmp_path: Path) -> None:
    first, second = BeatPort(tmp_path / "1"), BeatPort(tmp_path / "2")
    with HeartbeatListener() as listener:
        listener.add("first", first.path)
        first.send(frame(1))
        assert listener.wait_for_beat("first", 60)
        listener.remove("first")
        listener.add("second", second.path)
        second.send(frame(2))
        assert listener.wait_for_beat("second", 60)
        with pytest.raises(BrokenPipeError):
            first.send(frame(3))
        assert list(listener.record().sequences) == [1, 2]
    first.close()
    second.close()


def test_no_listening_thread_outlives_the_block(tmp_path: Path) -> None:
    port = BeatPort(tmp_path / "beat")
    before = set(threading.enumerate())  # not a number: a thread of another test may be ending
    with HeartbeatListener() as listener:
        listener.add("source", port.path)
        assert len(set(threading.enumerate()) - before) == 1
    assert not set(threading.enumerate()) - before
    port.close()


def test_a_port_that_does_not_appear_is_an_error(tmp_path: Path) -> None:
    with HeartbeatListener() as listener, pytest.raises(LabError, match="cannot be reached"):
        listener.add("source", tmp_path / "nowhere", patience=0)

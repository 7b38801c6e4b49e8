"""The guest's heartbeat as the host hears it: what a person inside would feel as a standstill.

A guest sends a frame every 5 ms. `HeartbeatListener` stamps each frame's arrival in threads of
its own, because the event loop's load must not look like a guest's pause. Everything that is
asked of the beats is a pure function of the record they are kept in.
"""

import socket
import struct
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

from whimbrel.errors import LabError
from whimbrel.model.units import Seconds

INTERVAL: Seconds = 0.005
"""Seconds between two beats, as guest/beat.h has it."""

MAGIC = b"WHIMBEAT"
FRAME = struct.Struct("<8sQQQ")
"""Magic, sequence number, guest's monotonic nanoseconds, pages dirtied so far."""

_UNREAD = 1000
_CONNECT: Seconds = 10.0
_RETRY: Seconds = 0.02


class Beat(NamedTuple):
    """One frame.

    Attributes:
        sequence: Counts the guest's beats from 0, those that were lost too.
        guest_ns: The guest's monotonic clock, nanoseconds.
        pages_dirtied: Page writes since redline began.
    """

    sequence: int
    guest_ns: int
    pages_dirtied: int


class FrameReader:
    """Takes bytes as they come and gives whole frames; after a cut it finds the next magic."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Beat]:
        """Return the frames that `data` completes."""
        held = self._held + data
        beats = []
        start = 0
        while (start := held.find(MAGIC, start)) >= 0 and start + FRAME.size <= len(held):
            if held.find(MAGIC, start + 1, start + FRAME.size) >= 0:
                start += 1  # this one was cut short by the next
                continue
            beats.append(Beat(*FRAME.unpack_from(held, start)[1:]))
            start += FRAME.size
        # What remains is the beginning of a frame, or at most the beginning of a magic.
        self._held = held[start:] if start >= 0 else held[-(len(MAGIC) - 1) :]
        return beats


@dataclass
class Record:
    """Beats in order of arrival, 26 bytes each.

    Attributes:
        arrivals: Host's `time.monotonic()`, seconds, never falling.
        sequences: The guest's numbers.
        pages_dirtied: Page writes so far, as the guest said.
        sides: For each beat an index into `labels`.
        labels: Names of the sockets, such as "source".
    """

    arrivals: "array[float]" = field(default_factory=lambda: array("d"))
    sequences: "array[int]" = field(default_factory=lambda: array("Q"))
    pages_dirtied: "array[int]" = field(default_factory=lambda: array("Q"))
    sides: "array[int]" = field(default_factory=lambda: array("H"))
    labels: list[str] = field(default_factory=list)

    def add(self, arrival: Seconds, label: str, beat: Beat) -> None:
        """Append a beat."""
        if label not in self.labels:
            self.labels.append(label)
        self.arrivals.append(arrival)
        self.sequences.append(beat.sequence)
        self.pages_dirtied.append(beat.pages_dirtied)
        self.sides.append(self.labels.index(label))

    def copy(self) -> "Record":
        """Return a copy that does not grow."""
        return Record(
            self.arrivals[:],
            self.sequences[:],
            self.pages_dirtied[:],
            self.sides[:],
            list(self.labels),
        )


def longest_gap(record: Record, since: Seconds, until: Seconds) -> Seconds | None:
    """Return the longest time within [since, until] without a beat, its edges included.

    None when no beat was heard up to `until`: then there was nothing to listen to.
    """
    first = bisect_left(record.arrivals, since)
    end = bisect_right(record.arrivals, until)
    if end == 0 or until < since:
        return None
    moments = [since, *record.arrivals[first:end], until]
    return max(later - earlier for earlier, later in pairwise(moments))


def gap_across_switchover(record: Record, source: str, destination: str) -> Seconds | None:
    """Return the time from the last beat of one side to the first of the other.

    It is longer than the guest stood still by at most one `INTERVAL` (and what the beat's way to
    the host took). None when either side was never heard.
    """
    if source not in record.labels or destination not in record.labels:
        return None
    left, arrived = record.labels.index(source), record.labels.index(destination)
    last = next(i for i in range(len(record.sides) - 1, -1, -1) if record.sides[i] == left)
    return record.arrivals[record.sides.index(arrived)] - record.arrivals[last]


class HeartbeatListener:
    """Hears any number of beat sockets while its `with` block runs, each in a thread of its own.

    This runs beside guests on a machine that is being measured, so a beat costs one `recv` and
    one stamp; frames are read from what came when somebody asks, or when `_UNREAD` have come.
    """

    def __init__(self) -> None:
        self._record = Record()
        self._heard = threading.Condition()
        self._unread: deque[tuple[Seconds, str, FrameReader, bytes]] = deque()
        self._ears: list[tuple[str, socket.socket, threading.Thread]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for label in {label for label, _, _ in self._ears}:
            self.remove(label)

    def add(self, label: str, path: Path, patience: Seconds = _CONNECT) -> None:
        """Listen to one more beat port.

        Args:
            label: The name of its side in the answers; one name for each place and move.
            path: The chardev's UNIX socket, which QEMU may offer a little later.
            patience: Seconds to wait for it.

        Raises:
            LabError: The socket does not appear.
        """
        connection = _connected(path, patience)
        thread = threading.Thread(
            target=self._listen, args=(label, connection), name=f"heartbeat {label}", daemon=True
        )
        self._ears.append((label, connection, thread))
        thread.start()

    def remove(self, label: str) -> None:
        """Stop listening to that side; what was heard is kept."""
        leaving = [ear for ear in self._ears if ear[0] == label]
        self._ears = [ear for ear in self._ears if ear[0] != label]
        for _, connection, thread in leaving:
            with suppress(OSError):  # its QEMU may be gone already
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
            connection.close()

    def record(self) -> Record:
        """Return a copy of all beats heard so far."""
        self._read()
        with self._heard:
            return self._record.copy()

    def wait_for_beat(self, label: str, timeout: Seconds) -> bool:
        """Wait until that side was heard; False when it was not within `timeout` seconds."""
        with self._heard:
            return self._heard.wait_for(lambda: label in self._record.labels, timeout)

    def longest_gap(self, since: Seconds, until: Seconds) -> Seconds | None:
        """As the function of this name; times are of `time.monotonic()`."""
        return longest_gap(self.record(), since, until)

    def gap_across_switchover(self, source: str, destination: str) -> Seconds | None:
        """As the function of this name."""
        return gap_across_switchover(self.record(), source, destination)

    def _listen(self, label: str, connection: socket.socket) -> None:
        frames, known, came = FrameReader(), False, self._unread
        with suppress(OSError):  # a QEMU that was killed ends its side as one that quit
            while data := connection.recv(4096):
                came.append((time.monotonic(), label, frames, data))
                if not known or len(came) > _UNREAD:
                    self._read()
                    known = label in self._record.labels

    def _read(self) -> None:
        """Turn what came into beats."""
        with self._heard:
            while self._unread:
                arrival, label, frames, data = self._unread.popleft()
                for beat in frames.feed(data):
                    # Two sides stamp independently; queries rely on the order of arrival.
                    last = self._record.arrivals[-1] if self._record.arrivals else arrival
                    self._record.add(max(arrival, last), label, beat)
            self._heard.notify_all()


def _connected(path: Path, patience: Seconds) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if time.monotonic() >= deadline:
                raise LabError(f"The beat socket {path} cannot be reached: {error}.") from error
            time.sleep(_RETRY)
        else:
            return connection

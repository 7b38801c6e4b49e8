"""The two ends of a goodput measurement: a program of its own, standard library only.

    streams.py receive ADDRESS [--streams N] [--warm-up S] [--duration S] [--mptcp] [--as-qemu]
    streams.py send ADDRESS PORT [the same]

The receiver listens on ADDRESS only and prints its port as one line of JSON, answers the pings of
the first connection, counts what arrives on the others and prints the figures as one more line.
Goodput is what the receiving program got, so no buffer of the sender flatters it. The sender
prints the latency it saw, then pours zeros, and prints what of them waited in its sockets. Each
end gives up by itself when its peer is gone.

With --as-qemu a single stream is written and read in the pieces that QEMU's plain stream is: 32
pages with a header each in one call (MAX_IOV_SIZE, qemu-file.c), and a buffer of 32 KiB whose
content is then copied to where it belongs (IO_BUF_SIZE). On a fast link these pieces, not the
link, decide. Several streams are written in packets of 128 pages, as multifd does.
"""

import argparse
import fcntl
import itertools
import json
import math
import selectors
import signal
import socket
import statistics
import struct
import sys
import termios
import time

PROGRAM = __file__
"""Where this program lies."""
CHUNK = 1 << 20
"""Bytes read or written at once."""
PARTS = 5
"""Parts of a measurement that are compared to tell how certain it is."""
PINGS = 64
PATIENCE = 10.0
"""Seconds for anything that is not the transfer: connecting, pinging, waiting for a byte."""
AFTER = 5.0
"""Seconds that the sender pours longer than it is measured, for a receiver that comes late."""
_MPTCP = 262  # IPPROTO_MPTCP, linux/in.h
_HEADER, _PAGE = 8, 4096
_PLAIN = [bytes(_HEADER), bytes(_PAGE)] * 32
_PACKET = [bytes(1344), *([bytes(_PAGE)] * 128)]
_READ = 32 << 10
_PLACES = 32 << 20


def receive(words: argparse.Namespace) -> None:
    """Be the receiving end."""
    with _socket(mptcp=words.mptcp) as listener:
        listener.bind((words.address, 0))
        listener.listen(words.streams + 1)
        _tell(port=listener.getsockname()[1])
        with listener.accept()[0] as first:
            _answer(first)
        connections = [listener.accept()[0] for _ in range(words.streams)]
    reads = _Copying(_READ) if words.as_qemu and words.streams == 1 else _Reading(CHUNK)
    marks = _count(connections, reads, words.warm_up, words.duration)
    (began, before), (ended, after) = marks[0], marks[-1]
    _tell(received=after - before, seconds=ended - began, spread=_spread(marks))


def send(words: argparse.Namespace) -> None:
    """Be the sending end."""
    with _connect(words) as first:
        first.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _tell(latency=statistics.median(_ping(first) for _ in range(PINGS)))
    connections = [_connect(words) for _ in range(words.streams)]
    pieces = [bytes(CHUNK)]
    if words.as_qemu:
        pieces = _PLAIN if words.streams == 1 else _PACKET
    waits = _pour(connections, pieces, time.monotonic() + words.warm_up + words.duration + AFTER)
    late = waits[len(waits) // 2 :]  # until then the kernel may still have widened its buffers
    _tell(buffered=statistics.median(late) if late else 0)


class _Reading:
    """Reads and forgets."""

    def __init__(self, size: int) -> None:
        self._buffer = memoryview(bytearray(size))

    def __call__(self, connection: socket.socket) -> int:
        return connection.recv_into(self._buffer)


class _Copying:
    """Reads pieces and copies each to where it belongs, as QEMU's destination does."""

    def __init__(self, size: int) -> None:
        self._buffer = memoryview(bytearray(size))
        self._places = memoryview(bytearray(_PLACES))
        self._at = 0

    def __call__(self, connection: socket.socket) -> int:
        got = connection.recv_into(self._buffer)
        if self._at + got > _PLACES:
            self._at = 0
        self._places[self._at : self._at + got] = self._buffer[:got]
        self._at += got
        return got


def _count(
    connections: list[socket.socket], reads: _Reading | _Copying, warm_up: float, duration: float
) -> list[tuple[float, int]]:
    """Return when how many bytes had been received: after the warm-up, and `PARTS` times more."""
    waiting = selectors.DefaultSelector()
    for connection in connections:
        waiting.register(connection, selectors.EVENT_READ, connection)
    received, now = 0, time.monotonic()
    due = now + warm_up
    marks: list[tuple[float, int]] = []
    while len(marks) <= PARTS:
        ready = waiting.select(PATIENCE)
        if not ready:
            raise TimeoutError("nothing arrives")
        received += sum(reads(key.data) for key, _ in ready)
        now = time.monotonic()
        if now >= due:
            marks.append((now, received))
            due = max(now, marks[0][0] + duration * len(marks) / PARTS)
    return marks


def _spread(marks: list[tuple[float, int]]) -> float:
    """Return the relative standard error of the mean rate, from how the parts differ."""
    rates = [
        (after - before) / max(ended - began, 1e-9)
        for (began, before), (ended, after) in itertools.pairwise(marks)
    ]
    return statistics.stdev(rates) / math.sqrt(len(rates)) / max(statistics.mean(rates), 1e-9)


def _pour(connections: list[socket.socket], pieces: list[bytes], end: float) -> list[int]:
    """Send zeros until the receiver has hung up, or the time is over.

    Returns:
        Bytes that waited in the sockets, all together, whenever some could be written.
    """
    waiting = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        waiting.register(connection, selectors.EVENT_WRITE, connection)
    waits: list[int] = []
    while time.monotonic() < end:
        try:
            for key, _ in waiting.select(AFTER):
                key.data.sendmsg(pieces)
        except (BrokenPipeError, ConnectionResetError):
            break
        waits.append(sum(_waiting(each) for each in connections))
    return waits


def _waiting(connection: socket.socket) -> int:
    """Return the bytes that were written and not yet acknowledged (SIOCOUTQ, tcp(7))."""
    found = fcntl.ioctl(connection, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", found)[0])


def _ping(connection: socket.socket) -> float:
    begin = time.monotonic()
    connection.sendall(b"p")
    connection.recv(1)
    return time.monotonic() - begin


def _answer(connection: socket.socket) -> None:
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while ping := connection.recv(1):
        connection.sendall(ping)


def _connect(words: argparse.Namespace) -> socket.socket:
    connection = _socket(mptcp=words.mptcp)
    connection.connect((words.address, words.port))
    return connection


def _socket(*, mptcp: bool) -> socket.socket:
    protocol = _MPTCP if mptcp else socket.IPPROTO_TCP
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    made.settimeout(PATIENCE)
    return made


def _tell(**figures: float) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the words of the command line and be one end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("end", choices=("receive", "send"))
    parser.add_argument("address")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--warm-up", type=float, default=0.2)
    parser.add_argument("--duration", type=float, default=1.0)
    parser.add_argument("--mptcp", action="store_true")
    parser.add_argument("--as-qemu", action="store_true")
    words = parser.parse_args()
    # whatever happens to the other end or to who started us: no end lives on
    signal.setitimer(signal.ITIMER_REAL, words.warm_up + words.duration + 3 * PATIENCE)
    {"receive": receive, "send": send}[words.end](words)


if __name__ == "__main__":
    main()

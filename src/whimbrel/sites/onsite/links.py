"""What TCP gets between two hosts: one listens on its migration address, the other sends.

    destination   link_listen ──► port, key          destination   link_counted ──► goodput
    source        link_send with both ──► latency, what waited in its sockets
    destination   link_end, whatever happened

Goodput is what the receiving program read, so no buffer of the sender flatters it. Connections
that do not begin with the key are hung up on. Everything gives up by itself.

With as_qemu a single stream is written and read in the pieces that QEMU's plain stream is: 32
pages with a header each in one call (MAX_IOV_SIZE, qemu-file.c), and a buffer of 32 KiB whose
content is then copied to where it belongs (IO_BUF_SIZE). On a fast link these pieces, not the
link, decide. Several streams are written in packets of 128 pages, as multifd does.
"""

from __future__ import annotations

import fcntl
import hmac
import math
import secrets
import selectors
import socket
import statistics
import struct
import termios
import threading
import time
from contextlib import ExitStack, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PATIENCE = 10.0
"""Seconds for anything that is not the transfer: connecting, pinging, waiting for a byte."""
_AFTER = 5.0
"""Seconds that the sender pours longer than it is measured, for a receiver that comes late."""
_AT_ONCE = 1.0
"""Seconds that a caller has to give the key."""
_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger: forget what is unread
_CHUNK = 1 << 20
_PARTS = 5
"""Parts of a measurement that are compared to tell how certain it is."""
_PINGS = 64
_KEY = 16
_MPTCP = 262  # IPPROTO_MPTCP, linux/in.h
_HEADER, _PAGE = 8, 4096
_PACKET_HEADER, _PACKET_PAGES, _PLAIN_PAGES = 1344, 128, 32
_READ = 32 << 10
_COLD = 64 << 20
"""Bytes of memory that go round, more than a cache holds, as a guest's do."""


def link_route(address: str) -> str:
    """Return the address of this host from which another is reached; sends nothing."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as asked:
        asked.connect((address, 9))
        return str(asked.getsockname()[0])


def link_listen(
    address: str,
    streams: int = 1,
    seconds: float = 1.0,
    warm_up: float = 0.2,
    *,
    mptcp: bool = False,
    as_qemu: bool = False,
) -> dict[str, Any]:
    """Listen on one address of this host, for one measurement; return its port and key.

    Args:
        address: Where to listen; nowhere else.
        streams: Connections that will come.
        seconds: How long to count.
        warm_up: Seconds to let pass first.
        mptcp: Whether MPTCP connections may come.
        as_qemu: Read as QEMU does.
    """
    listening = _Listening(streams, as_qemu, warm_up, seconds)
    port = listening.begin(_socket(address, mptcp=mptcp), address)
    _LISTENING[listening.key.hex()] = listening
    return {"port": port, "key": listening.key}


def link_counted(key: bytes) -> dict[str, float]:
    """Return what came in: bytes received in seconds, and the relative spread of the rate."""
    return _LISTENING[key.hex()].counted()


def link_end(key: bytes) -> None:
    """Listen no more; harmless when that is done."""
    listening = _LISTENING.pop(key.hex(), None)
    if listening is not None:
        listening.end()


def link_send(
    address: str,
    port: int,
    key: bytes,
    *,
    streams: int = 1,
    seconds: float = 1.0,
    warm_up: float = 0.2,
    mptcp: bool = False,
    as_qemu: bool = False,
) -> dict[str, float]:
    """Ping a listener, then pour until it hangs up; the arguments are as it was given them.

    Returns:
        latency: Seconds from a byte to its answer over an idle connection, the median.
        buffered: Bytes written and not yet acknowledged, all streams together.
    """
    latency = _latency(address, port, key, mptcp=mptcp)
    pieces: Iterable[list[Any]] = [[bytes(_CHUNK)]]
    if as_qemu:
        pieces = _plain() if streams == 1 else _packets()
    with ExitStack() as ends:
        connections = [
            ends.enter_context(_called(address, port, key, mptcp=mptcp)) for _ in range(streams)
        ]
        waits = _pour(connections, pieces, time.monotonic() + warm_up + seconds + _AFTER)
    late = waits[len(waits) // 2 :]  # until then the kernel may still have widened its buffers
    return {"latency": latency, "buffered": float(statistics.median(late) if late else 0)}


class _Listening:
    """One measurement at its receiving end, in a thread of its own."""

    def __init__(self, streams: int, as_qemu: bool, warm_up: float, seconds: float) -> None:  # noqa: FBT001
        self.key = secrets.token_bytes(_KEY)
        self._streams, self._warm_up, self._seconds = streams, warm_up, seconds
        self._reads: Callable[[socket.socket], int] = _reading()
        if as_qemu:
            self._reads = _Copying() if streams == 1 else _Scattering()
        self._open = ExitStack()
        self._figures: dict[str, float] = {}
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self, listener: socket.socket, address: str) -> int:
        """Listen and start to wait; return the port."""
        self._listener = self._open.enter_context(listener)
        try:
            listener.bind((address, 0))
            listener.listen(self._streams + 1)
        except OSError:
            self._open.close()
            raise
        self._thread.start()
        return int(listener.getsockname()[1])

    def counted(self) -> dict[str, float]:
        """Wait for the figures."""
        self._thread.join(self._warm_up + self._seconds + 3 * PATIENCE)
        if self._failure is not None:
            raise self._failure
        if not self._figures:
            raise TimeoutError("nobody has called")
        return self._figures

    def end(self) -> None:
        """Hang up: whoever waits for the listener or a connection is woken."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._open.close()

    def _run(self) -> None:
        try:
            with self._open:
                with self._accepted() as first:
                    _answer(first)
                connections = [
                    self._open.enter_context(self._accepted()) for _ in range(self._streams)
                ]
                self._listener.close()
                marks = _count(connections, self._reads, self._warm_up, self._seconds)
        except (OSError, ValueError) as error:  # ValueError: it was closed meanwhile
            self._failure = error
            return
        (began, before), (ended, after) = marks[0], marks[-1]
        self._figures = {
            "received": float(after - before),
            "seconds": ended - began,
            "spread": _spread(marks),
        }

    def _accepted(self) -> socket.socket:
        """Return the next connection that begins with the key."""
        while True:
            connection = self._listener.accept()[0]
            connection.settimeout(_AT_ONCE)
            try:
                if hmac.compare_digest(_received(connection, _KEY), self.key):
                    connection.settimeout(PATIENCE)
                    # closing it then tells the sender at once, over MPTCP too
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_CLOSE)
                    return connection
            except OSError:
                pass
            connection.close()


_LISTENING: dict[str, _Listening] = {}


def _reading() -> Callable[[socket.socket], int]:
    """Return what reads and forgets."""
    buffer = memoryview(bytearray(_CHUNK))
    return lambda connection: connection.recv_into(buffer)


class _Copying:
    """Reads pieces and copies each to where it belongs, as QEMU's destination does."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_READ))
        self._places = _memory()
        self._at = 0

    def __call__(self, connection: socket.socket) -> int:
        got = connection.recv_into(self._buffer)
        if self._at + got > _COLD:
            self._at = 0
        self._places[self._at : self._at + got] = self._buffer[:got]
        self._at += got
        return got


class _Scattering:
    """Reads straight to where pages belong, as QEMU's channels do."""

    def __init__(self) -> None:
        self._places = _memory()
        self._at = 0

    def __call__(self, connection: socket.socket) -> int:
        got = connection.recv_into(self._places[self._at : self._at + _CHUNK])
        self._at = (self._at + got) % _COLD
        return got


def _memory() -> memoryview:
    """Return memory that has been written to: what is only zeros is not there at all."""
    return memoryview(bytearray(b"\1") * _COLD)


def _plain() -> list[list[Any]]:
    """Return the writes of QEMU's plain stream: pages, each led by a header."""
    header = bytes(_HEADER)
    return [[piece for page in pages for piece in (header, page)] for pages in _pages(_PLAIN_PAGES)]


def _packets() -> list[list[Any]]:
    """Return the writes of QEMU's channels."""
    header = bytes(_PACKET_HEADER)
    return [[header, *pages] for pages in _pages(_PACKET_PAGES)]


def _pages(count: int) -> list[list[memoryview]]:
    memory, size = _memory(), count * _PAGE
    return [
        [memory[at : at + _PAGE] for at in range(first, first + size, _PAGE)]
        for first in range(0, _COLD, size)
    ]


def _count(
    connections: Sequence[socket.socket],
    reads: Callable[[socket.socket], int],
    warm_up: float,
    seconds: float,
) -> list[tuple[float, int]]:
    """Return when how many bytes had been received: after the warm-up, and `_PARTS` times more."""
    received, now = 0, time.monotonic()
    due = now + warm_up
    marks: list[tuple[float, int]] = []
    with selectors.DefaultSelector() as waiting:
        for connection in connections:
            waiting.register(connection, selectors.EVENT_READ, connection)
        while len(marks) <= _PARTS:
            ready = waiting.select(PATIENCE)
            got = sum(reads(key.data) for key, _ in ready)
            if not got:
                raise TimeoutError("nothing arrives")
            received += got
            now = time.monotonic()
            if now >= due:
                marks.append((now, received))
                due = max(now, marks[0][0] + seconds * len(marks) / _PARTS)
    return marks


def _spread(marks: Sequence[tuple[float, int]]) -> float:
    """Return the relative standard error of the mean rate, from how the parts differ."""
    rates = [
        (after - before) / max(ended - began, 1e-9)
        for (began, before), (ended, after) in zip(marks, marks[1:])  # noqa: B905, RUF007 - 3.9
    ]
    return statistics.stdev(rates) / math.sqrt(len(rates)) / max(statistics.mean(rates), 1e-9)


def _pour(
    connections: Sequence[socket.socket], pieces: Iterable[list[Any]], end: float
) -> list[int]:
    """Send the pieces round and round until the receiver has hung up, or the time is over.

    Returns:
        Bytes that waited in the sockets, all together, whenever some could be written.
    """
    waits: list[int] = []
    turns = cycle(pieces)
    with selectors.DefaultSelector() as waiting:
        for connection in connections:
            connection.setblocking(False)
            waiting.register(connection, selectors.EVENT_WRITE, connection)
        while time.monotonic() < end:
            try:
                for key, _ in waiting.select(_AFTER):
                    key.data.sendmsg(next(turns))
            except (BrokenPipeError, ConnectionResetError):
                break
            waits.append(sum(_waiting(each) for each in connections))
    return waits


def _waiting(connection: socket.socket) -> int:
    """Return the bytes that were written and not yet acknowledged (SIOCOUTQ, tcp(7))."""
    found = fcntl.ioctl(connection, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", found)[0])


def _latency(address: str, port: int, key: bytes, *, mptcp: bool) -> float:
    with _called(address, port, key, mptcp=mptcp) as first:
        first.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return statistics.median(_ping(first) for _ in range(_PINGS))


def _ping(connection: socket.socket) -> float:
    begin = time.monotonic()
    connection.sendall(b"p")
    if not connection.recv(1):
        raise ConnectionResetError("the other host hung up")
    return time.monotonic() - begin


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        ping = connection.recv(1)
        if not ping:
            return
        connection.sendall(ping)


def _received(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            break
        found += part
    return found


def _called(address: str, port: int, key: bytes, *, mptcp: bool) -> socket.socket:
    connection = _socket(address, mptcp=mptcp)
    try:
        connection.connect((address, port))
        connection.sendall(key)
    except OSError:
        connection.close()
        raise
    return connection


def _socket(address: str, *, mptcp: bool) -> socket.socket:
    protocol = _MPTCP if mptcp else socket.IPPROTO_TCP
    made = socket.socket(_family(address), socket.SOCK_STREAM, protocol)
    made.settimeout(PATIENCE)
    return made


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


QUESTIONS = {
    "link_route": link_route,
    "link_listen": link_listen,
    "link_counted": link_counted,
    "link_end": link_end,
    "link_send": link_send,
}

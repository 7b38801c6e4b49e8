"""The two ends of a goodput measurement: a program of its own, standard library only.

    streams.py receive ADDRESS [--streams N] [--warm-up S] [--duration S] [--mptcp]
    streams.py send ADDRESS PORT [the same]

The receiver listens on ADDRESS only and prints its port as one line of JSON, answers the pings of
the first connection, counts what arrives on the others and prints the figures as one more line.
Goodput is what the receiving program got, so no buffer of the sender flatters it. The sender
prints the latency it saw, then pours zeros. Each end gives up by itself when its peer is gone.
"""

import argparse
import json
import selectors
import signal
import socket
import statistics
import sys
import time

PROGRAM = __file__
"""Where this program lies."""
CHUNK = 1 << 20
"""Bytes read or written at once."""
PINGS = 64
PATIENCE = 10.0
"""Seconds for anything that is not the transfer: connecting, pinging, waiting for a byte."""
AFTER = 1.0
"""Seconds that the sender pours longer than it is measured."""
_MPTCP = 262  # IPPROTO_MPTCP, linux/in.h


def receive(words: argparse.Namespace) -> None:
    """Be the receiving end."""
    with _socket(mptcp=words.mptcp) as listener:
        listener.bind((words.address, 0))
        listener.listen(words.streams + 1)
        _tell(port=listener.getsockname()[1])
        with listener.accept()[0] as first:
            _answer(first)
        connections = [listener.accept()[0] for _ in range(words.streams)]
    received, seconds = _count(connections, words.warm_up, words.duration)
    _tell(received=received, seconds=seconds)


def send(words: argparse.Namespace) -> None:
    """Be the sending end."""
    with _connect(words) as first:
        first.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _tell(latency=statistics.median(_ping(first) for _ in range(PINGS)))
    connections = [_connect(words) for _ in range(words.streams)]
    _pour(connections, time.monotonic() + words.warm_up + words.duration + AFTER)


def _count(connections: list[socket.socket], warm_up: float, duration: float) -> tuple[int, float]:
    """Return the bytes received after the warm-up, and the seconds they took."""
    buffer = bytearray(CHUNK)
    waiting = selectors.DefaultSelector()
    for connection in connections:
        waiting.register(connection, selectors.EVENT_READ, connection)
    received, first, now = 0, 0, time.monotonic()
    begin, start = now + warm_up, now
    while now < begin + duration:
        ready = waiting.select(PATIENCE)
        if not ready:
            raise TimeoutError("nothing arrives")
        received += sum(key.data.recv_into(buffer) for key, _ in ready)
        now = time.monotonic()
        if start < begin <= now:
            start, first = now, received
    return received - first, now - start


def _pour(connections: list[socket.socket], end: float) -> None:
    """Send zeros until the receiver has hung up, or the time is over."""
    content = bytes(CHUNK)
    waiting = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        waiting.register(connection, selectors.EVENT_WRITE, connection)
    while time.monotonic() < end:
        try:
            for key, _ in waiting.select(AFTER):
                key.data.send(content)
        except (BrokenPipeError, ConnectionResetError):
            return


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
    words = parser.parse_args()
    # whatever happens to the other end or to who started us: no end lives on
    signal.setitimer(signal.ITIMER_REAL, words.warm_up + words.duration + 3 * PATIENCE)
    {"receive": receive, "send": send}[words.end](words)


if __name__ == "__main__":
    main()

"""A TCP flow beside moves, and what others send, counted all the time: for promises about shares.

    async with flow(a, b) as beside:        pours from a to b until the block is left
        ...
        beside.least(begin, end)            bytes per second in its worst second

Times are the wall clock's (`time.time()`), as journals have them.
"""

import asyncio
import signal
import socket
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from whimbrel.hypervisors.qemu.process import kill
from whimbrel.lab.counters import interface_bytes
from whimbrel.lab.hosts import LabHost

EVERY = 0.1
"""Seconds from one reading to the next."""

SECOND = 1.0
"""Seconds over which a share is judged."""

LIVES = 240
"""Seconds after which an end gives up, whatever became of who started it."""


@dataclass
class Counted:
    """A counter that is read again and again.

    Attributes:
        readings: When, and the bytes until then; the oldest first.
    """

    readings: list[tuple[float, int]] = field(default_factory=list)

    def at(self, moment: float) -> float:
        """Return the bytes until a moment, between two readings in proportion."""
        index = bisect_left(self.readings, (moment, 0))
        if index in {0, len(self.readings)}:
            return float(self.readings[min(index, len(self.readings) - 1)][1])
        (sooner, few), (later, many) = self.readings[index - 1 : index + 1]
        return few + (many - few) * (moment - sooner) / (later - sooner)

    def mean(self, begin: float, end: float) -> float:
        """Return the bytes per second between two moments."""
        return (self.at(end) - self.at(begin)) / (end - begin)

    def seconds(self, begin: float, end: float) -> Iterator[float]:
        """Yield the bytes per second in each whole second between, one every tenth of a second."""
        steps = int((end - begin - SECOND) / EVERY + 1e-6)
        for step in range(max(0, steps) + 1):
            first = begin + step * EVERY
            yield self.mean(first, min(first + SECOND, max(end, begin + EVERY)))

    def least(self, begin: float, end: float) -> float:
        """Return the bytes per second in the worst second, wherever that began."""
        return min(self.seconds(begin, end))

    def most(self, begin: float, end: float) -> float:
        """Return the bytes per second in the best second."""
        return max(self.seconds(begin, end))

    async def until(self, moment: float) -> None:
        """Wait until it was read after a moment."""
        async with asyncio.timeout(10.0):
            while not self.readings or self.readings[-1][0] <= moment:  # noqa: ASYNC110 - it is read
                await asyncio.sleep(EVERY / 2)


@asynccontextmanager
async def flow(sender: LabHost, receiver: LabHost, link: int = 0) -> AsyncIterator[Counted]:
    """Pour over one TCP connection while the block runs; what the receiver read is counted."""
    async with _end(receiver, "receive", receiver.addresses[link]) as there:
        assert there.stdout is not None
        port = (await there.stdout.readline()).decode().strip()
        assert port, "the receiving end did not begin"
        found = Counted()
        reading = asyncio.create_task(_read(there.stdout, found))
        async with _end(sender, "send", receiver.addresses[link], port):
            try:
                await found.until(time.time())
                yield found
            finally:
                reading.cancel()


@asynccontextmanager
async def received(host: LabHost, link: int = 0) -> AsyncIterator[Counted]:
    """Count all that comes in by one of a host's interfaces while the block runs."""
    found = Counted()

    async def count() -> None:
        while True:
            seen = interface_bytes(host)[host.interfaces[link]][0]
            found.readings.append((time.time(), seen))
            await asyncio.sleep(EVERY)

    counting = asyncio.create_task(count())
    try:
        yield found
    finally:
        counting.cancel()


async def _read(stream: asyncio.StreamReader, found: Counted) -> None:
    while line := await stream.readline():
        at, total = line.split()
        found.readings.append((float(at), int(total)))


@asynccontextmanager
async def _end(host: LabHost, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *host.enter([sys.executable, "-I", __file__, *words]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        kill(process)
        await process.wait()


def _receive(address: str) -> None:
    buffer, total = memoryview(bytearray(1 << 20)), 0
    with socket.create_server((address, 0)) as listening:
        _say(f"{listening.getsockname()[1]}")
        connection = listening.accept()[0]
    connection.settimeout(EVERY / 2)
    due = time.time()
    while True:
        with suppress(TimeoutError):
            got = connection.recv_into(buffer)
            if not got:
                return
            total += got
        if time.time() >= due:
            _say(f"{time.time():.6f} {total}")
            due = time.time() + EVERY


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _send(address: str, port: str) -> None:
    with socket.create_connection((address, int(port)), timeout=10) as connection:
        connection.settimeout(None)
        content = bytes(1 << 18)
        while True:
            connection.sendall(content)


if __name__ == "__main__":
    signal.alarm(LIVES)
    if sys.argv[1] == "receive":
        _receive(sys.argv[2])
    else:
        _send(sys.argv[2], sys.argv[3])

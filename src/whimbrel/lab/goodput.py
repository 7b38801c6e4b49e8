"""What a plain TCP transfer gets over the lab's link right now, and how long an answer takes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from whimbrel.errors import LabError
from whimbrel.hypervisors.qemu.process import kill
from whimbrel.lab.hosts import LabHost
from whimbrel.lab.streams import PROGRAM
from whimbrel.sites.onsite.links import PATIENCE

WARM_UP = 0.2
"""Seconds thrown away first: slow start takes some milliseconds here, a token bucket holds five
milliseconds of the link, and what the sender's buffer takes (4 MiB) the receiver never counts."""


@dataclass(frozen=True)
class Goodput:
    """One measurement.

    Attributes:
        rate: Bytes per second that the receiving program read, all streams together.
        latency: Seconds from a byte sent to its answer, the median over an idle connection.
        seconds: How long was counted, after the warm-up.
        streams: How many connections shared the link.
        mptcp: Whether they were MPTCP connections.
        spread: Relative standard error of the rate, from how its parts differed.
        buffered: Bytes that were written and not yet received, all streams together.
    """

    rate: float
    latency: float
    seconds: float
    streams: int
    mptcp: bool
    spread: float = 0.0
    buffered: int = 0


async def measure_goodput(
    sender: LabHost,
    receiver: LabHost,
    *,
    duration: float = 1.0,
    streams: int = 1,
    mptcp: bool = False,
    link: int = 0,
    as_qemu: bool = False,
) -> Goodput:
    """Measure what TCP gets from one host to the other, with the load that there is now.

    Args:
        sender: Where the bytes come from.
        receiver: Where they are counted; it listens on the link's address only.
        duration: Seconds to count, after the warm-up.
        streams: How many connections at once.
        mptcp: Whether to use MPTCP, which uses all links when `link` is 0.
        link: The link whose address is called.
        as_qemu: Write and read in the pieces that QEMU does (`streams`), for a forecast.

    Raises:
        LabError: An end failed or took much too long. Neither end is left running.
    """
    words = [f"--streams={streams}", f"--warm-up={WARM_UP}", f"--duration={duration}"]
    words += ["--mptcp"] if mptcp else []
    words += ["--as-qemu"] if as_qemu else []
    address = receiver.addresses[link]
    patience = WARM_UP + duration + PATIENCE
    async with AsyncExitStack() as ends, _explained(patience):
        receiving = await ends.enter_async_context(_end(receiver, "receive", address, *words))
        there = await _figures(receiving)
        called = [address, str(there["port"]), str(there["key"])]
        sending = await ends.enter_async_context(_end(sender, "send", *called, *words))
        poured = await _figures(sending)
        counted = await _figures(receiving)
    return Goodput(
        rate=counted["received"] / counted["seconds"],
        latency=poured["latency"],
        seconds=counted["seconds"],
        streams=streams,
        mptcp=mptcp,
        spread=counted["spread"],
        buffered=round(poured["buffered"]),
    )


_Process = asyncio.subprocess.Process


@asynccontextmanager
async def _end(host: LabHost, *words: str) -> AsyncIterator[_Process]:
    """Run one end of the measurement on a host; it has ended when this is left."""
    process = await asyncio.create_subprocess_exec(
        *host.enter([sys.executable, "-I", PROGRAM, *words]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        kill(process)
        await process.communicate()


async def _figures(process: _Process) -> dict[str, Any]:
    """Return the next line of figures that an end prints."""
    line = await process.stdout.readline() if process.stdout else b""
    if not line:
        _, complaint = await process.communicate()
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise LabError(f"The goodput cannot be measured: {last or 'an end was killed'}.")
    figures: dict[str, Any] = json.loads(line)
    return figures


@asynccontextmanager
async def _explained(patience: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(patience):
            yield
    except TimeoutError as error:
        raise LabError(
            f"The goodput cannot be measured: no result after {patience:.0f} s.",
            "See whether the link is up and whether the machine is overloaded.",
        ) from error

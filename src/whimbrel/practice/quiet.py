"""`--when quiet`: looks at a guest's dirty rate now and then until theory calls it quiet."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from whimbrel.model.units import PAGE
from whimbrel.ports import Inspection
from whimbrel.theory.quiet import AGREEING, RateLook, Readiness, readiness

EVERY = 30.0
"""Seconds from one look to the next."""

SOON = 2.0
"""Seconds from the first looks to the next, so that an idle guest is not waited for long."""

WINDOW = 1.0
"""Seconds that a look counts written pages."""

KEPT = 240
"""Looks that are remembered: two hours."""


async def dirty_rate(inspection: Inspection) -> float:
    """Return the bytes of pages that a guest writes per second, from one short look.

    Raises:
        HostError: The hypervisor fails.
        Unsupported: It cannot count.
    """
    written = await inspection.written(WINDOW)
    return written.pages * PAGE / written.window


async def until_quiet(
    look: Callable[[], Awaitable[float]],
    *,
    negligible: float = 0.0,
    longest: float | None = None,
    every: float = EVERY,
    told: Callable[[Readiness], None] = lambda _: None,
) -> Readiness:
    """Wait until a guest is quiet, and return why it is called so.

    Args:
        look: Measures the dirty rate now, bytes per second.
        negligible: Bytes per second below which any guest is quiet.
        longest: Seconds after which it is waited no longer; None for as long as it takes.
        every: Seconds from one look to the next.
        told: Hears what each look led to.

    Raises:
        HostError: The guest's host failed; the guest was only looked at.
        Unsupported: Its rate cannot be measured.
    """
    clock = asyncio.get_running_loop().time
    deadline = None if longest is None else clock() + longest
    looks: list[RateLook] = []
    while True:
        if deadline is None or clock() < deadline:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    looks.append(RateLook(clock(), await look()))
        found = readiness(looks[-KEPT:], clock(), negligible=negligible, deadline=deadline)
        told(found)
        if found.begin:
            return found
        pause = every if len(looks) >= AGREEING else min(every, SOON)
        pause = pause if deadline is None else min(pause, deadline - clock())
        await asyncio.sleep(max(0.0, pause))

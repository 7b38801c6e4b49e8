"""`--at`: waits for a moment on the clock on the wall, whatever is done to that clock meanwhile."""

import asyncio
import time
from collections.abc import Callable

STEP = 20.0
"""Seconds after which the clock is looked at again: it may be set, and the machine may sleep."""


async def until_moment(
    moment: float,
    *,
    now: Callable[[], float] = time.time,
    told: Callable[[float], None] = lambda _: None,
) -> float:
    """Wait until a moment, seconds since 1970-01-01 UTC, and return how late it became.

    Args:
        moment: When to go on; one that has passed is not waited for.
        now: The clock.
        told: Hears the seconds that are left, at the beginning of each step.
    """
    while (left := moment - now()) > 0:
        told(left)
        await asyncio.sleep(min(left, STEP))
    return -left

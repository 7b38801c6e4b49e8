"""Work that steps back when a guest wants the core."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NICE = 10
"""Below everybody who was not asked to step back: about a tenth of a busy core (nice(7))."""

_Result = TypeVar("_Result")


async def gently(work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns when a thread of low priority has done it."""
    loop = asyncio.get_running_loop()
    # A thread of its own: what has been made nice cannot be made otherwise again.
    with ThreadPoolExecutor(1, initializer=_step_back) as thread:
        return await loop.run_in_executor(thread, work)


def _step_back() -> None:
    # On Linux a priority belongs to a thread (setpriority(2), "C library/kernel differences").
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)

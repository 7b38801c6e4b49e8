"""Work that steps back when a guest wants the core."""

import asyncio
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

NICE = 10
"""Below everybody who was not asked to step back: about a tenth of a busy core (nice(7))."""

_PIECE = bytes(range(256)) * 1024
"""What keeps a core busy for some milliseconds, outside of Python's lock."""

_Result = TypeVar("_Result")


async def gently(work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns when a thread of low priority has done it."""
    loop = asyncio.get_running_loop()
    # A thread of its own: what has been made nice cannot be made otherwise again.
    with ThreadPoolExecutor(1, initializer=_step_back) as thread:
        return await loop.run_in_executor(thread, work)


@contextmanager
def a_busy_neighbour() -> Iterator[None]:
    """Keep one more core busy meanwhile, gently, as a move does.

    Two threads of one core share its units, and all cores share memory: what is timed alone is
    quicker than what will run beside the other channels.
    """
    over = threading.Event()

    def work() -> None:
        _step_back()
        while not over.is_set():
            zlib.compress(_PIECE, 1)

    neighbour = threading.Thread(target=work, daemon=True)
    neighbour.start()
    try:
        yield
    finally:
        over.set()
        neighbour.join()


def _step_back() -> None:
    # On Linux a priority belongs to a thread (setpriority(2), "C library/kernel differences").
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)

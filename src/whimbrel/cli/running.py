"""Asynchronous work under a command: whatever interrupts it, what was begun is closed first."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def run(job: Coroutine[None, None, T]) -> T:
    """Carry out a command's work; Ctrl-C, SIGTERM and a lost terminal end it alike.

    Raises:
        KeyboardInterrupt: It was interrupted; its `finally` and `with` blocks are through.
    """
    return asyncio.run(interruptible(job))


async def interruptible(job: Coroutine[None, None, T]) -> T:
    """Let SIGTERM and a lost terminal end a job as Ctrl-C does, with `KeyboardInterrupt`."""
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup the terminal's end is ignored, and stays so.
        if task is not None and signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await job
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

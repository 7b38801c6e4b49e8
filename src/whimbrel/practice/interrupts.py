"""Work that is seen through although its caller is cancelled (Ctrl-C)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(
    work: Coroutine[Any, Any, T], interrupted: Callable[[int], None] = lambda _: None
) -> T:
    """Return what `work` returns; a cancellation goes on only when it has ended.

    Args:
        work: What may not be broken off.
        interrupted: Called at each cancellation with its number, from 1.
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    count = 0
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
            count += 1
            interrupted(count)
    if cancellation is not None:
        task.exception()  # nobody else will ask
        raise cancellation
    return task.result()

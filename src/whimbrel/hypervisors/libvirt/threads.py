"""Calls that block, each in a thread of its own.

None is waited for when the process ends: libvirt may hold one for good, as when its QEMU answers
no more, and libvirt knows no way to give such a call up.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Makes calls in threads.

    Args:
        name: What its threads are called.
    """

    def __init__(self, name: str) -> None:
        self._name, self._closed = name, False

    def close(self) -> None:
        """Make no further call; those under way go on."""
        self._closed = True

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what the call returns, or raise what it raises.

        Raises:
            RuntimeError: This was closed.
        """
        if self._closed:
            raise RuntimeError("No further call can be made.")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(work: Callable[[Any], None], told: Any) -> None:
            if not done.done():  # whoever waited may have been cancelled
                work(told)

        def carry_out() -> None:
            try:
                told: Any = work(*arguments)
                end: Callable[[Any], None] = done.set_result
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                told, end = error, done.set_exception
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(settle, end, told)

        threading.Thread(target=carry_out, name=self._name, daemon=True).start()
        return await done

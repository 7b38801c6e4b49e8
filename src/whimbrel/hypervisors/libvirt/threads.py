"""Calls that block, each in a thread of its own.

None is waited for when the process ends: libvirt may hold one for good, as when its QEMU answers
no more, and libvirt knows no way to give such a call up. Nor does the end itself call libvirt.
"""

import asyncio
import gc
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


def leave_open(module: str) -> None:
    """Leave to the end of this process what is still open of libvirt-python's, called `module`.

    A connection is closed with the last VM of it, and whoever closes waits for an answer. When
    Python clears up nobody keeps the connection alive any more, and such an answer was waited for
    without end (libvirt 11.3 over libssh2, seen in a debugger). A host sees by itself that we are
    gone.
    """
    for each in gc.get_objects():
        of = getattr(type(each), "__module__", None)
        if of == module and getattr(each, "_o", None) is not None:
            each._o = None  # noqa: SLF001 - what its __del__ would let go of

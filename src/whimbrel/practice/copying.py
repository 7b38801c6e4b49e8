"""The copies of some disks on their way, followed until they are in step, and beyond.

A few times a second all copies are looked at: one that failed or stands still ends them all;
one that the guest outruns has the guest's writes wait (theory/mirroring.py decides); those in
step leave their share of a bandwidth limit to the others.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.storage import Copying, StorageProgress
from whimbrel.model.units import MIB, format_time
from whimbrel.ports import Mirror
from whimbrel.theory.mirroring import Seen, must_block_writes, shares

LOOK_EVERY = 0.2
"""Seconds between two looks."""

ASK_SIZES_EVERY = 1.0
"""Seconds between two questions what the images take."""

KEPT = 64
"""Looks that are kept: a dozen seconds."""

PATIENCE = 30.0
"""Seconds that a copy may stand still with bytes left, unless told."""

BURST = 16 * MIB
"""Bytes that QEMU may copy before it looks at a limit, and then waits for: 16 requests of 1 MiB
(block/mirror.c, MAX_IN_FLIGHT and MAX_IO_BYTES)."""

Clock = Callable[[], float]
Sizes = Callable[[], Awaitable[int | None]]
"""Returns the bytes that all copies take at their place; None where that cannot be told."""


class Onlooker(Protocol):
    """Somebody who looks on; nothing here may take long."""

    def copying(self, progress: StorageProgress) -> None:
        """The copies are so far."""

    def writes_wait(self, disk: str, reason: str) -> None:
        """The guest's writes to a disk wait for their copies from now on, and why."""


class Copies:
    """Copies that belong together.

    Attributes:
        in_step: Seconds until each disk's copy was in step for the first time, by its name.
        done: What each copy said then that it had done, in bytes; holes may be counted.
        waited: The disks for which the guest's writes had to wait.

    Args:
        mirrors: Each disk's copy.
        total: Bytes that are to arrive, as far as known.
        sizes: What has arrived.
        onlooker: Who looks on.
        rate: Bytes per second for all together; None: no limit.
        patience: Seconds that one may stand still with bytes left.
        clock: Seconds, from any moment on.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        total: int,
        sizes: Sizes,
        onlooker: Onlooker,
        *,
        rate: float | None = None,
        patience: float = PATIENCE,
        clock: Clock = time.monotonic,
    ) -> None:
        self.mirrors = tuple(mirrors)
        self._total = total
        self._sizes = sizes
        self._onlooker = onlooker
        self._rate = rate
        self._patience = patience + _owed(rate, len(self.mirrors))
        self._clock = clock
        self._began = clock()
        self.in_step: dict[str, float] = {}
        self.done: dict[str, int] = {}
        self.waited: set[str] = set()
        self._seen: dict[str, deque[Seen]] = {m.disk: deque(maxlen=KEPT) for m in mirrors}
        self._moved: dict[str, tuple[float, int]] = {}
        self._ready: tuple[bool, ...] = (False,) * len(self.mirrors)
        self._arrived: deque[tuple[float, int]] = deque(maxlen=8)
        self._first: int | None = None

    async def until_ready(self) -> None:
        """Return when all are in step.

        Raises:
            HostError: One failed, or stands still; the guest goes on with its disks.
        """
        async for ready in self._looks():
            if ready:
                return

    async def keep(self) -> None:
        """Look on until cancelled; raises as `until_ready`."""
        async for _ in self._looks():
            pass

    async def finish(self) -> None:
        """Make all whole and let go of them; raises `HostError` when one is not whole."""
        await _all([mirror.finish() for mirror in self.mirrors])

    async def abandon(self) -> None:
        """Give all up; raises the first `HostError` after all were tried."""
        await _all([mirror.abandon() for mirror in self.mirrors])

    async def _looks(self) -> AsyncIterator[bool]:
        while True:
            yield await self._look()
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> bool:
        """Look at all copies once, and do what is due; tell whether all are in step."""
        found = await asyncio.gather(*(mirror.progress() for mirror in self.mirrors))
        now = self._clock() - self._began
        for mirror, copying in zip(self.mirrors, found, strict=True):
            self._check(mirror.disk, copying, now)
            if copying.ready and mirror.disk not in self.in_step:
                self.in_step[mirror.disk], self.done[mirror.disk] = now, copying.done
            self._seen[mirror.disk].append(Seen(now, copying))
            await self._hold_back(mirror)
        await self._share([copying.ready for copying in found])
        self._onlooker.copying(await self._progress(found, now))
        return all(copying.ready for copying in found)

    def _check(self, disk: str, copying: Copying, now: float) -> None:
        if copying.failure:
            raise HostError(
                f"The copy of disk {disk} failed: {copying.failure}. The guest goes on with "
                "its old disk."
            )
        since, done = self._moved.get(disk, (now, -1))
        if copying.done != done or copying.left == 0:
            self._moved[disk] = (now, copying.done)
        elif now - since > self._patience:
            raise HostError(
                f"The copy of disk {disk} has stood still for {format_time(now - since)}. The "
                "guest goes on with its old disk.",
                "See whether the link is broken, or the disk there hangs.",
            )

    async def _hold_back(self, mirror: Mirror) -> None:
        reason = must_block_writes(self._seen[mirror.disk])
        if reason:
            with suppress(CommandRefused):  # it is just ending, or an old QEMU cannot
                await mirror.block_writes()
                self.waited.add(mirror.disk)
                self._onlooker.writes_wait(mirror.disk, reason)
            self._seen[mirror.disk].clear()

    async def _share(self, ready: Sequence[bool]) -> None:
        if tuple(ready) == self._ready:
            return
        self._ready = tuple(ready)
        for mirror, share in zip(self.mirrors, shares(self._rate, ready), strict=True):
            with suppress(CommandRefused):  # it is just ending
                await mirror.limit(share)

    async def _progress(self, found: Sequence[Copying], now: float) -> StorageProgress:
        await self._ask_sizes(found, now)
        at, copied = self._arrived[-1]
        before, less = self._arrived[0]
        rate = (copied - less) / (at - before) if at > before else 0.0
        ready = all(copying.ready for copying in found)
        left = 0 if ready else max(0, self._total - copied)
        return StorageProgress(
            at=now,
            copied=self._total if ready else min(copied, self._total),
            total=self._total,
            rate=max(0.0, rate),
            eta=0.0 if ready else left / rate if rate > 0 else None,
            disks=tuple((m.disk, c) for m, c in zip(self.mirrors, found, strict=True)),
        )

    async def _ask_sizes(self, found: Sequence[Copying], now: float) -> None:
        if self._arrived and now - self._arrived[-1][0] < ASK_SIZES_EVERY:
            return
        size = None
        with suppress(HostError):  # only people look at it; what matters is seen elsewhere
            size = await self._sizes()
        if size is None:
            # What the copies say counts holes as well.
            done, left = (sum(getattr(c, what) for c in found) for what in ("done", "left"))
            size = round(self._total * done / max(1, done + left))
        elif self._first is None:
            self._first = size
        self._arrived.append((now, max(0, size - (self._first or 0))))


def _owed(rate: float | None, copies: int) -> float:
    """Return the seconds that copies under a limit may stand still after their bursts."""
    return 0.0 if rate is None else copies * BURST / rate


async def _all(ends: Sequence[Awaitable[None]]) -> None:
    """Await all, and raise the first error only when none is on its way any more."""
    for found in await asyncio.gather(*ends, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found

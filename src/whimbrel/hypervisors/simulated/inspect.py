"""The memory of a simulated guest, behind the port `Inspection`: what its profile says.

Pages never provided come first, then zero pages, then the classes that are written, then
pages that stay what they are. A class's pages are written independently, or cyclically one
after the other, as the profile has it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from whimbrel.model.memory import MemoryProfile, PageClass
from whimbrel.model.units import PAGE
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED, Look, Written

Clock = Callable[[], float]

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_PLAIN = b"abcd" * (PAGE // 4)


class SimulatedInspection:
    """The port's `Inspection`, over a profile.

    Args:
        profile: What the guest's memory holds.
        reach: Raises where the host does not answer.
        speed: Simulated seconds in a real one.
        clock: Real seconds.
    """

    def __init__(
        self,
        profile: MemoryProfile,
        reach: Callable[[], None] = lambda: None,
        speed: float = 1.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._profile, self._reach = profile, reach
        self._speed, self._clock = speed, clock
        self._generator = np.random.default_rng(profile.pages)
        self._rate = np.zeros(profile.pages)
        self._cyclic = np.zeros(profile.pages, dtype=np.bool_)
        self._phase = np.zeros(profile.pages)
        self._writes = np.zeros(profile.pages, dtype=np.uint64)
        self._seen = np.full(profile.pages, clock() * speed)
        self._untouched = round(profile.untouched_share * profile.pages)
        self._zero = max(self._untouched, round(profile.zero_share * profile.pages))
        self._spread(profile.dirty.classes)

    @property
    def pages(self) -> int:
        """See `ports.Inspection.pages`."""
        return self._profile.pages

    async def provided(self) -> bytes:
        """See `ports.Inspection.provided`."""
        self._reach()
        return bytes([NEVER_PROVIDED]) * self._untouched + bytes([IN_MEMORY]) * (
            self.pages - self._untouched
        )

    async def look(self, pages: Sequence[int]) -> Look:
        """See `ports.Inspection.look`."""
        self._reach()
        which = np.asarray(pages, dtype=np.int64)
        now = self._clock() * self._speed
        self._advance(which, now)
        marks = (which.astype(np.uint64) + np.uint64(1)) * _PRIME + self._writes[which]
        marks[(which < self._zero) & (self._writes[which] == 0)] = 0
        return Look(now, self._clock() * self._speed, marks.tobytes())

    async def read(self, pages: Sequence[int]) -> bytes:
        """See `ports.Inspection.read`; half of a page's bytes cannot be compressed."""
        self._reach()
        which = np.asarray(pages, dtype=np.int64)
        self._advance(which, self._clock() * self._speed)
        return b"".join(self._content(int(page)) for page in which)

    async def written(self, window: float) -> Written:
        """See `ports.Inspection.written`."""
        self._reach()
        await asyncio.sleep(window / self._speed)
        return Written(window, self._profile.dirty.distinct(window), 1.0)

    async def free_bytes(self) -> int | None:
        """See `ports.Inspection.free_bytes`: its zero pages, and what is hintable besides."""
        self._reach()
        return self._zero * PAGE + self._profile.free_hintable

    async def vcpu_seconds(self) -> tuple[float, ...]:
        """See `ports.Inspection.vcpu_seconds`."""
        self._reach()
        return (self._clock() * self._profile.busy_share,)

    def _spread(self, classes: Sequence[PageClass]) -> None:
        first = self._zero
        for each in classes:
            part = slice(first, min(self.pages, first + round(each.pages)))
            self._rate[part], self._cyclic[part] = each.rate, each.cyclic
            count = part.stop - part.start
            self._phase[part] = np.arange(count) / max(1, count)
            first = part.stop

    def _advance(self, which: NDArray[np.int64], now: float) -> None:
        """Write what would have been written since each page was last looked at."""
        rate, cyclic, seen = self._rate[which], self._cyclic[which], self._seen[which]
        drawn = self._generator.poisson(rate * np.maximum(0.0, now - seen))
        turns = np.floor(rate * now + self._phase[which])
        before = np.floor(rate * seen + self._phase[which])
        self._writes[which] += np.where(cyclic, turns - before, drawn).astype(np.uint64)
        self._seen[which] = now

    def _content(self, page: int) -> bytes:
        written = int(self._writes[page])
        if page < self._zero and not written:
            return bytes(PAGE)
        noise = np.random.default_rng([page, written]).bytes(PAGE // 2)
        return noise + _PLAIN[: PAGE - len(noise)]

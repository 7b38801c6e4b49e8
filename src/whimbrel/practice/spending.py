"""What the threads that move a guest use of their hosts' cores, for the next forecast.

Threads of a move end with it, and with them what the kernel knows of each. So they are looked
at from time to time while memory flows, and what the last look found is carried on to the end by
the pages that were sent until then and in all.
"""

import asyncio
from dataclasses import dataclass

from whimbrel.errors import WhimbrelError
from whimbrel.model.migration import Phase
from whimbrel.model.threads import RECEIVING, SENDING, ThreadClass, by_class
from whimbrel.ports import Machine, Site
from whimbrel.practice.attend import Afoot

LOOK_EVERY = 1.0
"""Seconds from one look to the next: each is one question to either host."""

ANSWER_WITHIN = 5.0
"""Seconds after which a host that does not answer is left alone."""


@dataclass(frozen=True)
class Spent:
    """CPU seconds of the threads that move a guest.

    Attributes:
        source: At the source, until so many pages were sent.
        destination: At the destination.
        pages: Pages with content that were sent by then.
    """

    source: float
    destination: float
    pages: int

    def until(self, pages: int) -> "Spent":
        """Return what it will be when so many pages are sent, each as dear as before."""
        more = pages / self.pages
        return Spent(self.source * more, self.destination * more, pages)


class Spending:
    """The `Attendant` that looks at what a move's threads use; it changes nothing.

    Args:
        source: The host the guest leaves.
        destination: The host it goes to.
        channels: Whether memory comes by channels, and not by the destination's main thread.
    """

    def __init__(self, source: Site, destination: Site, *, channels: bool) -> None:
        self._source, self._destination = source, destination
        self._receiving = SENDING if channels else RECEIVING
        self._last: Spent | None = None
        self._afoot: Afoot | None = None

    @property
    def spent(self) -> Spent | None:
        """What the move has used in all; None where nobody could tell."""
        if self._afoot is None or self._last is None:
            return None
        latest = self._afoot.latest()
        return self._last.until(max(latest.normal_pages if latest else 0, self._last.pages))

    async def attend(self, afoot: Afoot) -> None:
        """See `Attendant.attend`."""
        self._afoot = afoot
        while True:
            await asyncio.sleep(LOOK_EVERY)
            latest = afoot.latest()
            # Once it runs there, the destination's main thread works for the guest.
            if latest is not None and latest.phase is Phase.PRECOPY and latest.normal_pages > 0:
                await self._look(afoot, latest.normal_pages)

    def failed(self, error: WhimbrelError) -> None:
        """See `Attendant.failed`; what was seen until then stands."""

    async def _look(self, afoot: Afoot, pages: int) -> None:
        here, there = await asyncio.gather(
            _used(self._source, afoot.source, SENDING),
            _used(self._destination, afoot.destination, self._receiving),
        )
        if here is not None and there is not None:
            self._last = Spent(here, there, pages)


async def _used(site: Site, machine: Machine, kinds: tuple[ThreadClass, ...]) -> float | None:
    """Return the CPU seconds of these kinds of a machine's threads; None where nobody can tell.

    Threads of a move begin with it, and the process at a destination too: all counts.
    """
    if machine.pid is None:
        return None
    told = by_class(await site.ask("thread_seconds", within=ANSWER_WITHIN, pid=machine.pid))
    return None if told is None else sum(told[kind] for kind in kinds)

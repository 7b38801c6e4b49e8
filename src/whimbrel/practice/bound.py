"""A move's bandwidth while it runs: within its limit, and its part of a link that moves share.

    marks on both hosts, every second ────────► how many moves ─► 1/N of the link, or the limit
    what the hypervisor sent, all the time ───► what it is told, so that it sends no more than that

A hypervisor sends more than it is told: what it is told at first takes that off beforehand
(theory/windows.py), and from then on it is told by what it has sent.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from whimbrel.errors import CommandRefused, HostError, WhimbrelError
from whimbrel.model.migration import Decision, Observation, Phase, SetBandwidthLimit
from whimbrel.model.units import format_link
from whimbrel.practice.attend import Afoot
from whimbrel.theory.sharing import portion
from whimbrel.theory.windows import Exact

EVERY = 0.25
"""Seconds from one look at what was sent to the next."""

COUNT_EVERY = 1.0
"""Seconds from one look for other moves to the next."""


@dataclass(frozen=True)
class Lane:
    """A link that other moves may use as well.

    Attributes:
        rate: What it carries, headers included, bytes per second.
        others: Returns how many other moves are on their way over it; raises `HostError`.
        left: The share of it that stays for those who do not move.
    """

    rate: float
    others: Callable[[], Awaitable[int]]
    left: float = 0.0


class Bound:
    """The `Attendant` that keeps a move within its bandwidth.

    Args:
        most: What it may send in any case, bytes per second; None for no such limit.
        lane: The link, where it is known what that carries.
        told: Hears each new limit with its reason.
        lost: Hears why other moves can no longer be counted; the last limit then stays.
        channels: Number of multifd channels; None for a plain stream.
    """

    def __init__(
        self,
        most: float | None,
        lane: Lane | None,
        *,
        told: Callable[[Decision], None],
        lost: Callable[[WhimbrelError], None],
        channels: int | None = None,
    ) -> None:
        self._channels = channels
        self._most, self._lane, self._told, self._lost = most, lane, told, lost
        self._others = 0
        self._exact: Exact | None = None

    @property
    def limit(self) -> float | None:
        """What it may send beside the moves that were counted last; None: all it can."""
        part = None
        if self._lane is not None and self._others:
            part = portion(self._lane.rate, self._lane.left, self._others)
        return min((each for each in (self._most, part) if each is not None), default=None)

    async def count(self) -> bool:
        """Look for other moves, and tell whether there are more or fewer than before.

        Raises:
            HostError: A host does not tell.
        """
        if self._lane is None:
            return False
        before, self._others = self._others, await self._lane.others()
        return before != self._others

    async def attend(self, afoot: Afoot) -> None:
        """See `Attendant.attend`; nothing is to undo, since a limit ends with its migration."""
        clock = asyncio.get_running_loop().time
        began = counted = clock()
        await self._begin_anew(afoot)
        if self._others:
            self._told(self._decision(0.0))
        while True:
            await asyncio.sleep(EVERY)
            now = clock()
            if now - counted >= COUNT_EVERY:
                counted = now
                before = self.limit
                if await self.count() and self.limit != before:
                    await self._begin_anew(afoot, lift=True)
                    self._told(self._decision(now - began))
                    continue
            seen = afoot.latest()
            if seen is not None:
                await self._correct(afoot, seen)

    def failed(self, error: WhimbrelError) -> None:
        """See `Attendant.failed`."""
        what = f"Other moves can no longer be counted; the limit stays as it is. {error.what}"
        self._lost(HostError(what, error.hint))

    async def _begin_anew(self, afoot: Afoot, *, lift: bool = False) -> None:
        """Tell what the limit asks for; with none, nothing, or that there is none (`lift`)."""
        limit = self.limit
        self._exact = None if limit is None else Exact(limit, self._channels)
        if self._exact is not None or lift:
            await self._apply(afoot, None if self._exact is None else self._exact.told)

    async def _correct(self, afoot: Afoot, seen: Observation) -> None:
        if self._exact is None or seen.phase is Phase.SWITCHOVER:  # QEMU has lifted it
            return
        told = self._exact.hear(seen.at, seen.transferred)
        if told is not None:
            await self._apply(afoot, told)

    async def _apply(self, afoot: Afoot, rate: float | None) -> None:
        try:
            await afoot.migration.apply(SetBandwidthLimit(rate))
        except CommandRefused:
            return  # the move was quicker

    def _decision(self, at: float) -> Decision:
        limit = self.limit
        link = "" if self._lane is None else f" over {format_link(self._lane.rate)}"
        others = f"{self._others} other {'move is' if self._others == 1 else 'moves are'}"
        reason = f"{others} on the way{link}" if self._others else f"no other move is left{link}"
        return Decision(SetBandwidthLimit(limit), reason, at)

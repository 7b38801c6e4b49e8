"""How much of a NIC a move may use so that a share of it stays for others.

    own bytes, all bytes at each end ──► what others use ──► limit of the move, with its reason

The move never gets more than what is not left for others. Within what is left, others are free
to come and go, and nothing changes. Where they use more than their share and the move does not
get all it may send, it gives way: its limit falls to what they leave, but not below its floor,
half of what it may use at most. From time to time it then tries a little more. TCP flows that
took all they could get make room, and it comes back to where it was; where nobody makes room it
falls back, and tries ever more seldom.

Stable by construction: what others use is total less own, whatever the limit is; it is averaged
over a window that begins anew with every limit, and a band keeps the move from small changes.

A hypervisor that sends more than it is told (QEMU counts in tenths of a second, and overshoots by
up to 0.1 MB in each) is told less, until what it sends is what it may send.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel.errors import ConfigError
from whimbrel.model.migration import Decision, SetBandwidthLimit
from whimbrel.model.units import format_link

WINDOW = 1.0
"""Seconds over which traffic is averaged."""

SHORTEST = 0.4
"""Seconds of traffic that must have been seen before anything is concluded from it."""

SETTLE = 0.5
"""Seconds from one change of the limit to the next."""

HEADERS = 1.05
"""Bytes on the wire for one byte of the move: Ethernet, IP and TCP headers (1514/1448)."""

GRACE = 0.05
"""Share of the link by which others must exceed what is left for them before the move yields."""

BAND = 0.03
"""Share of the limit below which a change is not worth telling the hypervisor."""

RISE = 0.05
"""Share of the link by which the limit rises at most in one step."""

PRESSING = 0.9
"""Share of its limit from which on a move is held back by it, and not by something else."""

LEAST_TOLD = 0.6
"""Share of what a move may send that a hypervisor is told at least, however it overshoots."""

WASTEFUL = 0.93
"""Share of what it may send below which a move that was told less is told more again: QEMU's
steps are coarse, and somewhat less than promised to others is no reason to go to and fro."""

SMOOTH = 0.3
"""Weight of the latest look in what a hypervisor sends of what it may."""

SELDOM = 60.0
"""Seconds from one try to rise to the next, where nobody made room again and again."""

LEAST, MOST = 0.01, 0.95
"""Shares that can be left for others."""


def parse_share(text: str) -> float:
    """Read "30%" or "0.3" as 0.3; raise `ConfigError` outside of 1 % to 95 %."""
    number = text.strip()
    try:
        share = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        share = float("nan")
    if not LEAST <= share <= MOST:
        raise ConfigError(
            f'"{text}" is no share of a NIC to leave for others.',
            'Write a percentage from 1% to 95%, such as "30%".',
        )
    return share


def portion(rate: float, left: float = 0.0, others: int = 0) -> float:
    """Return what a move may send over a link that it shares, payload bytes per second.

    Args:
        rate: What the link carries, headers included.
        left: The share that stays for others.
        others: Moves under way over the same link; each gets as much of the rest.
    """
    return (1 - left) * rate / HEADERS / (1 + others)


@dataclass(frozen=True)
class Counted:
    """A counter that was read.

    Attributes:
        at: When, seconds of a clock of its own: only differences count.
        bytes: What it stood at.
    """

    at: float
    bytes: int


@dataclass(frozen=True)
class Traffic:
    """What was seen at one moment.

    Attributes:
        at: Seconds since the request to move.
        own: Bytes that the move has sent so far, as its hypervisor counts them.
        ends: Bytes that went through the interface of each end in the move's direction.
    """

    at: float
    own: Counted
    ends: tuple[Counted, ...]


class Sharing:
    """The control of one move's bandwidth.

    Args:
        left: The share of the NICs that stays for others, 0.01 to 0.95.
        links: The rate of each end's interface, bytes per second.
        most: What the move may send in any case, bytes per second; None for no such limit.

    Attributes:
        limit: What it may send now, bytes per second.
        told: What its hypervisor is told, so that it sends that.
    """

    def __init__(self, left: float, links: Sequence[float], most: float | None = None) -> None:
        if not (LEAST <= left <= MOST and links and all(rate > 0 for rate in links)):
            raise ConfigError("A share of a NIC needs a rate above 0 and 1 % to 95 % to leave.")
        self._left = left
        self._links = tuple(links)
        self._most = float("inf") if most is None else most
        self._seen: deque[Traffic] = deque()
        self._yielding = False
        self._tried_from: float | None = None
        self._patience = SETTLE
        self._next_try = 0.0
        self._changed = 0.0
        self._overshoot = 1.0
        self._told_share = 1.0
        self.limit = self.told = min(self._most, self._cap(min(self._links)))

    @property
    def floor(self) -> float:
        """The limit that others cannot push the move below, bytes per second."""
        return min(self._most, self._cap(min(self._links)) / 2)

    def begin(self, at: float) -> Decision:
        """Return the limit to begin with, before anything was seen."""
        self._changed = at
        link = format_link(min(self._links))
        reason = f"{self._left:.0%} of {link} stays for others"
        return Decision(SetBandwidthLimit(self.limit), reason, at)

    def hear(self, traffic: Traffic) -> Decision | None:
        """Take what was seen, and return a new limit where one is due."""
        self._seen.append(traffic)
        while len(self._seen) > 1 and traffic.at - self._seen[1].at >= WINDOW:
            self._seen.popleft()
        rates = self._rates()
        if rates is None or traffic.at - self._changed < SETTLE:
            return None
        own, others = rates
        wanted, reason = self._wanted(own, others, traffic.at)
        step = min(wanted, self.limit + RISE * min(self._links))
        told = step * self._correction(own)
        if abs(told - self.told) <= BAND * self.told:
            return None
        if abs(step - self.limit) <= BAND * self.limit:
            reason = f"the move sends {format_link(own)} and may send {format_link(step)}"
        self.limit, self.told = step, told
        self._changed = traffic.at
        self._overshoot = 1.0
        self._seen.clear()
        return Decision(SetBandwidthLimit(told), reason, traffic.at)

    def _correction(self, own: float) -> float:
        """Return which share of the limit the hypervisor is to be told."""
        self._overshoot += SMOOTH * (own / self.limit - self._overshoot)
        if self._overshoot > 1 + BAND:
            self._told_share = max(LEAST_TOLD, self._told_share / self._overshoot)
            self._overshoot = 1.0
        elif PRESSING < self._overshoot < WASTEFUL:
            self._told_share = min(1.0, self._told_share / self._overshoot)
            self._overshoot = 1.0
        return self._told_share

    def _cap(self, link: float) -> float:
        return (1 - self._left) * link / HEADERS

    def _rates(self) -> tuple[float, tuple[float, ...]] | None:
        """Return what the move sends and what others use at each end; None: not seen enough."""
        first, last = self._seen[0], self._seen[-1]
        pairs = list(zip(first.ends, last.ends, strict=True))
        if min(_apart(*pair) for pair in [(first.own, last.own), *pairs]) < SHORTEST:
            return None
        own = _rate(first.own, last.own)
        return own, tuple(max(0.0, _rate(*pair) - own * HEADERS) for pair in pairs)

    def _wanted(self, own: float, others: Sequence[float], at: float) -> tuple[float, str]:
        """Return the limit that what was seen asks for, and why."""
        used, link = max(zip(others, self._links, strict=True), key=lambda end: end[0] / end[1])
        share = used / link
        self._yielding = share > self._left + (0.0 if self._yielding else GRACE)
        words = f"others use {share:.0%} of {format_link(link)}"
        most = min(self._most, self._cap(min(self._links)))
        if not self._yielding:
            self._patience, self._tried_from = SETTLE, None
            return most, f"{words}; {self._left:.0%} stays for them"
        words += f", more than the {self._left:.0%} that is theirs"
        failed = self._judge(own, at)
        if own < PRESSING * self.limit or failed:
            return self._given_way(others, words)
        if at < self._next_try or self.limit >= most:
            return self.limit, words
        self._tried_from = own
        return most, f"{words}; whether they make room is tried"

    def _judge(self, own: float, at: float) -> bool:
        """Judge the last try where there was one; return whether nobody made room."""
        if self._tried_from is None:
            return False
        failed = own < self._tried_from + RISE * min(self._links) / HEADERS / 2
        self._tried_from = None
        self._patience = min(SELDOM, 2 * self._patience) if failed else SETTLE
        self._next_try = at + self._patience if failed else at
        return failed

    def _given_way(self, others: Sequence[float], words: str) -> tuple[float, str]:
        rooms = zip(others, self._links, strict=True)
        room = min((rate - use) / HEADERS for use, rate in rooms)
        if room < self.floor:
            kept = format_link(self.floor)
            return min(self.limit, self.floor), f"{words}; the move keeps to its floor of {kept}"
        return min(self.limit, room), f"{words}; the move gives way"


def _apart(first: Counted, last: Counted) -> float:
    return last.at - first.at


def _rate(first: Counted, last: Counted) -> float:
    return (last.bytes - first.bytes) / (last.at - first.at)

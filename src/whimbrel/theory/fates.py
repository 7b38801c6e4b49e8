"""How each draw of a simulated move ended, and what was noted on its way."""

from dataclasses import dataclass

import numpy as np

from whimbrel.theory.arrays import Flags, Floats, Ints
from whimbrel.theory.rates import Costs


@dataclass
class Fates:
    """How each draw ended, all of shape (D,); what is not set stays 0."""

    completed: Flags
    postcopy: Flags
    total: Floats
    stopped_at: Floats
    downtime: Floats
    reported: Floats
    wire: Floats
    counted: Floats
    normal: Floats
    zero: Floats
    passes: Floats
    throttle: Floats
    waiting: Floats

    @classmethod
    def open(cls, count: int) -> "Fates":
        """Return fates of which nothing is known yet."""
        completed, postcopy = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        return cls(completed, postcopy, *[np.zeros(count) for _ in range(11)])


@dataclass(frozen=True)
class PassLog:
    """The start of one pass for the draws that reached it, each of shape (reached,)."""

    number: int
    draws: Ints
    at: Floats
    counted: Floats
    remaining: Floats


@dataclass(frozen=True)
class Pulling:
    """The pages that post-copy still has to bring, and since when, each of shape (D,).

    Attributes:
        plain: What pages cost without a bandwidth limit.
        normal: Pages with content.
        zero: Zero pages.
        since: Seconds since the request.
        seconds: How long they take.
    """

    plain: Costs
    normal: Floats
    zero: Floats
    since: Floats
    seconds: Floats


@dataclass(frozen=True)
class Best:
    """The best a draw has come to, each of shape (D,).

    Attributes:
        ratio: The least remaining over threshold so far.
        streak: Passes since.
        clock: Seconds since the request at that pass.
        wire: Bytes on the wire by then.
    """

    ratio: Floats
    streak: Ints
    clock: Floats
    wire: Floats

    @classmethod
    def none(cls, at: Floats) -> "Best":
        """Return the state before the first pass."""
        count = len(at)
        return cls(np.full(count, np.inf), np.zeros(count, dtype=np.int64), at, np.zeros(count))

    def only(self, which: Ints) -> "Best":
        """Return the draws with these indices."""
        return Best(self.ratio[which], self.streak[which], self.clock[which], self.wire[which])


@dataclass(frozen=True)
class Rest:
    """What a draw still does after the pre-copy scan has ended, each of shape (ended,).

    Attributes:
        total: Seconds since the request at the end.
        wire: Bytes on the wire from here on.
        counted: Likewise as QEMU counts them.
        normal: Pages with content from here on.
        zero: Zero pages from here on.
        passes: Passes from here on.
    """

    total: Floats
    wire: Floats
    counted: Floats
    normal: Floats
    zero: Floats
    passes: Floats

    @classmethod
    def nothing(cls, total: Floats) -> "Rest":
        """Return an end at which nothing more is sent."""
        none = np.zeros(len(total))
        return cls(total, none, none, none, none, none)

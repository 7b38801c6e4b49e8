"""`--when quiet`: whether a guest writes little enough now for its move to begin.

A rule over looks at the dirty rate: begin when the last two are low, either in themselves or
compared with what was seen; or when waiting would win nothing; or when it has lasted too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel.model.units import format_rate, format_time

AGREEING = 2
"""Looks in a row that must be low: one may have met a pause between two writes."""

FEWEST = 5
"""Looks before low means low compared with others."""

LOW = 0.25
"""How far up from the lowest to the highest rate seen counts as low."""

STEADY = 1.5
"""Highest over lowest rate of a guest that does not change."""

STEADY_LOOKS = 20
"""Looks after which a steady guest is believed to stay so."""


@dataclass(frozen=True)
class RateLook:
    """A look at a guest's dirty rate.

    Attributes:
        at: When, seconds of any clock.
        rate: Bytes of pages written per second.
    """

    at: float
    rate: float


@dataclass(frozen=True)
class Readiness:
    """Whether a move shall begin now, and why.

    Attributes:
        begin: Whether it shall.
        reason: One sentence for people.
    """

    begin: bool
    reason: str


def readiness(
    looks: Sequence[RateLook], now: float, *, negligible: float = 0.0, deadline: float | None = None
) -> Readiness:
    """Judge whether a guest is quiet.

    Args:
        looks: What was seen so far, the oldest first.
        now: The present, on the looks' clock.
        negligible: Bytes per second below which any guest is quiet, whatever it did before.
        deadline: When the move begins in any case, on the same clock; None for never.
    """
    if deadline is not None and now >= deadline:
        return Readiness(begin=True, reason=_late(looks))
    if len(looks) < AGREEING:
        return Readiness(begin=False, reason="The guest was not seen long enough yet.")
    rates = [look.rate for look in looks]
    recent = max(rates[-AGREEING:])
    words = f"The guest writes {format_rate(recent)}"
    if recent <= negligible:
        return Readiness(begin=True, reason=f"{words}, which is next to nothing.")
    lowest, highest = min(rates), max(rates)
    steady = highest <= STEADY * lowest
    span = f"{format_rate(lowest)} to {format_rate(highest)} in {_span(looks)}"
    if steady and len(looks) >= STEADY_LOOKS:
        reason = f"{words}, and has all the time ({span}): waiting wins nothing."
        return Readiness(begin=True, reason=reason)
    low = lowest + LOW * (highest - lowest)
    if len(looks) >= FEWEST and not steady and recent <= low:
        return Readiness(begin=True, reason=f"{words}, which is low for it: {span}.")
    return Readiness(begin=False, reason=f"{words}; it is waited for less. Seen: {span}.")


def _late(looks: Sequence[RateLook]) -> str:
    if not looks:
        return "The time to wait for a quiet guest is over, and it could not be looked at."
    rate = format_rate(looks[-1].rate)
    return f"The time to wait for a quiet guest is over; it writes {rate}."


def _span(looks: Sequence[RateLook]) -> str:
    return format_time(looks[-1].at - looks[0].at)

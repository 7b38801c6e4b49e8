"""The Pucker Factor: one figure of risk, a sum of four terms (docs/pucker.md defines it).

     0  nobody notices
     5  tell the users
    10  do it at night
   >10  do not

Each term is 0 when all is well, never negative, and rises with its cause alone. The figure is
for people: nothing in whimbrel decides by it.
"""

import math
from dataclasses import dataclass

from whimbrel.errors import ConfigError
from whimbrel.model.migration import Phase
from whimbrel.model.plan import Pucker, PuckerTerm
from whimbrel.model.prediction import Course
from whimbrel.model.units import format_time

PER_CHANCE = 20.0
"""Points of a move that surely does not complete; 10 at even odds, where plans are refused."""

EXPOSED = 60.0
"""Seconds past the point of no return that are worth 5 points."""

UNNOTICED = 0.5
"""Share of the tolerated downtime that costs nothing."""

PER_TOLERANCE = 10.0
"""Points for each tolerated downtime beyond that share."""

ROOMY = 0.1
"""Share of the destination that is left free when all is well."""

PER_SHARE = 50.0
"""Points per share missing from that: 5 where nothing is left, 10 a tenth beyond."""


@dataclass(frozen=True)
class Risk:
    """The facts that the Pucker Factor is made of.

    Attributes:
        not_completing: Chance that the move does not complete, 0 to 1.
        exposed: Seconds past the point of no return, in which the guest depends on both
            hosts and the link; 0 without post-copy.
        downtime: Seconds the guest stands still, to be given at the 90th percentile.
        tolerance: Seconds that the guest's clients tolerate, above 0.
        headroom: The least share of any resource of the destination that is left free once
            the guest is there; below 0 where it is overcommitted.
    """

    not_completing: float
    exposed: float
    downtime: float
    tolerance: float
    headroom: float


def pucker(risk: Risk) -> Pucker:
    """Return the Pucker Factor with its four terms.

    Raises:
        ConfigError: A fact lies outside its range, or is not a number.
    """
    _check(risk)
    return Pucker((_completion(risk), _exposure(risk), _downtime(risk), _headroom(risk)))


def meaning(figure: float) -> str:
    """Return what a figure says on the scale."""
    if figure > 10:  # noqa: PLR2004 - the scale's own marks, here and below
        return "don't"
    if figure > 7.5:  # noqa: PLR2004
        return "do it at night"
    if figure > 2.5:  # noqa: PLR2004
        return "tell the users"
    return "nobody notices"


def headroom_left(free: float, needed: float, total: float) -> float:
    """Return the share of a resource that is left free once `needed` of `free` is taken.

    Args:
        free: What the destination has free, in any unit.
        needed: What the guest needs, in the same unit.
        total: What the destination has in all, above 0.
    """
    return (free - needed) / total


def exposed_seconds(course: Course) -> float:
    """Return the seconds of a course past the point of no return; 0 without post-copy."""
    switched = (each.at for each in course.phases if each.phase is Phase.POSTCOPY)
    return max((course.total_time - at for at in switched), default=0.0)


def _check(risk: Risk) -> None:
    if not 0 <= risk.not_completing <= 1:
        raise ConfigError(f"A chance is between 0 and 1, not {risk.not_completing}.")
    if not risk.exposed >= 0 or not risk.downtime >= 0:
        raise ConfigError("Exposed seconds and downtime are 0 or more.")
    if not 0 < risk.tolerance < math.inf:
        raise ConfigError("The tolerated downtime is more than 0 s.", 'Give one: "1 s".')
    if not risk.headroom <= 1:
        raise ConfigError(f"Headroom is a share of at most 1, not {risk.headroom}.")


def _completion(risk: Risk) -> PuckerTerm:
    value = PER_CHANCE * risk.not_completing
    sentence = f"It does not complete with probability {risk.not_completing:.2f}."
    return PuckerTerm("completion", value, sentence)


def _exposure(risk: Risk) -> PuckerTerm:
    value = 5 * math.log10(1 + 9 * risk.exposed / EXPOSED)
    if risk.exposed == 0:
        return PuckerTerm("exposure", value, "It can be called back at any time.")
    spent = format_time(risk.exposed) if math.isfinite(risk.exposed) else "an unknown time"
    return PuckerTerm(
        "exposure", value, f"For {spent} a failure of either host or the link loses the guest."
    )


def _downtime(risk: Risk) -> PuckerTerm:
    value = PER_TOLERANCE * max(0.0, risk.downtime / risk.tolerance - UNNOTICED)
    still = format_time(risk.downtime) if math.isfinite(risk.downtime) else "an unknown time"
    sentence = f"The guest stands still for {still}; its clients tolerate "
    return PuckerTerm("downtime", value, f"{sentence}{format_time(risk.tolerance)}.")


def _headroom(risk: Risk) -> PuckerTerm:
    value = PER_SHARE * max(0.0, ROOMY - risk.headroom)
    if risk.headroom < 0:
        sentence = f"The destination is overcommitted by {-risk.headroom:.0%} once it is there."
    else:
        sentence = f"{risk.headroom:.0%} of the destination is left free once it is there."
    return PuckerTerm("headroom", value, sentence)

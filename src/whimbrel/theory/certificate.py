"""The completion certificate: the ladder a move can climb, and what each rung guarantees.

    pre-copy ─► raised downtime limit ─► throttling ─► post-copy
                                                   └─► called back, and begun anew by post-copy

A rung is *guaranteed* where its bounds on total time and downtime are certain, given the link
and the hosts, and keep the wish. What depends on the guest's dirty rate is only probable,
since nothing keeps a guest from changing it (docs/certificate.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from whimbrel.model.inventory import Capability
from whimbrel.model.memory import Survey
from whimbrel.model.method import Postcopy, Transport, Tuning
from whimbrel.model.migration import Action, Cancel, SetDowntimeLimit, StartPostcopy
from whimbrel.model.plan import Certificate, Rung, Step, Wish
from whimbrel.model.prediction import REFUSE_BELOW, Prediction
from whimbrel.model.units import PAGE, format_link, format_time
from whimbrel.theory.bounds import LOOK, Bounds, bounds, high_goodput
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import predict

_LAST_RESORT = {Postcopy.NEVER, Postcopy.IF_STALLED}

WORTH_RAISING = 1.05
"""A downtime limit is raised only by more than this factor."""

PATIENCE = 2.0
"""Times its p90 that a likely rung is given. One sound move in ten takes longer than its p90, and
must not pay for that with a longer stop; one that stalls is noticed long before, by its passes."""

UNHURRIED, UNHURRIED_SHARE = 10.0, 0.1
"""Seconds that every rung is given where the wish leaves time, and the share of the wished time
that this may be: a short move on a busy host must not be hurried into post-copy by the clock."""

UNDISTURBED = 1.5
"""Times its p90 that a move must be given before it is called back for a guarantee's sake. What a
survey does not see made moves take a third longer than their p90; called back so shortly before
its end, one would pay with all of its time for a guarantee that it never needed."""

CALLING_BACK = 2.0
"""Seconds to call a move back and to have a destination listen again; an assumption that the
certificate states, not measured."""


_ROUNDING = 1e-6
"""Seconds by which a last moment lies before the one that is reckoned."""


@dataclass
class _Ladder:
    """A ladder that is being built; `at` is when the next rung is climbed at the latest."""

    survey: Survey
    wish: Wish
    most: Bounds
    foresee: Callable[[Tuning], Prediction]
    at: float
    rungs: list[Rung] = field(default_factory=list)


def certify(
    survey: Survey,
    tuning: Tuning,
    wish: Wish,
    common: frozenset[Capability],
    rules: QemuRules | None = None,
    *,
    generator: np.random.Generator,
    floor: float | None = None,
    draws: int = 100,
) -> Certificate:
    """Return the ladder of a move and what each of its rungs guarantees.

    Args:
        survey: Guest, link and hosts.
        tuning: What the move is begun with.
        wish: The limits; whether post-copy is allowed.
        common: What both hosts can do.
        rules: The QEMU that moves it.
        generator: The only source of randomness.
        floor: Bytes per second that the link is promised to carry in every second; None
            takes the 10th percentile of the surveyed goodput.
        draws: How many each probable rung is predicted with.
    """
    rules = rules or QemuRules()
    most = bounds(survey, tuning, rules, floor=floor)

    def foresee(way: Tuning) -> Prediction:
        until = max(wish.total_time - most.preparation, 1e-3)
        return predict(survey, way, rules, generator=generator, deadline=until, draws=draws)

    ladder = _Ladder(survey, wish, most, foresee, at=most.preparation)
    if tuning.postcopy in _LAST_RESORT:
        _probable(ladder, tuning)
    hindrance = postcopy_hindrance(tuning, wish, common, rules)
    _postcopy(ladder, tuning, hindrance)
    if hindrance and can_pull(wish, common):
        anew = anew_tuning(tuning)
        _anew(ladder, anew, bounds(survey, anew, rules, floor=floor))
    return Certificate(tuple(ladder.rungs), _assumptions(most, ladder.rungs))


def _probable(ladder: _Ladder, tuning: Tuning) -> None:
    """Add the rungs on which memory goes before the guest."""
    gentle = replace(tuning, throttling=False, postcopy=Postcopy.NEVER)
    _add(ladder, Step.PRECOPY, gentle, None)
    limit = highest_limit(ladder.survey, tuning, ladder.wish, ladder.most)
    raised = gentle
    if limit > tuning.downtime_limit * WORTH_RAISING:
        raised = replace(gentle, downtime_limit=limit)
        _add(ladder, Step.RAISED_DOWNTIME_LIMIT, raised, SetDowntimeLimit(limit))
    if tuning.throttling:
        _add(ladder, Step.THROTTLING, replace(raised, throttling=True), None)


def highest_limit(survey: Survey, tuning: Tuning, wish: Wish, most: Bounds) -> float:
    """Return the downtime limit in seconds up to which the wish's downtime is kept; may be 0.

    QEMU stops the guest with up to bandwidth x limit raw bytes left, by its own measure of the
    bandwidth or the one it was told, and then needs `most.standing` on top.
    """
    streams = tuning.channels or 1
    link = survey.along(tuning).link
    believed = tuning.switchover_bandwidth or high_goodput(link, streams)
    stretch = max(1.0, believed / PAGE * most.final)
    return max(0.0, (wish.downtime - most.standing) / stretch)


def _add(ladder: _Ladder, step: Step, tuning: Tuning, action: Action | None) -> None:
    """Add a rung that completes for certain only where all of memory fits the downtime limit."""
    most, wish, at = ladder.most, ladder.wish, ladder.at
    if _always_fits(tuning, most):
        total = max(at, most.begun) + LOOK + most.sync + most.whole
        sound, reason = _judged(total, most.whole, wish)
        reason = f"all of memory fits the downtime limit, so QEMU stops at its next look; {reason}"
        sure = 1.0 if sound else 0.0
        bound = (sure, total, most.whole)
        ladder.rungs.append(Rung(step, tuning, action, at, *bound, guaranteed=sound, reason=reason))
        return
    foreseen = ladder.foresee(tuning)
    chance = foreseen.completion_probability
    # From any moment on there is at most as much to send as at the beginning.
    total = at + foreseen.total_time.p90 if chance > 0 else math.inf
    downtime = foreseen.downtime.p90 if chance > 0 else math.inf
    reason = f"{_ODDS[step]}; it completes with probability {chance:.2f}, bounds are p90"
    bound = (chance, total, downtime)
    ladder.rungs.append(Rung(step, tuning, action, at, *bound, guaranteed=False, reason=reason))
    likely = chance >= REFUSE_BELOW
    patience = PATIENCE * foreseen.total_time.p90 if likely else _patience(most)
    patience = max(patience, min(UNHURRIED, UNHURRIED_SHARE * wish.total_time))
    ladder.at = min(at + patience, wish.total_time)


_ODDS = {
    Step.PRECOPY: "it depends on the guest's dirty rate",
    Step.RAISED_DOWNTIME_LIMIT: "it depends on what the guest dirties in the last pass",
    Step.THROTTLING: "nothing bounds what a throttled guest still writes",
}


def _patience(most: Bounds) -> float:
    """Return the seconds to watch a rung that is not expected to complete: one whole pass."""
    return most.setup + most.pages * most.first + most.sync


def _always_fits(tuning: Tuning, most: Bounds) -> bool:
    """Tell whether all of memory is below QEMU's threshold, so that no dirty rate matters.

    That can be relied on only where QEMU was told a bandwidth which the link always has; its
    own measure collapses over zero pages.
    """
    told = tuning.switchover_bandwidth
    if told is None or told > most.floor:
        return False
    return most.pages * PAGE < told * tuning.downtime_limit


def _judged(total: float, downtime: float, wish: Wish) -> tuple[bool, str]:
    """Return whether bounds keep the wish, and that in words."""
    if downtime > wish.downtime:
        more = f"{format_time(downtime)}, more than {format_time(wish.downtime)}"
        return False, f"but the guest may stand still for {more}"
    if total > wish.total_time:
        more = f"{format_time(total)}, more than {format_time(wish.total_time)}"
        return False, f"but it may take {more}"
    return True, f"at most {format_time(total)} in all and {format_time(downtime)} of downtime"


def can_pull(wish: Wish, common: frozenset[Capability]) -> bool:
    """Tell whether post-copy is allowed at all, and both hosts can do it."""
    return wish.postcopy and Capability.POSTCOPY in common


def postcopy_hindrance(
    tuning: Tuning, wish: Wish, common: frozenset[Capability], rules: QemuRules
) -> str:
    """Return why a move with this tuning cannot go over to post-copy on its way; empty: it can."""
    begun = tuning.postcopy not in _LAST_RESORT
    hindrances = {
        "it is not allowed": not wish.postcopy,
        "the hosts cannot do it": Capability.POSTCOPY not in common,
        "QEMU refuses it over RDMA": tuning.transport is Transport.RDMA,
        "QEMU before 10.1 refuses it beside several channels": tuning.channels is not None
        and not rules.postcopy_with_channels,
        "it would throw the prepared memory away": tuning.prepared_memory is not None and not begun,
        "QEMU leaves free page hints out beside it": tuning.free_page_hints and not begun,
    }
    return next((reason for reason, holds in hindrances.items() if holds), "")


def anew_tuning(tuning: Tuning) -> Tuning:
    """Return what a move that was called back is begun anew with: it is sure to end."""
    return Tuning(
        bandwidth_limit=tuning.bandwidth_limit,
        downtime_limit=tuning.downtime_limit,
        postcopy=Postcopy.AFTER_FIRST_PASS,
    )


def _postcopy(ladder: _Ladder, tuning: Tuning, hindrance: str) -> None:
    """Add the rung that no dirty rate can break: each missing page is sent exactly once."""
    if hindrance:
        never = Rung(
            Step.POSTCOPY,
            tuning,
            None,
            math.inf,
            0.0,
            math.inf,
            math.inf,
            guaranteed=False,
            reason=hindrance,
        )
        ladder.rungs.append(never)
        return
    most, wish = ladder.most, ladder.wish
    at = most.gone_over
    if tuning.postcopy in _LAST_RESORT:
        tuning = replace(tuning, postcopy=Postcopy.IF_STALLED)
        at = _latest_switch(most, wish, ladder.at)
    if not _judged(most.postcopy_total(at), most.postcopy_downtime(at), wish)[0]:
        at = max(at, ladder.at)  # for no guarantee's sake is a sound move hurried
    total, downtime = most.postcopy_total(at), most.postcopy_downtime(at)
    sound, reason = _judged(total, downtime, wish)
    reason = f"each missing page is sent once, whatever the guest writes; {reason}"
    bound = (1.0 if sound else 0.0, total, downtime)
    rung = Rung(Step.POSTCOPY, tuning, StartPostcopy(), at, *bound, guaranteed=sound, reason=reason)
    ladder.rungs.append(rung)


def _anew(ladder: _Ladder, tuning: Tuning, most: Bounds) -> None:
    """Add the rung of a second attempt, by post-copy; `most` are its bounds."""
    wish, first = ladder.wish, ladder.rungs[0]
    lasts = CALLING_BACK + most.postcopy_total(most.gone_over)
    at = min(ladder.at, wish.total_time - lasts)
    if at < min(UNDISTURBED * first.total_time, first.latest + _patience(ladder.most)):
        at = ladder.at  # too late for a guarantee; earlier, what is begun had no chance
    total, downtime = at + lasts, most.postcopy_downtime(most.gone_over)
    sound, reason = _judged(total, downtime, wish)
    reason = f"begun anew, it sends each missing page once, whatever the guest writes; {reason}"
    bound = (1.0 if sound else 0.0, total, downtime)
    rung = Rung(Step.ANEW, tuning, Cancel(), at, *bound, guaranteed=sound, reason=reason)
    ladder.rungs.append(rung)


def _latest_switch(most: Bounds, wish: Wish, wanted: float) -> float:
    """Return when to switch at the latest: as wanted, or early enough to keep the total time."""
    slack = most.postcopy_total(wish.total_time) - wish.total_time + _ROUNDING
    return max(most.begun, min(wanted, wish.total_time - slack))


def _assumptions(most: Bounds, rungs: list[Rung]) -> tuple[str, ...]:
    common: tuple[str, ...] = (
        f"The link carries at least {format_link(most.postcopy_floor)} in every second.",
        "The hosts need no more time per page, to stop and to load than the survey's p90.",
        "Neither a host nor the link fails.",
        "Each rung is climbed no later than it says.",
    )
    sure = {rung.step for rung in rungs if rung.guaranteed}
    if Step.ANEW in sure:
        back = f"A move can be called back and begun anew within {format_time(CALLING_BACK)}."
        common = (*common, back)
    if not sure & {Step.POSTCOPY, Step.ANEW}:
        return common
    stale = "Until post-copy the guest dirties no more pages than its dirty curve's p90; only "
    return (*common, stale + "the time to discard them, a part of the downtime, rests on this.")

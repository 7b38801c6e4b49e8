"""The live forecast: how much longer a move takes, and whether it will converge.

    prediction ──► the total time as foreseen ─┐
    events ──────► the total time as seen ─────┴─► weighed by their certainty ──► Outlook
           ──────► each pass: closer to the end, as foreseen or not ────────────►   probability

Where both contradict each other the forecast gives way, since it is what may be wrong. Told
without a prediction, everything comes from the events.
"""

import math
from dataclasses import dataclass, replace

from whimbrel.model.method import Tuning
from whimbrel.model.migration import (
    ENDS,
    Action,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
)
from whimbrel.model.prediction import Interval, Prediction
from whimbrel.theory.bounds import Z90
from whimbrel.theory.timeline import STANDARD, Seen, Timeline, left_by_sight
from whimbrel.theory.watch import BEYOND, IMPROVEMENT

ERROR, BLIND_ERROR = 0.15, 0.5
"""Relative error of the seconds left as seen, with a forecast to compare and without one."""

LEAST = (0.03, 0.1)
"""A band reaches at least by this share of what is left, and so many seconds, to either side."""

UNKNOWN = 0.7
"""Completion probability of a move of which nothing was foreseen; most moves complete."""

CERTAIN = 0.97
"""The most that is believed of a forecast's completion probability: what is seen may still
overrule it."""

STUCK, STUCK_AS_FORESEEN, BEHIND, CLOSER = -3.0, -0.5, -1.0, 0.7
"""What a pass adds to the log odds of completion: one without progress, one without it as it was
foreseen, a second pass beyond the forecast, and one with progress as it was foreseen. Set by
hand: two passes without progress outweigh any forecast."""

FARTHEST, CLOSEST = -6.0, 2.0
"""What all passes together add at least and at most."""

_BURST = 0.2
"""Seconds between passes from which they tell something."""

_SUREST = 0.01
"""Relative error of a total time at least."""

_TINY = 1e-9

_NOTHING = Interval(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of a move at one moment.

    Attributes:
        at: Seconds since the request.
        left: Seconds until it is over, should it complete; None where nothing tells.
        completion_probability: Chance that it completes in time, as it is set up, 0 to 1.
    """

    at: float
    left: Interval | None
    completion_probability: float


class Lookout:
    """Looks ahead on one move, told event by event.

    Args:
        tuning: What the move is set to.
        prediction: What was said of it beforehand; None: nothing.
        deadline: Seconds since the request after which it is given up.
    """

    def __init__(
        self, tuning: Tuning, prediction: Prediction | None = None, deadline: float = math.inf
    ) -> None:
        self._limit = tuning.downtime_limit
        self._prediction = prediction
        self._timeline = Timeline(prediction) if prediction and prediction.band else None
        self._deadline = deadline
        self._began: float | None = None
        self._phase, self._entered = Phase.IDLE, 0.0
        self._passes: list[Pass] = []
        self._last: Observation | None = None
        self._odds = _Odds(prediction, self._timeline)

    def before(self) -> Outlook:
        """Return what is to be expected at the request itself."""
        if self._prediction is None:
            return Outlook(0.0, None, UNKNOWN)
        total, first = self._prediction.total_time, self._prediction.preparation_time
        left = Interval(total.p10 + first.p10, total.p50 + first.p50, total.p90 + first.p90)
        return Outlook(0.0, left, self._prediction.completion_probability)

    def decided(self, action: Action) -> None:
        """Take in what is done to the move."""
        if isinstance(action, SetDowntimeLimit):
            self._limit = action.seconds
            self._odds.ease()

    def hear(self, event: Event) -> Outlook:
        """Take in what happened and return what is to be expected now."""
        if self._began is None:
            self._began = event.at
        match event:
            case PhaseChange():
                self._phase, self._entered = event.phase, event.at
            case Pass():
                self._passes.append(event)
                self._odds.hear(event)
            case Observation():
                self._last = event
        return self._outlook(event.at)

    def _outlook(self, at: float) -> Outlook:
        if self._phase in ENDS | {Phase.CANCELLING}:
            return Outlook(at, _NOTHING, float(self._phase is Phase.COMPLETED))
        if self._phase in {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}:
            return Outlook(at, self._pulling(), 1.0)
        if self._phase is Phase.SWITCHOVER:
            return Outlook(at, self._stopped(at), 1.0)
        return self._sending(at)

    def _pulling(self) -> Interval | None:
        last = self._last
        if last is None or last.bandwidth <= 0:
            return None
        return around(last.remaining / last.bandwidth, ERROR)

    def _stopped(self, at: float) -> Interval:
        """Return the seconds the stopped guest still needs: what it was set to, at the most."""
        foreseen = self._limit
        if self._prediction is not None:
            foreseen = self._prediction.downtime.p50
        left = max(foreseen - (at - self._entered), 0.0)
        return Interval(0.0, left, max(left, self._limit))

    def _sending(self, at: float) -> Outlook:
        seen, since = self._seen(at), at - (self._began or 0.0)
        ahead = self._timeline.left(seen) if self._timeline and seen else None
        error = ERROR
        if ahead is None and seen is not None:
            ahead, error = left_by_sight(seen), BLIND_ERROR
        ends = _weighed(self._timeline, since, ahead, error)
        chance = self._odds.probability
        if ends is None:
            return Outlook(at, None, chance)
        left = ends.left(since)
        in_time = ends.chance_by(self._deadline - (at - since), since)
        return Outlook(at, left, chance * in_time)

    def _seen(self, at: float) -> Seen | None:
        if not self._passes:
            return None
        began = self._began or 0.0
        bandwidth = self._last.bandwidth if self._last else 0.0
        return Seen(
            now=at - began,
            passes=tuple(replace(each, at=each.at - began) for each in self._passes),
            last=self._last and replace(self._last, at=self._last.at - began),
            threshold=bandwidth * self._limit,
        )


class _Odds:
    """The log odds that a move completes."""

    def __init__(self, prediction: Prediction | None, timeline: Timeline | None) -> None:
        told = prediction.completion_probability if prediction else UNKNOWN
        self._prior = _logit(min(max(told, 1 - CERTAIN), CERTAIN))
        self._timeline = timeline
        self._evidence = 0.0
        self._best: int | None = None
        self._counted = -math.inf

    @property
    def probability(self) -> float:
        """The chance, 0 to 1."""
        return 1 / (1 + math.exp(-self._prior - self._evidence))

    def hear(self, event: Pass) -> None:
        """Weigh the start of a pass."""
        if event.number == 1 or event.at - self._counted < _BURST:
            return
        self._counted = event.at
        best, met = self._best, self._timeline is None or not self._timeline.beyond(event, BEYOND)
        closer = best is None or event.remaining < best * (1 - IMPROVEMENT)
        if best is None:
            step = 0.0 if met else BEHIND
        elif closer:
            step = CLOSER if met else 0.0
        else:
            step = STUCK_AS_FORESEEN if met and self._timeline else STUCK
        if closer:
            self._best = event.remaining
        self._evidence = min(max(self._evidence + step, FARTHEST), CLOSEST)

    def ease(self) -> None:
        """Believe half of what speaks against completion: something was done about it."""
        self._evidence = max(self._evidence, self._evidence / 2)


@dataclass(frozen=True)
class _Ends:
    """When a move ends, in seconds since its memory's way began: a log-normal law."""

    middle: float
    error: float

    def left(self, since: float) -> Interval:
        """Return the seconds left, given that it has not ended after `since`."""
        gone = self._by(since)
        low, middle, high = (self._at(gone + q * (1 - gone)) - since for q in (0.1, 0.5, 0.9))
        return _roomy(low, middle, high)

    def chance_by(self, deadline: float, since: float) -> float:
        """Return the chance that it ends by a deadline, given that it has not after `since`."""
        gone = self._by(since)
        if deadline == math.inf or gone >= 1:
            return 1.0
        return min(max((self._by(deadline) - gone) / (1 - gone), 0.0), 1.0)

    def _by(self, time: float) -> float:
        return STANDARD.cdf((math.log(max(time, 1e-6)) - self.middle) / self.error)

    def _at(self, share: float) -> float:
        return math.exp(
            self.middle + self.error * STANDARD.inv_cdf(min(max(share, _TINY), 1 - _TINY))
        )


def _weighed(
    timeline: Timeline | None, since: float, ahead: float | None, error: float
) -> _Ends | None:
    """Return when a move ends, from its forecast and from the seconds seen to lie ahead."""
    foretold = None
    if timeline is not None:
        foretold = _Ends(math.log(timeline.total), max(timeline.spread, _SUREST))
    if ahead is None:
        return foretold
    total = max(since + ahead, 1e-3)
    seen = _Ends(math.log(total), max(error * ahead / total, _SUREST))
    if foretold is None:
        return seen
    # What an error of sight does not explain is an error of the forecast.
    apart = seen.middle - foretold.middle
    doubt = max(foretold.error, abs(apart) - seen.error)
    share = doubt**2 / (doubt**2 + seen.error**2)
    agreed = doubt**2 * seen.error**2 / (doubt**2 + seen.error**2)
    return _Ends(
        foretold.middle + share * apart, math.sqrt(agreed + share * (1 - share) * apart**2)
    )


def around(left: float, error: float) -> Interval:
    """Return seconds left with a relative error."""
    factor = math.exp(Z90 * error)
    return _roomy(left / factor, left, left * factor)


def _roomy(low: float, middle: float, high: float) -> Interval:
    middle = max(middle, 0.0)
    share, seconds = LEAST
    room = share * middle + seconds
    return Interval(max(0.0, min(low, middle - room)), middle, max(high, middle + room))


def _logit(chance: float) -> float:
    return math.log(chance / (1 - chance))

"""How wide bands must be, learnt from how far past moves lay outside of theirs.

    past prediction, what happened ──► score: distance from the middle, in half-widths
    scores of like moves ──► their 80 % quantile ──► factor on the next move's half-widths

What a survey cannot be unsure of, since it does not know it, shows only in the errors of moves
that are over. The factor is the one that would have made four of five past bands hold: the
quantile of locally weighted conformal scores (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman,
JASA 2018, section 5.2), moves by the same kind of tuning counting more than others. Medians stay
where they are: what was off on average is calibrate.py's to correct.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.prediction import Interval, Prediction, Stretch
from whimbrel.model.record import MoveFigures, MoveRecord

HELD = 0.8
"""Share of moves that lie between an honest p10 and p90."""

FEWEST = 4
"""Past moves from which anything is stretched; fewer say too little about a quantile of 80 %."""

ALIKE = 4.0
"""How many times as much a move by the same kind of tuning counts."""

GRAIN = 0.01
"""Relative half-width that is added to every drawn one before it is stretched: a band that was
drawn as a point could never be widened by a factor."""

GRAIN_SECONDS = 0.005
"""Likewise for downtime, in seconds: the period of the guest's heartbeat."""

NARROWEST, WIDEST = 0.5, 20.0
"""No factor lies beyond: few lucky moves shall not make a band a line, nor one bad one a wall."""


@dataclass(frozen=True)
class _Scale:
    """How far a value lies from a middle, and back.

    Attributes:
        grain: What is added to every half-width.
        distance: From the middle (first) to a value.
        at: The value that lies so far from the middle.
    """

    grain: float
    distance: Callable[[float, float], float]
    at: Callable[[float, float], float]


_RELATIVE = _Scale(
    GRAIN,
    lambda middle, value: math.log(value / middle),
    lambda middle, distance: middle * math.exp(distance),
)
_SECONDS = _Scale(
    GRAIN_SECONDS,
    lambda middle, value: value - middle,
    lambda middle, distance: max(0.0, middle + distance),
)


def stretch_for(records: Iterable[MoveRecord], tuning: Tuning) -> Stretch:
    """Return how the bands of a move with `tuning` should be stretched.

    Args:
        records: Moves between the same hosts that are over; those that did not complete or
            were not predicted say nothing.
        tuning: Of the move that is predicted.
    """
    past = [(each, each.prediction) for each in records if each.completed and each.prediction]
    weights = [ALIKE if _kind(each.tuning) == _kind(tuning) else 1.0 for each, _ in past]

    def factor(
        of: Callable[[Prediction], Interval],
        seen: Callable[[MoveFigures], float | None],
        stretched: Callable[[Stretch], float | None],
        scale: _Scale,
    ) -> float | None:
        scores = [
            (_score(of(said), value, stretched(said.stretch), scale), weight)
            for (record, said), weight in zip(past, weights, strict=True)
            if (value := seen(record.observed))
        ]
        return _quantile([(score, weight) for score, weight in scores if score is not None])

    return Stretch(
        total_time=factor(
            lambda said: said.total_time,
            lambda seen: seen.total_time,
            lambda done: done.total_time,
            _RELATIVE,
        ),
        downtime=factor(
            lambda said: said.downtime,
            lambda seen: seen.downtime,
            lambda done: done.downtime,
            _SECONDS,
        ),
        wire_bytes=factor(
            lambda said: said.wire_bytes,
            lambda seen: seen.wire_bytes,
            lambda done: done.wire_bytes,
            _RELATIVE,
        ),
    )


def stretched(prediction: Prediction, by: Stretch) -> Prediction:
    """Return a prediction as it was drawn, with its intervals stretched."""
    return replace(
        prediction,
        total_time=_wider(prediction.total_time, by.total_time, _RELATIVE),
        downtime=_wider(prediction.downtime, by.downtime, _SECONDS),
        wire_bytes=_wider(prediction.wire_bytes, by.wire_bytes, _RELATIVE),
        stretch=by,
    )


def _kind(tuning: Tuning) -> tuple[object, ...]:
    pulls = tuning.postcopy not in {Postcopy.NEVER, Postcopy.IF_STALLED}
    codec = tuning.compression and tuning.compression.codec
    return (
        pulls,
        tuning.channels is not None,
        codec,
        tuning.as_qemu_comes,
        tuning.throttling,
        tuning.xbzrle_cache is not None,
        tuning.transport,
    )


def _score(said: Interval, value: float, done: float | None, scale: _Scale) -> float | None:
    """Return how many drawn half-widths a value lay from the middle; None: it cannot be told.

    Args:
        said: The interval as it was said.
        value: What happened.
        done: The factor that was applied to it then.
        scale: How distances are measured.
    """
    if scale is _RELATIVE and min(said.p10, said.p50, value) <= 0:
        return None
    off = scale.distance(said.p50, value)
    edge = said.p90 if off > 0 else said.p10
    width = abs(scale.distance(said.p50, edge))
    if done is not None:
        width = max(0.0, width / done - scale.grain)
    return abs(off) / (width + scale.grain)


def _quantile(scores: Sequence[tuple[float, float]]) -> float | None:
    """Return the weighted quantile that `HELD` of the next scores lie below, within limits."""
    if len(scores) < FEWEST:
        return None
    # The next move counts as one more that may lie anywhere: hence the total, and infinity.
    wanted = HELD * (sum(weight for _, weight in scores) + ALIKE)
    reached = 0.0
    for score, weight in sorted(scores):
        reached += weight
        if reached >= wanted:
            return min(max(score, NARROWEST), WIDEST)
    worst = max(score for score, _ in scores)
    return min(max(worst, NARROWEST), WIDEST)


def _wider(drawn: Interval, factor: float | None, scale: _Scale) -> Interval:
    if factor is None or (scale is _RELATIVE and drawn.p10 <= 0):
        return drawn
    low, high = (abs(scale.distance(drawn.p50, edge)) for edge in (drawn.p10, drawn.p90))
    return Interval(
        scale.at(drawn.p50, -factor * (low + scale.grain)),
        drawn.p50,
        scale.at(drawn.p50, factor * (high + scale.grain)),
    )

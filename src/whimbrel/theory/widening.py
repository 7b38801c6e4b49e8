"""How much wider bands must be than they are drawn, learnt from the errors of past moves.

    past prediction, what happened ──► how far beyond its drawn edge
    like moves' distances ──► their 80 % quantile ──► added to the next move's half-widths

A survey cannot be unsure of what it does not know; that shows only in the errors of moves that
are over. Such an error is independent of what the draws are unsure of, so it is added as
variances are: half-width² = drawn² + unseen². (Multiplied, a narrow band that missed by little
would turn a wide one into nonsense.) Where most moves stay well within their bands, these are
too wide, and a share is taken off. Both are one family of nested intervals, and the quantile is
that of split conformal prediction for it (Gupta, Kuchibhotla and Ramdas, Pattern Recognition
2022), like moves counting more. Medians stay where they are: what was off on average is
calibrate.py's to correct.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.prediction import Interval, Prediction, Widening
from whimbrel.model.record import MoveFigures, MoveRecord

HELD = 0.8
"""Share of moves that lie between an honest p10 and p90."""

FEWEST = 4
"""Past moves from which anything is learnt; fewer say too little about a quantile of 80 %."""

ALIKE = 4.0
"""How many times as much a move by the same kind of tuning counts."""

NARROWEST = -0.5
"""No more is taken off a half-width than this share: few lucky moves shall not make a line."""


@dataclass(frozen=True)
class _Scale:
    """How far a value lies from a middle, and back.

    Attributes:
        distance: From the middle (first) to a value.
        at: The value that lies so far from the middle.
        positive: Whether it speaks of values above 0 only.
    """

    distance: Callable[[float, float], float]
    at: Callable[[float, float], float]
    positive: bool


_RELATIVE = _Scale(
    lambda middle, value: math.log(value / middle),
    lambda middle, distance: middle * math.exp(distance),
    positive=True,
)
_SECONDS = _Scale(
    lambda middle, value: value - middle,
    lambda middle, distance: max(0.0, middle + distance),
    positive=False,
)


def widening_for(records: Iterable[MoveRecord], tuning: Tuning) -> Widening:
    """Return how much wider the bands of a move with `tuning` should be than they are drawn.

    Args:
        records: Moves between the same hosts that are over; those that did not complete or
            were not predicted say nothing.
        tuning: Of the move that is predicted.
    """
    past = [(each, each.prediction) for each in records if each.completed and each.prediction]
    weights = [ALIKE if _kind(each.tuning) == _kind(tuning) else 1.0 for each, _ in past]

    def learnt(
        of: Callable[[Prediction], Interval],
        seen: Callable[[MoveFigures], float | None],
        done: Callable[[Widening], float | None],
        scale: _Scale,
    ) -> float | None:
        beyond = [
            (_beyond(of(said), value, done(said.widened), scale), weight)
            for (record, said), weight in zip(past, weights, strict=True)
            if (value := seen(record.observed))
        ]
        return _quantile([(each, weight) for each, weight in beyond if each is not None])

    return Widening(
        total_time=learnt(
            lambda said: said.total_time,
            lambda seen: seen.total_time,
            lambda done: done.total_time,
            _RELATIVE,
        ),
        downtime=learnt(
            lambda said: said.downtime,
            lambda seen: seen.downtime,
            lambda done: done.downtime,
            _SECONDS,
        ),
        wire_bytes=learnt(
            lambda said: said.wire_bytes,
            lambda seen: seen.wire_bytes,
            lambda done: done.wire_bytes,
            _RELATIVE,
        ),
    )


def widened(prediction: Prediction, by: Widening) -> Prediction:
    """Return a prediction as it was drawn, with its intervals made wider or narrower."""
    return replace(
        prediction,
        total_time=_changed(prediction.total_time, by.total_time, _RELATIVE),
        downtime=_changed(prediction.downtime, by.downtime, _SECONDS),
        wire_bytes=_changed(prediction.wire_bytes, by.wire_bytes, _RELATIVE),
        widened=by,
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


def _beyond(said: Interval, value: float, done: float | None, scale: _Scale) -> float | None:
    """Return the least widening that would have held a value; None: it cannot be told.

    Args:
        said: The interval as it was said.
        value: What happened.
        done: The widening that was applied to it then.
        scale: How distances are measured.
    """
    if scale.positive and min(said.p10, said.p50, value) <= 0:
        return None
    off = scale.distance(said.p50, value)
    edge = said.p90 if off > 0 else said.p10
    drawn = _as_drawn(abs(scale.distance(said.p50, edge)), done)
    off = abs(off)
    if off > drawn:
        return math.sqrt(off**2 - drawn**2)
    return off / drawn - 1 if drawn > 0 else 0.0


def _made(width: float, by: float) -> float:
    return math.hypot(width, by) if by >= 0 else width * (1 + by)


def _as_drawn(width: float, done: float | None) -> float:
    """Undo `_made`."""
    if done is None:
        return width
    return math.sqrt(max(0.0, width**2 - done**2)) if done >= 0 else width / (1 + done)


def _quantile(beyond: Sequence[tuple[float, float]]) -> float | None:
    """Return the weighted quantile that holds `HELD` of the moves to come."""
    if len(beyond) < FEWEST:
        return None
    ordered = sorted(beyond)
    reached = list(accumulate(weight for _, weight in ordered))
    # The move to come is one more, of its own kind, and may be worse than all before it. Counted
    # whole it is never too little; on average half of it is right (smoothed conformal prediction:
    # Vovk, Gammerman and Shafer 2005, 2.2). Of the moves of two suites, replayed, bands held 77 to
    # 83 % without it, 80 to 87 % with half, 85 to 89 % with all of it.
    most = HELD * (reached[-1] + ALIKE / 2)
    return max(ordered[min(bisect_left(reached, most), len(ordered) - 1)][0], NARROWEST)


def _changed(drawn: Interval, by: float | None, scale: _Scale) -> Interval:
    if by is None or (scale.positive and drawn.p10 <= 0):
        return drawn
    low, high = (abs(scale.distance(drawn.p50, edge)) for edge in (drawn.p10, drawn.p90))
    return Interval(
        scale.at(drawn.p50, -_made(low, by)), drawn.p50, scale.at(drawn.p50, _made(high, by))
    )

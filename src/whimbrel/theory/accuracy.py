"""How good the predictions of stored moves were: `score` over records instead of lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whimbrel.model.method import Method
from whimbrel.model.prediction import Interval, Prediction
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.theory.score import Errors, Verdicts, absolute_errors, coverage, relative_errors

Pick = tuple[Callable[[Prediction], Interval], Callable[[MoveFigures], float | None]]


@dataclass(frozen=True)
class Figure:
    """How one figure was predicted.

    Attributes:
        errors: Errors of the middle draw.
        coverage: Share of moves within p10 to p90, 0 to 1; 0.8 where intervals are honest.
    """

    errors: Errors
    coverage: float


@dataclass(frozen=True)
class Accuracy:
    """How a set of moves was predicted; None where no move tells.

    Attributes:
        moves: How many were predicted and tell something.
        total_time: Relative errors.
        wire_bytes: Relative errors.
        downtime: Absolute errors, in seconds.
        verdicts: How plans' verdicts met what happened.
    """

    moves: int
    total_time: Figure | None
    wire_bytes: Figure | None
    downtime: Figure | None
    verdicts: Verdicts


TOTAL_TIME: Pick = (lambda said: said.total_time, lambda seen: seen.total_time)
WIRE_BYTES: Pick = (lambda said: said.wire_bytes, lambda seen: seen.wire_bytes)
DOWNTIME: Pick = (lambda said: said.downtime, lambda seen: seen.downtime)


def accuracy(records: Sequence[MoveRecord]) -> Accuracy:
    """Return how well moves were predicted; errors are of those that completed."""
    predicted = [each for each in records if each.prediction and each.completed is not None]
    return Accuracy(
        moves=len(predicted),
        total_time=_figure(predicted, TOTAL_TIME, relative_errors),
        wire_bytes=_figure(predicted, WIRE_BYTES, relative_errors),
        downtime=_figure(predicted, DOWNTIME, absolute_errors),
        verdicts=_verdicts(predicted),
    )


def by_method(records: Sequence[MoveRecord]) -> dict[Method, Accuracy]:
    """Return the accuracy of each method that was predicted at least once."""
    found = {method: accuracy([r for r in records if r.method is method]) for method in Method}
    return {method: each for method, each in found.items() if each.moves}


def _figure(
    records: Sequence[MoveRecord],
    pick: Pick,
    measure: Callable[[Sequence[float], Sequence[float]], Errors],
) -> Figure | None:
    said, seen = pick
    pairs = [
        (said(each.prediction), value)
        for each in records
        if each.prediction and each.completed and (value := seen(each.observed))
    ]
    if not pairs:
        return None
    intervals, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Figure(measure([each.p50 for each in intervals], values), coverage(intervals, values))


def _verdicts(records: Sequence[MoveRecord]) -> Verdicts:
    """Count by the plan's verdict, which may be more careful than the prediction's."""
    met = [each.verdict_met for each in records if each.verdict is not None]
    right, wrong = met.count(True), met.count(False)
    return Verdicts(right, wrong, len(met) - right - wrong)

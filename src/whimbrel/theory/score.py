"""How good predictions were over a set of moves: errors, coverage and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whimbrel.errors import ConfigError
from whimbrel.model.prediction import Interval, Prediction, Verdict
from whimbrel.theory.arrays import Floats


@dataclass(frozen=True)
class Errors:
    """The size of errors over a set of moves, signs left out.

    Attributes:
        count: How many moves.
        median: Half of the errors are at most this.
        p90: Nine tenths are.
        worst: All are.
    """

    count: int
    median: float
    p90: float
    worst: float


@dataclass(frozen=True)
class Verdicts:
    """How verdicts met what happened.

    Attributes:
        right: GO that completed, and REFUSE that did not.
        wrong: The other way round.
        borderline: Neither was promised.
    """

    right: int
    wrong: int
    borderline: int

    @property
    def accuracy(self) -> float | None:
        """Right over promised, 0 to 1; None where nothing was promised."""
        promised = self.right + self.wrong
        return self.right / promised if promised else None


def relative_errors(predicted: Sequence[float], actual: Sequence[float]) -> Errors:
    """Return errors as shares of what happened; for time and bytes.

    Raises:
        ConfigError: There are no pairs, unequally many, or something took no time.
    """
    guess, truth = _paired(predicted, actual)
    if (truth == 0).any():
        raise ConfigError("A relative error needs figures other than 0.")
    return _errors(np.abs(guess - truth) / np.abs(truth))


def absolute_errors(predicted: Sequence[float], actual: Sequence[float]) -> Errors:
    """Return errors in the figures' own unit; for downtime.

    Raises:
        ConfigError: There are no pairs, or unequally many.
    """
    guess, truth = _paired(predicted, actual)
    return _errors(np.abs(guess - truth))


def coverage(intervals: Sequence[Interval], actual: Sequence[float]) -> float:
    """Return the share of values within their p10 to p90; 0.8 where intervals are honest.

    Raises:
        ConfigError: There are no pairs, or unequally many.
    """
    if not intervals or len(intervals) != len(actual):
        raise ConfigError("Coverage needs as many values as intervals, and at least one.")
    return sum(i.holds(v) for i, v in zip(intervals, actual, strict=True)) / len(actual)


def verdicts(predictions: Sequence[Prediction], completed: Sequence[bool]) -> Verdicts:
    """Count how often the verdict said what happened."""
    right = wrong = 0
    for prediction, done in zip(predictions, completed, strict=True):
        if prediction.verdict is Verdict.BORDERLINE:
            continue
        met = done == (prediction.verdict is Verdict.GO)
        right, wrong = right + met, wrong + (not met)
    return Verdicts(right, wrong, len(predictions) - right - wrong)


def _paired(predicted: Sequence[float], actual: Sequence[float]) -> tuple[Floats, Floats]:
    if not predicted or len(predicted) != len(actual):
        raise ConfigError("Errors need as many predictions as outcomes, and at least one.")
    return np.array(predicted, dtype=np.float64), np.array(actual, dtype=np.float64)


def _errors(sizes: Floats) -> Errors:
    median, p90 = np.percentile(sizes, [50, 90])
    return Errors(len(sizes), float(median), float(p90), float(sizes.max()))

"""Which candidate to take: the safe ones first, then the best by what a person asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel.model.method import Method, Postcopy
from whimbrel.model.plan import Forecast, Goal, Rejection, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.model.units import format_time

CLOSE = 0.05
"""Share within which two candidates count as equally good; the simpler one then wins."""

_ORDER = list(Method)


@dataclass(frozen=True)
class Choice:
    """What to do, and what was decided against.

    Attributes:
        ranking: Everything that keeps the wish, best first; empty where nothing does.
        rejected: The rest, with reasons.
    """

    ranking: tuple[Forecast, ...]
    rejected: tuple[Rejection, ...]

    @property
    def best(self) -> Forecast | None:
        """What to do; None where nothing keeps the wish."""
        return self.ranking[0] if self.ranking else None


def choose(forecasts: Sequence[Forecast], wish: Wish) -> Choice:
    """Rank candidates by a wish.

    A candidate that may not complete never comes before one that will. Within that, what the
    goal names decides, and where it is close, the simpler method.
    """
    reasons = {id(each): _against(each, wish) for each in forecasts}
    kept = [each for each in forecasts if not reasons[id(each)]]
    rejected = tuple(
        Rejection(each.candidate.method, reasons[id(each)])
        for each in forecasts
        if reasons[id(each)]
    )
    sure = [each for each in kept if each.prediction.verdict is Verdict.GO]
    unsure = [each for each in kept if each.prediction.verdict is not Verdict.GO]
    return Choice((*_ranked(sure, wish), *_ranked(unsure, wish)), rejected)


def _against(forecast: Forecast, wish: Wish) -> str:
    """Return why a candidate does not keep the wish; empty where it does."""
    prediction = forecast.prediction
    late = prediction.preparation_time.p90 + prediction.total_time.p90
    if prediction.verdict is Verdict.REFUSE:
        done = prediction.completion_probability
        return f"completes within {format_time(prediction.deadline)} with probability {done:.2f}"
    if forecast.candidate.tuning.postcopy is not Postcopy.NEVER and not wish.postcopy:
        return "post-copy is not allowed: a failure would lose the guest"
    if prediction.downtime.p90 > wish.downtime:
        return (
            f"stands still for up to {format_time(prediction.downtime.p90)}, "
            f"more than {format_time(wish.downtime)}"
        )
    if late > wish.total_time:
        return f"takes up to {format_time(late)}, more than {format_time(wish.total_time)}"
    return ""


def _ranked(forecasts: Sequence[Forecast], wish: Wish) -> list[Forecast]:
    ranking: list[Forecast] = []
    left = sorted(forecasts, key=lambda each: _figure(each, wish))
    while left:
        best = _figure(left[0], wish)
        close = [each for each in left if _figure(each, wish) <= best * (1 + CLOSE)]
        first = min(close, key=lambda each: _ORDER.index(each.candidate.method))
        ranking.append(first)
        left.remove(first)
    return ranking


def _figure(forecast: Forecast, wish: Wish) -> float:
    prediction = forecast.prediction
    match wish.goal:
        case Goal.FASTEST:
            return forecast.wall_time
        case Goal.LEAST_DOWNTIME:
            return prediction.downtime.p50
        case Goal.LEAST_CPU:
            return prediction.source_cpu_seconds.p50 + prediction.destination_cpu_seconds.p50
        case Goal.LEAST_TRAFFIC:
            return prediction.wire_bytes.p50

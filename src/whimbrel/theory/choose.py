"""Which candidate to take: the safe ones first, then the best by what a person asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel.model.method import Method, Postcopy
from whimbrel.model.plan import Forecast, Goal, Rejection, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.model.units import format_link, format_time
from whimbrel.theory.rules import DEFAULT_BANDWIDTH_LIMIT
from whimbrel.theory.windows import least_sent, too_low

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
    kept: list[Forecast] = []
    rejected: list[Rejection] = []
    for each in forecasts:
        reason = against(each, wish)
        if reason:
            rejected.append(Rejection(each.candidate.method, reason, each))
        else:
            kept.append(each)
    sure = [each for each in kept if each.prediction.verdict is Verdict.GO]
    unsure = [each for each in kept if each.prediction.verdict is not Verdict.GO]
    return Choice((*_ranked(sure, wish), *_ranked(unsure, wish)), tuple(rejected))


def against(forecast: Forecast, wish: Wish) -> str:
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
    return _too_dear(forecast, wish)


def busy_cores(forecast: Forecast) -> tuple[float, float]:
    """Return the cores that a candidate keeps busy at the source and at the destination.

    Those of the middle draw, on average over the move; preparing memory before it may keep
    more of the destination's busy.
    """
    tuning, prediction = forecast.candidate.tuning, forecast.prediction
    lasts = max(prediction.total_time.p50, 1e-9)
    preparing = 0.0
    if tuning.prepared_memory is not None and prediction.preparation_time.p50 > 0:
        preparing = float(tuning.prepared_memory.threads)
    there = prediction.destination_cpu_seconds.p50 / lasts
    return prediction.source_cpu_seconds.p50 / lasts, max(there, preparing)


def _too_dear(forecast: Forecast, wish: Wish) -> str:
    """Return why a candidate takes more of the hosts or of the link than the wish allows."""
    budget, allowed = wish.cpu_budget, wish.bandwidth_limit
    for side, cores in zip(("source", "destination"), busy_cores(forecast), strict=True):
        if budget is not None and cores > budget:
            return f"keeps {cores:.1f} cores of the {side} busy, more than {budget:g}"
    tuning = forecast.candidate.tuning
    sends = DEFAULT_BANDWIDTH_LIMIT if tuning.as_qemu_comes else tuning.bandwidth_limit
    if allowed is not None and (sends is None or sends > allowed):
        most = "as much as the link carries" if sends is None else format_link(sends)
        return f"may send {most}, more than {format_link(allowed)}"
    if sends is not None and too_low(sends, tuning.channels):
        least = format_link(least_sent(tuning.channels))
        return f"{tuning.channels} channels hold no limit below {least}"
    return ""


def _ranked(forecasts: Sequence[Forecast], wish: Wish) -> list[Forecast]:
    ranking: list[Forecast] = []
    left = sorted(forecasts, key=lambda each: figure(each, wish.goal))
    while left:
        best = figure(left[0], wish.goal)
        close = [each for each in left if figure(each, wish.goal) <= best * (1 + CLOSE)]
        first = min(close, key=_intricacy)
        ranking.append(first)
        left.remove(first)
    return ranking


def _intricacy(forecast: Forecast) -> tuple[int, bool, bool]:
    """Return what to prefer of two that are equally good, the least first.

    The simpler method; then what leaves the guest alone; then what can still go over to
    post-copy on its way.
    """
    method, tuning = forecast.candidate.method, forecast.candidate.tuning
    return _ORDER.index(method), tuning.throttling, tuning.postcopy is Postcopy.NEVER


def figure(forecast: Forecast, goal: Goal) -> float:
    """Return what a goal wants small, of the middle draw: seconds, CPU seconds or bytes."""
    prediction = forecast.prediction
    match goal:
        case Goal.FASTEST:
            return forecast.wall_time
        case Goal.LEAST_DOWNTIME:
            return prediction.downtime.p50
        case Goal.LEAST_CPU:
            return prediction.source_cpu_seconds.p50 + prediction.destination_cpu_seconds.p50
        case Goal.LEAST_TRAFFIC:
            return prediction.wire_bytes.p50

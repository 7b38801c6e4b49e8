"""A choice in words: what will be done, what it will cost, and why nothing else."""

from whimbrel.model.plan import Forecast
from whimbrel.model.prediction import Interval, Verdict
from whimbrel.model.units import format_size, format_time
from whimbrel.theory.choose import Choice


def explain(choice: Choice) -> tuple[str, ...]:
    """Return the choice in sentences, the most important first."""
    rejections = tuple(f"Not {each.method}: {each.reason}." for each in choice.rejected)
    if choice.best is None:
        return ("No way to move this guest keeps the wish.", *rejections)
    others = tuple(
        f"Next would be {each.candidate.method}: {_figures(each)}." for each in choice.ranking[1:2]
    )
    return (*_best(choice.best), *others, *rejections)


def _best(forecast: Forecast) -> tuple[str, ...]:
    prediction = forecast.prediction
    lines = [f"Move with {forecast.candidate.method}: {_figures(forecast)}."]
    if prediction.verdict is Verdict.BORDERLINE:
        done = prediction.completion_probability
        lines.append(
            f"It completes within {format_time(prediction.deadline)} "
            f"with probability {done:.2f} only."
        )
    if prediction.throttle.p50 > 0:
        lines.append(f"The guest will be throttled, by {prediction.throttle.p50:.0%} at worst.")
    if prediction.preparation_time.p50 > 0:
        lines.append(
            f"Preparing the destination's memory takes "
            f"{format_time(prediction.preparation_time.p50)} before that."
        )
    return tuple(lines)


def _figures(forecast: Forecast) -> str:
    prediction = forecast.prediction
    sent = prediction.wire_bytes
    return (
        f"{_time(prediction.total_time)} in all, {_time(prediction.downtime)} of downtime, "
        f"{format_size(sent.p50)} on the wire"
    )


def _time(seconds: Interval) -> str:
    return f"{format_time(seconds.p50)} ({format_time(seconds.p10)} to {format_time(seconds.p90)})"

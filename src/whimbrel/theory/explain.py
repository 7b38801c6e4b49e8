"""A plan in words: what will be done, why nothing else, and how it is sure to end."""

import math

from whimbrel.model.method import Compression, Method, Postcopy
from whimbrel.model.plan import Candidate, Certificate, Forecast, Goal, Plan, Rung
from whimbrel.model.units import format_size, format_time
from whimbrel.theory.choose import figure


def reasons(plan: Plan) -> tuple[str, ...]:
    """Say what the first of a plan will do, then the best of every other method, or why not it."""
    best = plan.chosen
    told = ["nothing keeps the wish" if best is None else _reason(best)]
    seen = {each.candidate.method for each in plan.ranking[:1]}
    for each in plan.ranking[1:]:
        if each.candidate.method not in seen:
            seen.add(each.candidate.method)
            told.append(_reason(each))
    for no in plan.rejected:
        if no.method not in seen:
            seen.add(no.method)
            told.append(f"not {no.method}: {no.reason}")
    return tuple(told)


def ladder(certificate: Certificate | None) -> tuple[str, ...]:
    """Say what each rung of a certificate is, and what it guarantees; nothing without one."""
    return () if certificate is None else tuple(_rung(each) for each in certificate.rungs)


def described(candidate: Candidate) -> str:
    """Name a candidate with what sets it apart: "multichannel, 4 channels, memory prepared"."""
    tuning = candidate.tuning
    words = {
        f"{candidate.method}": True,
        f"{tuning.channels} channels": tuning.channels is not None,
        f"{_codec(tuning.compression)}": tuning.compression is not None,
        "over all NICs": tuning.multipath and candidate.method is not Method.MULTINIC,
        "throttling": tuning.throttling,
        "memory prepared": tuning.prepared_memory is not None,
        "all memory pinned": tuning.pin_all,
        "without copying": tuning.zero_copy,
        "free page hints": tuning.free_page_hints,
        "ready for post-copy": tuning.postcopy is Postcopy.IF_STALLED,
    }
    return ", ".join(word for word, holds in words.items() if holds)


def measured(forecast: Forecast, goal: Goal) -> str:
    """Return in words what a goal wants small, of one candidate: "12 s", "1.2 GiB"."""
    value = figure(forecast, goal)
    match goal:
        case Goal.FASTEST:
            return format_time(value)
        case Goal.LEAST_DOWNTIME:
            return f"{format_time(value)} of downtime"
        case Goal.LEAST_CPU:
            return f"{value:.1f} s of CPU"
        case Goal.LEAST_TRAFFIC:
            return f"{format_size(value)} on the wire"


def _reason(forecast: Forecast) -> str:
    prediction = forecast.prediction
    time = f"{format_time(forecast.wall_time)}, frozen {format_time(prediction.downtime.p50)}"
    slowed = prediction.throttle.p50
    throttled = f", guest slowed by up to {slowed:.0%}" if slowed > 0 else ""
    done = f"completes {prediction.completion_probability:.0%}"
    return f"{described(forecast.candidate)}: {time}{throttled}, {done}"


def _codec(compression: Compression | None) -> str:
    return f"{compression.codec}:{compression.level}" if compression else ""


def _rung(rung: Rung) -> str:
    when = "" if rung.action is None else f" by {format_time(rung.latest)} at the latest"
    if not math.isfinite(rung.total_time):
        return f"{rung.step}{when}: {rung.reason}"
    bounds = f"{format_time(rung.total_time)} in all, {format_time(rung.downtime)} of downtime"
    if rung.guaranteed:
        return f"{rung.step}{when}: guaranteed, at most {bounds}"
    if rung.probability > 0:
        return f"{rung.step}{when}: {rung.probability:.0%} likely, within {bounds}"
    return f"{rung.step}{when}: not guaranteed: {rung.reason}"

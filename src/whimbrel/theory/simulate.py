"""What a move will do: one course of events, or the spread of many.

`simulate` takes the survey at its best estimate and returns a `Course`; `predict` draws from
its uncertainty and returns a `Prediction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.memory import Survey
from whimbrel.model.method import Tuning
from whimbrel.model.migration import (
    Action,
    Cancel,
    Observation,
    SetBandwidthLimit,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.prediction import Course, Interval, PassBand, Prediction, verdict_for
from whimbrel.theory.arrays import Floats
from whimbrel.theory.draws import draw
from whimbrel.theory.job import Job
from whimbrel.theory.rates import Costs
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.trace import Trace, ending_of, passes_of, phases_of
from whimbrel.theory.walk import Walk

DEADLINE = 600.0
"""Seconds a simulated move is given unless told otherwise."""

BAND_FROM = 0.1
"""Share of the draws that must reach a pass for it to appear in the band."""


@dataclass(frozen=True)
class Haste:
    """The guest writes so many times as fast as until then; nobody decides it."""

    factor: float


@dataclass(frozen=True)
class Change:
    """What befalls a simulated move.

    Attributes:
        at: Seconds since the request.
        action: What is done to it, or what its guest does from then on.
    """

    at: float
    action: Action | Haste


def simulate(
    survey: Survey,
    tuning: Tuning,
    rules: QemuRules | None = None,
    *,
    deadline: float = DEADLINE,
    changes: Sequence[Change] = (),
    patient: bool = False,
    controlled: bool = True,
) -> Course:
    """Simulate one move at the survey's best estimate.

    Args:
        survey: Guest, link and hosts.
        tuning: How it is moved.
        rules: The QEMU that moves it; the default rules are those of 10.0 on KVM.
        deadline: Seconds after which it is given up.
        changes: What is done to it on the way, in the order of time. Two simulations with
            the same beginning of changes are equal up to the first that differs.
        patient: Walk every pass to the deadline even where the move makes no progress;
            otherwise its last passes are extrapolated and not listed.
        controlled: Whether the convergence control starts post-copy, as in a real move.
    """
    survey = survey.along(tuning)
    job = Job(survey, tuning, rules or QemuRules(), deadline, controlled)
    walk = Walk(job, draw(survey, tuning), lambda count: np.full(count, 0.5), patient=patient)
    costs = walk.costs
    trace = Trace()
    pending = list(changes)
    cancelled = _play(walk, pending, trace)
    bends = [
        (change.at, walk.repace_postcopy(change.at, change.action.rate))
        for change in pending
        if isinstance(change.action, SetBandwidthLimit) and walk.pulling is not None
    ]
    ending = ending_of(walk, trace.points, bends)
    return _course(walk, costs, (*trace.points, *ending), cancelled)


def _play(walk: Walk, pending: list[Change], trace: Trace) -> float | None:
    """Walk to the end of pre-copy, taking what befalls it from `pending`.

    Returns:
        When the move was cancelled; None if it was not.
    """
    trace.note(walk)
    while len(walk.active):
        until = pending[0].at if pending else np.inf
        trace.go(walk, until)
        if pending and len(walk.active) and walk.scan.clock[0] >= until:
            action = pending.pop(0).action
            if isinstance(action, Cancel):
                return walk.cancel()
            _apply(walk, action)
            trace.note(walk)
    return None


def _apply(walk: Walk, action: Action | Haste) -> None:
    if isinstance(action, Haste):
        walk.draws = replace(walk.draws, rates=walk.draws.rates * action.factor)
        walk.layout = replace(walk.layout, rates=walk.layout.rates * action.factor)
    elif isinstance(action, SetDowntimeLimit):
        walk.downtime_limit = action.seconds
    elif isinstance(action, SetBandwidthLimit):
        walk.limit = action.rate
    elif isinstance(action, StartPostcopy):
        walk.start_postcopy(np.ones(len(walk.active), dtype=np.bool_))


def predict(
    survey: Survey,
    tuning: Tuning,
    rules: QemuRules | None = None,
    *,
    generator: np.random.Generator,
    deadline: float = DEADLINE,
    draws: int = 200,
) -> Prediction:
    """Predict one move: percentiles over draws from the survey's uncertainty.

    Args:
        survey: Guest, link and hosts, with their uncertainties.
        tuning: How it is moved.
        rules: The QEMU that moves it; the default rules are those of 10.0 on KVM.
        generator: The only source of randomness.
        deadline: Seconds after which a draw counts as not completed.
        draws: How many.
    """
    survey = survey.along(tuning)
    job = Job(survey, tuning, rules or QemuRules(), deadline)
    sample = draw(survey, tuning, generator, draws)
    walk = Walk(job, sample, generator.random)
    costs = walk.costs
    while len(walk.active):
        walk.step()
    fates = walk.fates
    share = float(fates.completed.mean())
    counted = fates.completed if fates.completed.any() else np.ones(draws, dtype=np.bool_)
    source = fates.normal * costs.source_cpu + fates.zero * costs.zero_cpu
    destination = fates.normal * costs.destination_cpu

    def of(values: Floats) -> Interval:
        return interval(values[counted])

    return Prediction(
        tuning=tuning,
        deadline=deadline,
        completion_probability=share,
        verdict=verdict_for(share),
        total_time=of(fates.total),
        downtime=of(fates.downtime),
        wire_bytes=of(fates.wire * (1 + sample.headers)),
        passes=of(fates.passes),
        throttle=of(fates.throttle),
        source_cpu_seconds=of(source),
        destination_cpu_seconds=of(destination),
        preparation_time=of(preparation(survey, tuning) * sample.destination_cost),
        fault_seconds=of(fates.waiting),
        band=_band(walk, draws),
    )


def interval(values: Floats) -> Interval:
    """Return the 10th, 50th and 90th percentile of at least one value."""
    low, middle, high = np.percentile(values, [10, 50, 90])
    return Interval(float(low), float(middle), float(high))


def preparation(survey: Survey, tuning: Tuning) -> float:
    """Return the seconds until the destination listens, its memory touched where asked for."""
    there = survey.destination
    if tuning.prepared_memory is None:
        return there.start_seconds
    threads = min(tuning.prepared_memory.threads, max(1.0, there.spare_cores))
    return there.start_seconds + survey.memory.pages * there.touch_seconds / threads


def _band(walk: Walk, draws: int) -> tuple[PassBand, ...]:
    # A draw's last pass, that of the stopped guest, stands at the number it had for it.
    numbers = sorted({entry.number for entry in walk.log})
    band = []
    for number in numbers:
        entries = [entry for entry in walk.log if entry.number == number]
        at = np.concatenate([entry.at for entry in entries])
        remaining = np.concatenate([entry.remaining for entry in entries])
        if len(at) >= BAND_FROM * draws:
            share = min(1.0, len(at) / draws)
            band.append(PassBand(number, share, interval(at), interval(remaining)))
    return tuple(band)


def _course(
    walk: Walk, costs: Costs, trace: tuple[Observation, ...], cancelled: float | None
) -> Course:
    fates = walk.fates
    normal, zero = float(fates.normal[0]), float(fates.zero[0])
    return Course(
        completed=bool(fates.completed[0]),
        total_time=float(fates.total[0]),
        downtime=float(fates.downtime[0]),
        downtime_reported=float(fates.reported[0]),
        wire_bytes=round(fates.wire[0]),
        counted_bytes=round(fates.counted[0]),
        normal_pages=round(normal),
        zero_pages=round(zero),
        passes=passes_of(walk),
        phases=phases_of(walk, cancelled),
        throttle=float(fates.throttle[0]),
        source_cpu_seconds=float(normal * costs.source_cpu[0] + zero * costs.zero_cpu[0]),
        destination_cpu_seconds=float(normal * costs.destination_cpu[0]),
        preparation_time=preparation(walk.job.survey, walk.job.tuning),
        fault_seconds=float(fates.waiting[0]),
        trace=trace,
    )

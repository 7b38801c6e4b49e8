"""Past moves for the tests of what is learnt from them, kept and shown."""

from dataclasses import replace

import numpy as np

from unit.theory.guests import KVM, still_guest
from whimbrel.model.memory import Survey
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Verdict
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.model.units import GIB
from whimbrel.theory.simulate import predict, simulate

SURVEY = still_guest(0.25, link=2.5e8, memory=GIB)


def moved(
    at: float = 1000.0,
    *,
    method: Method = Method.TCP,
    survey: Survey = SURVEY,
    truth: Survey | None = None,
    ending: Ending = Ending.COMPLETED,
    verdict: Verdict | None = Verdict.GO,
) -> MoveRecord:
    """Return a move of hosts that are as `truth` says, surveyed as `survey` says."""
    tuning = tuning_for(method, Settings())
    course = simulate(truth or survey, tuning, KVM)
    observed = MoveFigures(
        total_time=course.total_time,
        downtime=course.downtime,
        downtime_reported=course.downtime_reported,
        wire_bytes=course.wire_bytes,
        normal_pages=course.normal_pages,
        source_cpu_seconds=course.source_cpu_seconds,
        destination_cpu_seconds=course.destination_cpu_seconds,
    )
    prediction = predict(survey, tuning, KVM, generator=np.random.default_rng(1), draws=20)
    return MoveRecord(
        began=at - 10,
        ended=at,
        source="a",
        destination="b",
        vm="guest",
        method=method,
        tuning=tuning,
        ending=ending,
        observed=observed if ending is Ending.COMPLETED else MoveFigures(),
        survey=survey,
        prediction=prediction,
        verdict=verdict,
    )


def seen(record: MoveRecord, **figures: float | None) -> MoveRecord:
    """Return a record with some of its observed figures changed."""
    return replace(record, observed=replace(record.observed, **figures))  # type: ignore[arg-type]

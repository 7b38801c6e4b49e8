"""Past moves for the tests of what is learnt from them, kept and shown."""

from dataclasses import replace

import numpy as np

from unit.theory.guests import KVM, still_guest
from whimbrel.model.memory import Survey
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Interval, Verdict
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.model.storage import CopyMode, DiskCopied, StorageCopied, StoragePrediction
from whimbrel.model.units import GIB, MIB
from whimbrel.theory.simulate import predict, simulate
from whimbrel.theory.storage import BEGINNING

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


def copied(
    said: float,
    took: float | None,
    *,
    at: float = 1000.0,
    pace: float = 1.0,
    limited: bool = False,
) -> MoveRecord:
    """Return a move with a disk that was to be in step in `said` seconds, and took `took`.

    Both are seconds of copying; what every copy's beginning takes comes on top.
    """
    nothing = Interval(0.0, 0.0, 0.0)
    prediction = StoragePrediction(
        mode=CopyMode.BACKGROUND,
        reason="",
        probability=1.0,
        time=Interval(said / 1.2, said + BEGINNING[1], said * 1.2 + 1),
        wire_bytes=nothing,
        steady_rate=nothing,
        handover=nothing,
        pace=pace,
        limited=limited,
    )
    whole = None if took is None else took + BEGINNING[1]
    disk = DiskCopied("vda", "/a/vda", "/b/vda", data=MIB, time=whole)
    return MoveRecord(
        began=at - 10,
        ended=at,
        source="a",
        destination="b",
        vm="guest",
        method=Method.TCP,
        tuning=tuning_for(Method.TCP, Settings()),
        ending=Ending.COMPLETED,
        survey=SURVEY,
        copied=StorageCopied((disk,), prediction),
    )

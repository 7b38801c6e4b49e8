"""A move that is over as a document and as a table: predicted beside observed.

move_document    whimbrel.move/1, documented in docs/json.md
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whimbrel.model.check import Check
from whimbrel.model.journal import ACTIONS
from whimbrel.model.method import Tuning
from whimbrel.model.outcome import Outcome
from whimbrel.model.plain import plain
from whimbrel.model.prediction import Interval, Prediction
from whimbrel.model.storage import DiskCopied, StorageCopied
from whimbrel.model.units import format_rate, format_size, format_time

MOVE_SCHEMA = "whimbrel.move/1"

COMPARED_COLUMNS = ("", "Predicted", "Observed", "Error")
"""Headings of `compared_rows`."""

_Figure = tuple[str, Interval | None, float | None, Callable[[float], str]]
"""A figure's name, what was said, what was seen, and how it is written."""

_KINDS = {kind: word for word, kind in ACTIONS.items()}


@dataclass(frozen=True)
class MoveSaid:
    """Everything that is to be said of a move that is over.

    Attributes:
        vm: The VM's name.
        source: The host it was to leave.
        destination: The host it was to go to.
        tuning: Of the last attempt.
        outcome: Of the last attempt.
        attempts: How many there were.
        prediction: What was said before the first; None: nothing.
        checks: What was looked at afterwards.
        missed: Goals that were not kept, one sentence each.
        number: What the history calls it; None: it is not in there.
        encryption: How it travelled, and why.
        left: What could not be cleared away, one sentence each; the outcome's reason has them.
        over: Whether the guest is known to run nowhere: it is lost.
        copied: The disks that went along; None where none did, or the guest did not arrive.
    """

    vm: str
    source: str
    destination: str
    tuning: Tuning
    outcome: Outcome
    attempts: int = 1
    prediction: Prediction | None = None
    checks: tuple[Check, ...] = ()
    missed: tuple[str, ...] = ()
    number: int | None = None
    encryption: str = ""
    left: tuple[str, ...] = ()
    over: bool = False
    copied: StorageCopied | None = None


def move_document(said: MoveSaid) -> dict[str, object]:
    """Return everything that was said, seconds and bytes; null where a figure is not known."""
    outcome = said.outcome
    return {
        "schema": MOVE_SCHEMA,
        "vm": said.vm,
        "source": said.source,
        "destination": said.destination,
        "ending": outcome.ending.value,
        "reason": outcome.reason,
        "runs_on": None if outcome.runs_on is None else outcome.runs_on.value,
        "runs_nowhere": said.over,
        "attempts": said.attempts,
        "tuning": plain(said.tuning),
        "encryption": said.encryption,
        "predicted": None if said.prediction is None else _predicted(said.prediction),
        "observed": _observed(outcome),
        "storage": None if said.copied is None else _storage(said.copied),
        "decisions": [
            {"at": each.at, "action": _KINDS[type(each.action)], "reason": each.reason}
            for each in outcome.decisions
        ],
        "checks": [
            {"name": each.name, "result": each.result.value, "detail": each.detail}
            for each in said.checks
        ],
        "missed": list(said.missed),
        "move": said.number,
    }


def compared_rows(said: MoveSaid) -> tuple[tuple[str, str, str, str], ...]:
    """Return time, downtime and bytes, each as predicted and as observed; the disks' likewise."""
    seen, told = said.outcome, said.prediction
    disks = _of_disks(said.copied) if said.copied else ()
    figures: Sequence[_Figure] = (
        ("time", told.total_time if told else None, seen.total_time, format_time),
        ("frozen", told.downtime if told else None, seen.standstill, format_time),
        ("sent", told.wire_bytes if told else None, seen.hypervisor_bytes, format_size),
        *disks,
    )
    return tuple(_compared(*figure) for figure in figures)


def disk_lines(copied: StorageCopied) -> tuple[str, ...]:
    """Say of each disk what its copy took, where it is, and what became of the old image."""
    return tuple(f"disk {each.name}: {_copy(each)}. {each.note}".rstrip() for each in copied.disks)


def _copy(disk: DiskCopied) -> str:
    if disk.data is None or disk.time is None:
        return f"copied to {disk.new}"
    took = f"{format_size(disk.data)} in {format_time(disk.time)}"
    rate = f" ({format_rate(disk.data / disk.time)})" if disk.time > 0 else ""
    waited = ", and the guest's writes had to wait" if disk.writes_waited else ""
    return f"{took}{rate} to {disk.new}{waited}"


def _of_disks(copied: StorageCopied) -> tuple[_Figure, _Figure]:
    said = copied.predicted
    return (
        ("disks", said.time if said else None, copied.time, format_time),
        ("copied", said.wire_bytes if said else None, copied.data, format_size),
    )


def _storage(copied: StorageCopied) -> dict[str, object]:
    said = copied.predicted
    return {
        "predicted": None
        if said is None
        else {"time": plain(said.time), "bytes": plain(said.wire_bytes)},
        "time": copied.time,
        "bytes": copied.data,
        "disks": [_disk(each) for each in copied.disks],
    }


def _disk(disk: DiskCopied) -> dict[str, object]:
    known = disk.data is not None and disk.time
    return {
        "name": disk.name,
        "old": disk.old,
        "new": disk.new,
        "bytes": disk.data,
        "time": disk.time,
        "rate": (disk.data or 0) / (disk.time or 1.0) if known else None,
        "writes_waited": disk.writes_waited,
        "note": disk.note,
    }


def _compared(
    name: str, said: Interval | None, seen: float | None, show: Callable[[float], str]
) -> tuple[str, str, str, str]:
    predicted = ""
    if said is not None:
        predicted = f"{show(said.p50)} ({show(said.p10)} to {show(said.p90)})"
    observed = "" if seen is None else show(seen)
    error = ""
    if said is not None and seen:
        off = said.p50 / seen - 1
        error = f"{off:+.0%}{'' if said.holds(seen) else ', outside of the band'}"
    return name, predicted, observed, error


def _predicted(said: Prediction) -> dict[str, object]:
    return {
        "verdict": said.verdict.value,
        "completion_probability": said.completion_probability,
        "total_time": plain(said.total_time),
        "downtime": plain(said.downtime),
        "wire_bytes": plain(said.wire_bytes),
        "passes": plain(said.passes),
    }


def _observed(outcome: Outcome) -> dict[str, object]:
    return {
        "wall_time": outcome.wall_time,
        "arrival_time": outcome.arrival_time,
        "preparation_time": outcome.preparation_time,
        "total_time": outcome.total_time,
        "setup_time": outcome.setup_time,
        "downtime_reported": outcome.downtime_reported,
        "downtime_observed": outcome.standstill,
        "hypervisor_bytes": outcome.hypervisor_bytes,
        "passes": outcome.pass_count,
        "throttle_max": outcome.throttle_max,
    }

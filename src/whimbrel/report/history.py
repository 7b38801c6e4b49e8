"""Past moves and how well they were predicted, as table cells and JSON documents."""

from collections.abc import Callable, Sequence

from whimbrel.model.plain import plain
from whimbrel.model.prediction import Interval
from whimbrel.model.record import MoveRecord
from whimbrel.model.units import format_size, format_time
from whimbrel.report.accuracy import accuracy_cells, accuracy_figures
from whimbrel.report.words import NOTHING
from whimbrel.theory.accuracy import accuracy, by_method

HISTORY_SCHEMA = "whimbrel.history/1"
ACCURACY_SCHEMA = "whimbrel.accuracy/1"

HISTORY_COLUMNS = (
    "When",
    "VM",
    "From → to",
    "Method",
    "Ending",
    "Time",
    "Downtime",
    "On the wire",
    "Verdict",
)
"""Columns of the history; figures read "predicted → observed"."""

ACCURACY_COLUMNS = ("Method", "Moves", "Time", "On the wire", "Downtime", "Within", "Verdicts")
"""Columns of the accuracy; errors read "median / p90", Within is the share inside p10 to p90
for time, bytes and downtime."""


def history_cells(record: MoveRecord, when: str) -> tuple[str, ...]:
    """Return a move's text for every one of `HISTORY_COLUMNS`."""
    said, seen = record.prediction, record.observed
    return (
        when,
        record.vm,
        f"{record.source} → {record.destination}",
        record.method.value,
        record.ending.value,
        _pair(said.total_time if said else None, seen.total_time, format_time),
        _pair(said.downtime if said else None, seen.downtime, format_time),
        _pair(said.wire_bytes if said else None, seen.wire_bytes, format_size),
        _verdict(record),
    )


def _pair(said: Interval | None, seen: float | None, show: Callable[[float], str]) -> str:
    before = show(said.p50) if said else NOTHING
    after = show(seen) if seen is not None else NOTHING
    return NOTHING if before == after == NOTHING else f"{before} → {after}"


def _verdict(record: MoveRecord) -> str:
    if record.verdict is None:
        return NOTHING
    met = {True: ", right", False: ", wrong", None: ""}[record.verdict_met]
    return f"{record.verdict}{met}"


def history_document(records: Sequence[MoveRecord]) -> dict[str, object]:
    """Return moves as JSON (docs/history.md); times of day are seconds since 1970-01-01 UTC."""
    return {"schema": HISTORY_SCHEMA, "moves": [_move(record) for record in records]}


def _move(record: MoveRecord) -> dict[str, object]:
    said = record.prediction
    predicted = said and {
        "completion_probability": said.completion_probability,
        "verdict": said.verdict.value,
        "total_time": plain(said.total_time),
        "downtime": plain(said.downtime),
        "wire_bytes": plain(said.wire_bytes),
    }
    names = ("number", "began", "ended", "vm", "source", "destination", "method", "ending")
    return {name: plain(getattr(record, name)) for name in names} | {
        "verdict": plain(record.verdict),
        "verdict_met": record.verdict_met,
        "predicted": predicted,
        "observed": plain(record.observed),
        "tuning": plain(record.tuning),
    }


def accuracy_rows(records: Sequence[MoveRecord]) -> tuple[tuple[str, ...], ...]:
    """Return the text for `ACCURACY_COLUMNS`: all moves first, then method by method."""
    methods = by_method(records).items()
    return (
        accuracy_cells("all", accuracy(records)),
        *(accuracy_cells(method.value, each) for method, each in methods),
    )


def accuracy_document(records: Sequence[MoveRecord]) -> dict[str, object]:
    """Return the accuracy as JSON (docs/history.md); null where no move tells."""
    methods = {method.value: accuracy_figures(each) for method, each in by_method(records).items()}
    whole = accuracy_figures(accuracy(records))
    return {"schema": ACCURACY_SCHEMA, "all": whole, "methods": methods}

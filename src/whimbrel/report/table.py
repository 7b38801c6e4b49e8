"""The table of times by method, as Markdown and as CSV.

`COLUMNS` says how each column reads a `Row`; Markdown, the terminal and the page all show
these. CSV is for programs: plain seconds and bytes, one line per method.
"""

import io
from collections.abc import Callable, Iterable
from csv import writer as writer_to
from dataclasses import dataclass, fields

from whimbrel.model.prediction import Verdict
from whimbrel.model.scenario import LabResult, MachineFacts, ScenarioResult
from whimbrel.model.units import format_link, format_size, format_time
from whimbrel.report.rows import Memory, Row, Spread, rows
from whimbrel.report.words import (
    NOTHING,
    RANGE,
    REFERENCE_SOURCE,
    TIMES,
    describe_machine,
    describe_scenario,
    headline,
    honest,
    references,
)


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        title: Its heading.
        cell: Reads a row; `NOTHING` where there is no figure.
        number: Whether it stands to the right, as numbers do.
        vital: Whether a narrow terminal shows it too.
    """

    title: str
    cell: Callable[[Row], str]
    number: bool = True
    vital: bool = False


def _shown(spread: Spread | None, show: Callable[[float], str]) -> str:
    if spread is None:
        return NOTHING
    lowest, highest = show(spread.lowest), show(spread.highest)
    if lowest == highest:
        return show(spread.median)
    return f"{show(spread.median)} ({lowest}{RANGE}{highest})"


def _median(spread: Spread | None, show: Callable[[float], str]) -> str:
    return NOTHING if spread is None else show(spread.median)


def _predicted(row: Row) -> str:
    """Show what was said; a method that was not to complete has no time to be said of it."""
    if row.verdict == Verdict.REFUSE:
        return "never"
    return _shown(row.predicted_time, format_time)


def _error(row: Row) -> str:
    return NOTHING if row.error is None else f"{row.error.median:+.0%}"


def _cpu(row: Row) -> str:
    source = _median(row.source_cpu, "{:.1f}".format)
    return f"{source} / {_median(row.destination_cpu, '{:.1f}'.format)}"


def _faster(row: Row) -> str:
    return NOTHING if row.faster is None else f"{row.faster:.1f}{TIMES}"


def _memory(row: Row) -> str:
    """Corruption is told in any case; that nobody checked, only of moves that completed."""
    told = row.completed or row.memory is Memory.CORRUPT
    return row.memory.value if told else NOTHING


def _measured(cell: Callable[[Row], str]) -> Callable[[Row], str]:
    """Leave a pair of figures out as one where the method never completed."""
    return lambda row: cell(row) if row.completed else NOTHING


COLUMNS = (
    Column("Method", lambda row: row.name, number=False, vital=True),
    Column("Time", lambda row: _shown(row.wall_time, format_time), vital=True),
    Column("Speed", _faster, vital=True),
    Column("Predicted", _predicted),
    Column("Error", _error),
    Column("Setup", lambda row: _median(row.setup, format_time), vital=True),
    Column("QEMU total", lambda row: _median(row.total_time, format_time)),
    Column("Downtime", lambda row: _median(row.downtime_observed, format_time), vital=True),
    Column("QEMU says", lambda row: _median(row.downtime_reported, format_time)),
    Column("On the wire", lambda row: _median(row.wire_bytes, format_size), vital=True),
    Column("Rate", lambda row: _median(row.rate, format_link)),
    Column("Passes", lambda row: _median(row.passes, "{:g}".format)),
    Column("CPU s source / destination", _measured(_cpu)),
    Column("Memory", _memory, number=False, vital=True),
    Column("Note", lambda row: row.note, number=False, vital=True),
)
"""The table's columns. Time is wall time with its range over repeats; Speed is times as fast
as `qemu-default`, or what `rows.baseline` has instead; Predicted is what was said of Time from a
survey alone, with p10 and p90, and Error how far its middle was off; Setup is preparation plus
QEMU's setup; Downtime is what the guest's heartbeat shows, beside what QEMU says."""


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's text for every one of `COLUMNS`."""
    return tuple(column.cell(row) for column in COLUMNS)


def footer(result: ScenarioResult, machine: MachineFacts) -> tuple[str, ...]:
    """Return the lines under a table: scenario, machine, and published times for its size."""
    published = references(result.scenario)
    compared = [f"{reference} ({REFERENCE_SOURCE})" for reference in published]
    lines = (describe_scenario(result.scenario), describe_machine(machine), honest(result.scenario))
    return (*lines, *compared)


def markdown(result: LabResult) -> str:
    """Return every scenario's table in Markdown, ending with the command that reproduces it."""
    parts = [_section(part, result.machine) for part in result.scenarios]
    return "\n".join([*parts, f"    {result.machine.command}", ""])


def _section(part: ScenarioResult, machine: MachineFacts) -> str:
    titles = [column.title for column in COLUMNS]
    rules = ["---:" if column.number else "---" for column in COLUMNS]
    body = [_line(cells(row)) for row in rows(part)]
    under = [f"- {_escaped(line)}" for line in footer(part, machine)]
    title = f"## {_escaped(part.scenario.name)}"
    above = [title, "", _escaped(headline(part)), ""]
    return "\n".join([*above, _line(titles), _line(rules), *body, "", *under, ""])


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(_escaped(text) for text in texts) + " |"


def _escaped(text: str) -> str:
    """Keep foreign words (QEMU's reasons, a scenario's name) from becoming Markdown."""
    flat = " ".join(text.split())
    for sign in "\\|<*_`[":
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def csv_text(result: LabResult) -> str:
    """Return one line per scenario and method in plain seconds and bytes; empty: not known."""
    out = io.StringIO()
    writer = writer_to(out, lineterminator="\n")
    written = False
    for part in result.scenarios:
        for row in rows(part):
            figures = _flat(row)
            if not written:
                writer.writerow(figures)
                written = True
            writer.writerow(figures.values())
    return out.getvalue()


def _flat(row: Row) -> dict[str, object]:
    """Spell a row out, each spread as its median with `_min` and `_max` beside it."""
    flat: dict[str, object] = {}
    for name in (field.name for field in fields(row)):
        value = getattr(row, name)
        if name in _SPREADS:
            parts = (value.median, value.lowest, value.highest) if value else ("", "", "")
            flat |= dict(zip((name, f"{name}_min", f"{name}_max"), parts, strict=True))
        else:
            flat[name] = "" if value is None else value
    return flat


_SPREADS = frozenset(field.name for field in fields(Row) if field.type == Spread | None)
"""Found by their type, which stands unquoted in `Row`."""

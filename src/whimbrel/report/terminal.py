"""The table for a terminal, drawn by rich."""

from typing import Literal

from rich.table import Table
from rich.text import Text

from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import ScenarioResult
from whimbrel.report import tables
from whimbrel.report.rows import Memory, Row, rows
from whimbrel.report.table import COLUMNS
from whimbrel.report.words import NOTHING

WIDE = 170
"""Characters from which on every column is shown; below, only the vital ones."""

_ENDINGS = {
    None: "not run",
    Ending.NOT_AVAILABLE: NOTHING,  # the note below says why
    Ending.TIMEOUT: "timeout",
    Ending.FAILED: "failed",
    Ending.CANCELLED: "cancelled",
}

_FORETOLD = {"Predicted", "Error"}
"""Columns that are shown where something was predicted."""


def rich_table(result: ScenarioResult, width: int = WIDE) -> Table:
    """Return one scenario's table for a terminal of so many characters; notes stand below it."""
    hidden = {"Note", "Time", *(() if _foretold(result) else _FORETOLD)}
    vital = {c.title for c in COLUMNS if c.vital} | _FORETOLD
    shown = [c for c in COLUMNS if (c.title in vital or width >= WIDE) and c.title not in hidden]
    time = next(column for column in COLUMNS if column.title == "Time")
    title = Text(result.scenario.name, style="bold")
    gap = 2 if width >= WIDE else 1
    table = Table(title=title, title_justify="left", box=None, padding=(0, gap, 0, 0))
    for column in (shown[0], time, *shown[1:]):
        justify: Literal["left", "right"] = "right" if column.number else "left"
        table.add_column(
            column.title, justify=justify, no_wrap=column is shown[0], header_style="dim"
        )
    for row in rows(result):
        ending = _ENDINGS.get(row.ending, time.cell(row))
        texts = [shown[0].cell(row), ending, *(column.cell(row) for column in shown[1:])]
        if width < WIDE:  # ranges stand in the report; here they would break the lines
            texts = [text.partition(" (")[0] for text in texts]
        table.add_row(*map(Text, texts), style=_style(row))
    return table


def suite_table(table: tables.Table) -> Table:
    """Return one table of a suite."""
    title = Text(table.title, style="bold")
    made = Table(
        title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), caption=table.note
    )
    for index, column in enumerate(table.columns):
        justify: Literal["left", "right"] = "right" if index else "left"
        made.add_column(column, justify=justify, no_wrap=not index, header_style="dim")
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made


def notes(result: ScenarioResult) -> tuple[str, ...]:
    """Return what is to be said under the table: why a method has no figures, and remarks."""
    return tuple(f"{row.name}: {row.note}" for row in rows(result) if row.note)


def _foretold(result: ScenarioResult) -> bool:
    return any(run.predicted is not None for run in result.runs)


def _style(row: Row) -> str:
    """Red for corrupted memory, dim for what was not there to be measured."""
    if row.memory is Memory.CORRUPT:
        return "bold red"
    if row.ending is Ending.COMPLETED:
        return ""
    return "dim" if row.ending in {None, Ending.NOT_AVAILABLE} else "yellow"

"""`whimbrel history`: past moves, what was predicted of them and what they took."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whimbrel.model.method import Method
from whimbrel.model.record import MoveRecord
from whimbrel.report.document import json_text
from whimbrel.report.history import HISTORY_COLUMNS, history_cells, history_document
from whimbrel.store import Store

EMPTY = "No move is stored yet."
WIDE = 130
"""Characters from which on every column is shown; below, only the vital ones."""

WORDS = {"When", "VM", "From → to", "Method", "Ending"}
VITAL = {"When", "Method", "Time", "Downtime", "Verdict"}

NONE_SUCH = "No stored move is like that."


def history(
    *,
    limit: Annotated[int, typer.Option(help="How many moves, the latest first.", min=1)] = 20,
    method: Annotated[Method | None, typer.Option(help="Only moves by this method.")] = None,
    host: Annotated[str | None, typer.Option(help="Only moves from or to this host.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/history.md).")] = False,
) -> None:
    """List past moves: what was predicted, what happened, and whether the verdict was right.

    Figures read "predicted → observed". Reads the store only; makes nothing.
    """
    with Store.open(create=False) as store:
        records = store.moves(limit, method=method, host=host)
        filtered = bool(records) or bool(store.moves(1))
    if json:
        typer.echo(json_text(history_document(records)), nl=False)
    elif not records:
        typer.echo(NONE_SUCH if filtered else EMPTY, err=True)
    else:
        console = Console(highlight=False)
        console.print(_table(records, narrow=console.width < WIDE))


def _table(records: Sequence[MoveRecord], *, narrow: bool) -> Table:
    shown = [c for c in HISTORY_COLUMNS if c in VITAL or not narrow]
    table = grid(tuple(shown), left=sum(c in WORDS for c in shown), gap=1 if narrow else 2)
    for record in records:
        when = _when(record)[5:] if narrow else _when(record)
        cells = dict(zip(HISTORY_COLUMNS, history_cells(record, when), strict=True))
        table.add_row(*(Text(cells[column]) for column in shown), style=_style(record))
    return table


def grid(columns: tuple[str, ...], left: int, gap: int = 2) -> Table:
    """Return an empty table, the first `left` of its columns words and the others figures."""
    table = Table(box=None, padding=(0, gap, 0, 0))
    for number, title in enumerate(columns):
        table.add_column(title, justify="left" if number < left else "right", header_style="dim")
    return table


def _when(record: MoveRecord) -> str:
    """Return the local time at which a move began."""
    return datetime.fromtimestamp(record.began, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _style(record: MoveRecord) -> str:
    return "yellow" if record.completed is False or record.verdict_met is False else ""

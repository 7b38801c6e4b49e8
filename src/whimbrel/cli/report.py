"""`whimbrel report`: how good the predictions of past moves were."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from whimbrel.cli.history import grid
from whimbrel.report.document import json_text
from whimbrel.report.history import ACCURACY_COLUMNS, accuracy_document, accuracy_rows
from whimbrel.store import Store

MEANING = (
    "Errors: median / p90 over moves that completed; time and bytes relative, downtime absolute.",
    "Within: share of time / bytes / downtime inside the predicted p10 to p90; honest is 80%.",
    "Verdicts: go that completed and refuse that did not, of all that promised either.",
)


def report(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/history.md).")] = False,
) -> None:
    """Say how good predictions were, over all stored moves and method by method.

    Reads the store only; makes nothing.
    """
    with Store.open(create=False) as store:
        records = store.moves()
    if json:
        typer.echo(json_text(accuracy_document(records)), nl=False)
        return
    if not any(record.prediction for record in records):
        typer.echo("No stored move was predicted, so there is nothing to report.", err=True)
        return
    table = grid(ACCURACY_COLUMNS, left=1)
    for row in accuracy_rows(records):
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    console.print(table)
    for line in MEANING:
        console.print(line, style="dim", soft_wrap=True)

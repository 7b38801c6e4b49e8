"""`whimbrel config`: every value that holds, and where it comes from."""

import typer
from rich.console import Console
from rich.text import Text

from whimbrel.cli.history import grid
from whimbrel.cli.options import ConfigFile, Json
from whimbrel.config import Config, load
from whimbrel.config.load import places
from whimbrel.config.settled import DEFAULT
from whimbrel.report.document import json_text

SCHEMA = "whimbrel.config/1"


def config(*, config: ConfigFile = None, json: Json = False) -> None:
    """Print every value of whimbrel.toml with its origin: file and line, or default.

    Asks no host and changes nothing.
    """
    found = load(config)
    if json:
        typer.echo(json_text(_document(found)), nl=False)
        return
    if found.path is None:
        looked = ", ".join(str(place) for place in places())
        typer.echo(f"There is no whimbrel.toml; looked for {looked}.", err=True)
    table = grid(("Key", "Value", "Origin"), left=3)
    for setting in found.settings:
        style = "dim" if setting.origin == DEFAULT else ""
        table.add_row(*map(Text, (setting.key, setting.text, setting.origin)), style=style)
    Console(highlight=False, soft_wrap=True).print(table)


def _document(found: Config) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "file": None if found.path is None else str(found.path),
        "settings": {
            setting.key: {"value": setting.value, "origin": setting.origin}
            for setting in found.settings
        },
    }

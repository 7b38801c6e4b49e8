"""Where the lab's results go: a folder, a further file if asked for, and the terminal."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console

from whimbrel.lab.accuracy import SuiteResult
from whimbrel.lab.results import (
    prepare_folder,
    prepare_json,
    suite_document,
    write_json,
    write_results,
    write_suite,
    write_text,
)
from whimbrel.model.scenario import LabResult
from whimbrel.report.accuracy import summary, tables
from whimbrel.report.document import json_text, lab_document
from whimbrel.report.table import footer
from whimbrel.report.terminal import notes, rich_table, suite_table

STANDARD_OUTPUT = Path("-")
"""What `--json` calls standard output; the table then goes to standard error."""


@dataclass(frozen=True)
class Output:
    """Places that take results, tried before the lab begins.

    Attributes:
        folder: Gets every file of `write_results`.
        json: Gets one more copy of lab.json; may be `STANDARD_OUTPUT`.
    """

    folder: Path
    json: Path | None

    @classmethod
    def prepared(cls, folder: Path | None, json: Path | None) -> "Output":
        """Make the folder and try both places; raises `ConfigError`."""
        made = prepare_folder(folder or _default_folder())
        if json is not None and json != STANDARD_OUTPUT:
            prepare_json(json)
        return cls(made, json)

    @property
    def report(self) -> Path:
        """The page that people open."""
        return self.folder / "report.html"

    def write(self, result: LabResult) -> None:
        """Write every file; raises `LabError` or `ConfigError`."""
        write_results(self.folder, result)
        if self.json == STANDARD_OUTPUT:
            typer.echo(json_text(lab_document(result)), nl=False)
        elif self.json is not None:
            write_json(self.json, result)

    def write_suite(self, found: SuiteResult) -> None:
        """Write every file of a suite; raises `LabError` or `ConfigError`."""
        write_suite(self.folder, found)
        text = json_text(suite_document(found))
        if self.json == STANDARD_OUTPUT:
            typer.echo(text, nl=False)
        elif self.json is not None:
            write_text(self.json, text)

    def show_suite(self, found: SuiteResult) -> None:
        """Print what a suite says of theory."""
        console = Console(highlight=False, stderr=self.json == STANDARD_OUTPUT)
        for table in tables(found.assessment):
            console.print()
            console.print(suite_table(table))
        console.print()
        for line in summary(found.assessment):
            console.print(line, soft_wrap=True, markup=False)

    def show(self, result: LabResult) -> None:
        """Print the table."""
        console = Console(highlight=False, stderr=self.json == STANDARD_OUTPUT)
        for part in result.scenarios:
            console.print()
            console.print(rich_table(part, console.width))
            for note in notes(part):
                console.print(note, style="yellow", soft_wrap=True, markup=False)
            for line in footer(part, result.machine):
                console.print(line, style="dim", soft_wrap=True, markup=False)


def _default_folder() -> Path:
    return Path("results") / datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")

"""Where the lab's results go: a folder, a further file if asked for, and the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console

from whimbrel.lab.accuracy import SuiteResult
from whimbrel.lab.peer_suite import PeersResult
from whimbrel.lab.results import (
    peers_lab_document,
    prepare_folder,
    prepare_json,
    suite_document,
    write_json,
    write_peers,
    write_results,
    write_suite,
    write_text,
)
from whimbrel.model.scenario import LabResult
from whimbrel.report.accuracy import summary, tables
from whimbrel.report.document import json_text, lab_document
from whimbrel.report.peers import peer_summary, peer_tables
from whimbrel.report.table import footer
from whimbrel.report.tables import Table
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
        self._write_json(suite_document(found))

    def write_peers(self, found: PeersResult) -> None:
        """Write every file of a peers suite; raises `LabError` or `ConfigError`."""
        write_peers(self.folder, found)
        self._write_json(peers_lab_document(found))

    def show_suite(self, found: SuiteResult) -> None:
        """Print what a suite says of theory."""
        self._show(tables(found.assessment), summary(found.assessment))

    def show_peers(self, found: PeersResult) -> None:
        """Print what a peers suite says, without where it was read."""
        self._show(peer_tables(found.comparison)[:2], peer_summary(found.comparison))

    def _write_json(self, document: Mapping[str, object]) -> None:
        text = json_text(document)
        if self.json == STANDARD_OUTPUT:
            typer.echo(text, nl=False)
        elif self.json is not None:
            write_text(self.json, text)

    def _show(self, found: Sequence[Table], said: Sequence[str]) -> None:
        console = Console(highlight=False, stderr=self.json == STANDARD_OUTPUT)
        for table in found:
            console.print()
            console.print(suite_table(table))
        console.print()
        for line in said:
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

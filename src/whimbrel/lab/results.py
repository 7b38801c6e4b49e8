"""The results folder: every figure for programs, for people, and as pictures.

lab.json      every run's figures (docs/json.md)
series.json   every run's counters over time
table.md      the table as text
table.csv     the table for a spreadsheet
report.html   table, charts, machine, versions and exact settings in one page
*.png         the charts
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from whimbrel.errors import ConfigError, ExitCode, LabError
from whimbrel.lab.accuracy import SuiteResult
from whimbrel.lab.peer_suite import PeersResult
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import LabResult, Run
from whimbrel.model.units import MIB, format_size
from whimbrel.report.accuracy import accuracy_html, accuracy_markdown, assessment_document
from whimbrel.report.document import json_text, lab_document, series_document
from whimbrel.report.images import Image
from whimbrel.report.page import lab_page, picture
from whimbrel.report.peers import peers_document, peers_html, peers_markdown
from whimbrel.report.table import csv_text, markdown

_OTHER_FILE = "Name another file with --json."
ROOM = 32 * MIB
"""Bytes that must be free before a lab begins: its results need a few MiB."""


def prepare_folder(folder: Path) -> Path:
    """Make the folder, and see that results can be written to it; raises `ConfigError`.

    Done before the first move, since it would be a pity to learn of it after the last.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".whimbrel"
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise ConfigError(
            f"The results folder {folder} has only {format_size(free)} free.",
            f"Free {format_size(ROOM)}, or name another folder with --results.",
        )
    return folder


def prepare_json(path: Path) -> Path:
    """See that one more file can be written; raises `ConfigError`. What it holds is kept."""
    with _explained(path, hint=_OTHER_FILE):
        if not path.exists():
            path.touch()
            path.unlink()
        elif path.is_dir():
            raise ConfigError(f"{path} is a folder.", _OTHER_FILE)
        elif not os.access(path, os.W_OK):
            raise ConfigError(f"{path} cannot be written.", _OTHER_FILE)
    return path


def write_json(path: Path, result: LabResult) -> None:
    """Write the figures to one more file; raises `ConfigError` when it does not take them."""
    write_text(path, json_text(lab_document(result)))


def write_text(path: Path, text: str) -> None:
    """Write one more file; raises `ConfigError` when it does not take it."""
    with _explained(path, hint=_OTHER_FILE):
        _write(path, text)


def write_results(folder: Path, result: LabResult) -> None:
    """Write everything; the figures come first, so that a full disk costs pictures only.

    Raises:
        LabError: A file could not be written.
    """
    with _explained(folder, LabError):
        _write(folder / "lab.json", json_text(lab_document(result)))
        _write(folder / "table.md", markdown(result))
        _write(folder / "table.csv", csv_text(result))
        _write(folder / "series.json", json_text(series_document(result)))
        _write(folder / "report.html", lab_page(result, _draw(folder, result)))


def write_suite(folder: Path, found: SuiteResult) -> None:
    """Write what a suite yields: the same files, without counters and each scenario's charts.

    Raises:
        LabError: A file could not be written.
    """
    with _explained(folder, LabError):
        _write(folder / "lab.json", json_text(suite_document(found)))
        _write(folder / "accuracy.md", accuracy_markdown(found.assessment))
        _write(folder / "table.md", markdown(found.lab))
        _write(folder / "table.csv", csv_text(found.lab))
        section = accuracy_html(found.assessment, [_draw_suite(folder, found)])
        _write(folder / "report.html", lab_page(found.lab, (), section))


def write_peers(folder: Path, found: PeersResult) -> None:
    """Write what a peers suite yields: figures, tables, the page and its chart.

    Raises:
        LabError: A file could not be written.
    """
    with _explained(folder, LabError):
        _write(folder / "lab.json", json_text(peers_lab_document(found)))
        _write(folder / "peers.md", peers_markdown(found.comparison))
        section = peers_html(found.comparison, [_draw_peers(folder, found)])
        bare = replace(found.lab, scenarios=())  # its runs are no methods to be compared
        _write(folder / "report.html", lab_page(bare, (), section))


def peers_lab_document(found: PeersResult) -> dict[str, object]:
    """Return every run, and the comparison under `peers` (docs/json.md)."""
    return lab_document(found.lab) | {"peers": peers_document(found.comparison)}


def _draw_peers(folder: Path, found: PeersResult) -> str:
    from whimbrel.report.canvas import DARK, LIGHT  # noqa: PLC0415 - as below
    from whimbrel.report.peer_chart import peers_chart  # noqa: PLC0415

    light, dark = (peers_chart(found.comparison, theme) for theme in (LIGHT, DARK))
    (folder / "peers.png").write_bytes(light)
    (folder / "peers-dark.png").write_bytes(dark)
    return picture(light, dark, "Everyone's time, downtime and bytes beside the reference")


def suite_document(found: SuiteResult) -> dict[str, object]:
    """Return every run, and the assessment under `accuracy` (docs/json.md)."""
    return lab_document(found.lab) | {"accuracy": assessment_document(found.assessment)}


def _draw_suite(folder: Path, found: SuiteResult) -> str:
    from whimbrel.report.canvas import DARK, LIGHT  # noqa: PLC0415 - as below
    from whimbrel.report.scatter import accuracy_chart  # noqa: PLC0415

    light, dark = (accuracy_chart(found.records, theme) for theme in (LIGHT, DARK))
    (folder / "accuracy.png").write_bytes(light)
    (folder / "accuracy-dark.png").write_bytes(dark)
    return picture(light, dark, "Predicted beside observed times and downtimes of every move")


def _draw(folder: Path, result: LabResult) -> list[Image]:
    # matplotlib takes its time and memory: not before there is something to draw.
    from whimbrel.report.charts import draw_all  # noqa: PLC0415

    images = []
    for image in draw_all(result):
        (folder / f"{image.name}.png").write_bytes(image.light)
        (folder / f"{image.name}-dark.png").write_bytes(image.dark)
        images.append(image)
    return images


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def exit_code(result: LabResult) -> ExitCode:
    """Return what a lab's runs mean for the command's exit code, the gravest first.

    Damaged memory (7), a guest that is not known to run anywhere (5), a run that failed or
    timed out with its guest safe at the source (4), all well (0). What these hosts cannot do
    is no failure.
    """
    runs = [run for part in result.scenarios for run in part.runs]
    if any(run.guest is not None and not run.guest.intact for run in runs):
        return ExitCode.LAB
    if any(_lost(run) for run in runs):
        return ExitCode.PLACE_UNKNOWN
    if any(run.ending not in {Ending.COMPLETED, Ending.NOT_AVAILABLE} for run in runs):
        return ExitCode.SAFE_AT_SOURCE
    return ExitCode.DONE


def _lost(run: Run) -> bool:
    return run.ending is Ending.FAILED and run.guest is None


@contextmanager
def _explained(
    path: Path,
    kind: type[ConfigError] | type[LabError] = ConfigError,
    hint: str = "Name another folder with --results.",
) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind(
            f"{error.filename or path} cannot be written: {error.strerror}.", hint
        ) from error

"""`whimbrel lab` without a lab: what is refused before it, and what is kept when it ends early."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unit.records import moved
from unit.report.samples import result as sample_result
from whimbrel.cli import lab, main
from whimbrel.errors import ConfigError, ExitCode, HostError, LabError
from whimbrel.lab import results
from whimbrel.lab.accuracy import SuiteResult
from whimbrel.lab.audience import Audience
from whimbrel.lab.scenario_check import GUEST_ROOM
from whimbrel.model.plan import Goal
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import AutoSpec, LabResult, Scenario, ScenarioResult
from whimbrel.model.units import GIB, MIB
from whimbrel.theory.assessment import Case, assess

WHOLE = sample_result()


def cut(runs: int) -> LabResult:
    """The sample with its first runs only."""
    [part] = WHOLE.scenarios
    return LabResult(WHOLE.machine, (ScenarioResult(part.scenario, part.runs[:runs]),))


class FakeLab:
    """Stands in for `run_lab`: tells of some runs, then ends as it is told."""

    def __init__(self, runs: int, error: BaseException | None) -> None:
        self.calls: list[Sequence[Scenario]] = []
        self._runs = runs
        self._error = error

    async def __call__(
        self,
        scenarios: Sequence[Scenario],
        audience: Audience,
        command: str,
        past: Sequence[MoveRecord],
    ) -> LabResult:
        self.calls.append(scenarios)
        for runs in range(1, self._runs + 1):
            audience.measured(cut(runs))
        if self._error is not None:
            raise self._error
        return WHOLE


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "_draw", lambda *_: [])  # pictures take their time

    def run(*words: str, runs: int = 0, error: BaseException | None = None) -> tuple[int, FakeLab]:
        fake = FakeLab(runs, error)
        monkeypatch.setattr(lab, "run_lab", fake)
        monkeypatch.setattr(sys, "argv", ["whimbrel", *words])
        return main._run(), fake

    return run


@pytest.fixture
def nested(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Scenario]]:
    """Stand in for `run_nested`; return the tables that it was asked for."""
    asked: list[Sequence[Scenario]] = []

    async def run_nested(tables: Sequence[Scenario], audience: Audience, _: str) -> LabResult:
        asked.append(tables)
        audience.measured(cut(1))
        return WHOLE

    monkeypatch.setattr(lab, "run_nested", run_nested)
    return asked


def scenario(**guest: str) -> Scenario:
    redline = {key: value for key, value in guest.items() if key != "memory"}
    over: dict[str, Any] = {"guest": {"redline": redline}}
    if "memory" in guest:
        over["guest"]["memory"] = guest["memory"]
    return lab._scenarios([], over, quick=False)[0]


def test_the_fill_fits_whatever_is_said_about_memory() -> None:
    assert scenario().guest.redline.fill == 3584 * MIB
    assert scenario(freed="2 GiB").guest.redline.fill == 2 * GIB - GUEST_ROOM
    assert scenario(memory="1 GiB").guest.redline.fill == 896 * MIB
    assert scenario(freed="2 GiB", fill="1 GiB").guest.redline.fill == GIB


def test_what_auto_aims_at_can_be_said_by_flags(command: Any) -> None:
    words = ["--goal", "least-cpu", "--max-downtime", "50 ms", "--deadline", "90 s"]
    code, fake = command("lab", *words, "--cpu-budget", "1.5", "--no-postcopy")
    assert code == 0
    [[asked]] = fake.calls
    assert asked.auto == AutoSpec(Goal.LEAST_CPU, 0.05, 90.0, 1.5, postcopy=False)
    code, fake = command("lab", "--postcopy")
    assert fake.calls[0][0].auto == AutoSpec()


def test_emulated_hosts_have_two_tables_and_heed_the_guests_flags(
    command: Any, nested: list[Sequence[Scenario]]
) -> None:
    code, fake = command("lab", "--nested", "--fill", "8 MiB", "--link", "16 Mbit/s")
    assert (code, fake.calls) == (0, [])
    [[wire, team]] = nested
    assert wire.nested
    assert team.nested
    assert wire.guest == team.guest
    assert wire.guest.redline.fill == 8 * MIB
    assert (wire.link.rate, wire.link.count) == (None, 1)
    assert (team.link.rate, team.link.count, team.link.team) == (2e6, 2, "802.3ad")


@pytest.mark.parametrize(
    "words",
    [
        ["--quick"],
        ["--scenario", "any.toml"],
        ["--suite", "accuracy"],
        ["--seed", "0"],
        ["--methods", "tcp"],
        ["--links", "2"],
        ["--no-postcopy"],
        ["--link", "1 Gbit/s, 500 Mbit/s"],
    ],
    ids=" ".join,
)
def test_what_emulated_hosts_cannot_heed_is_refused(
    command: Any, nested: list[Sequence[Scenario]], words: list[str]
) -> None:
    code, _ = command("lab", "--nested", *words)
    assert code == 2
    assert nested == []


def test_a_fill_that_was_said_is_never_changed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too small"):
        scenario(freed="2 GiB", fill="3 GiB")
    (tmp_path / "full.toml").write_text('[guest.redline]\nfill = "3584 MiB"\n')
    over = {"guest": {"redline": {"freed": "2 GiB"}}}
    with pytest.raises(ConfigError, match="too small"):
        lab._scenarios([tmp_path / "full.toml"], over, quick=False)


WRONG = {
    "quick beside a scenario": ["--quick", "--scenario", "any.toml"],
    "a JSON file in no folder": ["--json", "nowhere/lab.json"],
    "a folder as JSON file": ["--json", "."],
    "a file as results folder": ["--results", "taken"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_used_is_said_before_the_lab_begins(
    command: Any, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "taken").touch()
    code, fake = command("lab", *words)
    assert code == 2
    assert fake.calls == []


def test_trying_a_json_file_leaves_it_as_it_was(command: Any, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    for name in ("old.json", "new.json"):
        code, _ = command("lab", "--json", name, error=HostError("QEMU is gone."))
        assert code == 6
    assert (tmp_path / "old.json").read_text() == "old"
    assert not (tmp_path / "new.json").exists()


def test_results_go_to_the_folder_the_caller_stands_in(command: Any, tmp_path: Path) -> None:
    code, _ = command("lab")
    assert code == 0
    [folder] = (tmp_path / "results").iterdir()
    assert (folder / "report.html").exists()


ENDINGS = {
    "interrupted": (asyncio.CancelledError(), 130),
    "a host that fails": (HostError("QEMU is gone."), 6),
    "a lab that fails": (LabError("The guest is silent."), 7),
    "our own bug": (ZeroDivisionError(), 1),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_runs_that_are_over_are_kept_however_the_lab_ends(
    command: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: tuple[BaseException, int],
) -> None:
    error, expected = ending
    words = ["--results", "kept", "--json", "copy.json"]
    code, _ = command("lab", *words, "--repeats", "2", runs=2, error=error)
    assert code == expected
    document = json.loads((tmp_path / "kept" / "lab.json").read_text())
    assert len(document["scenarios"][0]["runs"]) == 2
    assert json.loads((tmp_path / "copy.json").read_text()) == document
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"lab.json", "series.json", "table.md", "table.csv", "report.html"} <= names
    assert "Results of 2 of 16 runs: kept/report.html" in capsys.readouterr().err


def test_a_lab_that_ends_before_its_first_run_writes_nothing(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = command("lab", "--results", "kept", error=LabError("No root."))
    assert code == 7
    assert os.listdir(tmp_path / "kept") == []  # noqa: PTH208 - hidden ones count
    assert "Results" not in capsys.readouterr().err


def test_a_disk_that_is_full_does_not_hide_why_the_lab_ended(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise LabError("No space left.")

    monkeypatch.setattr("whimbrel.cli.output.write_results", full)
    code, _ = command("lab", runs=1, error=HostError("QEMU is gone."))
    assert code == 6
    said = capsys.readouterr().err
    assert "No space left." in said
    assert "QEMU is gone." in said


def test_a_dash_sends_the_document_to_standard_output_and_the_table_to_the_other(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = command("lab", "--results", "kept", "--json", "-")
    assert code == 0
    out, said = capsys.readouterr()
    assert json.loads(out) == json.loads((tmp_path / "kept" / "lab.json").read_text())
    assert "multichannel" in said
    assert not (tmp_path / "-").exists()


def test_a_suite_takes_no_flag_that_describes_one_comparison(command: Any) -> None:
    for words in (
        ("lab", "--suite", "accuracy", "--quick"),
        ("lab", "--suite", "accuracy", "--memory", "1 GiB"),
        ("lab", "--suite", "speed"),
        ("lab", "--suite", "accuracy", "--minutes", "0"),
        ("lab", "--suite", "accuracy", "--seed", "-1"),
        ("lab", "--minutes", "5"),
        ("lab", "--seed", "5"),
    ):
        code, fake = command(*words)
        assert code == ExitCode.CONFIG, words
        assert not fake.calls


def test_a_suite_writes_what_it_found_and_shows_it(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = moved()
    run = replace(WHOLE.scenarios[0].runs[0], tracks=())
    found = SuiteResult(WHOLE, (record,), assess([Case(Scenario(), run, record)]))
    asked: dict[str, object] = {}

    async def fake(_: Audience, **words: object) -> SuiteResult:
        asked.update(words)
        return found

    monkeypatch.setattr(lab, "run_accuracy", fake)
    words = ("--suite", "accuracy", "--minutes", "2", "--seed", "7", "--results", "kept")
    code, _ = command("lab", *words)
    assert code == ExitCode.DONE
    assert (asked["minutes"], asked["seed"]) == (2.0, 7)
    document = json.loads(Path("kept/lab.json").read_text())
    assert document["accuracy"]["runs"] == 1
    names = {path.name for path in Path("kept").iterdir()}
    assert {"accuracy.md", "accuracy.png", "accuracy-dark.png", "report.html"} <= names
    assert "How far forecasts were off" in capsys.readouterr().out


def test_a_suite_that_is_interrupted_keeps_what_it_found(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = moved()
    run = replace(WHOLE.scenarios[0].runs[0], tracks=())
    found = SuiteResult(WHOLE, (record,), assess([Case(Scenario(), run, record)]))

    async def fake(_: Audience, **words: Any) -> SuiteResult:
        words["rescued"](found)
        raise asyncio.CancelledError

    monkeypatch.setattr(lab, "run_accuracy", fake)
    code, _ = command("lab", "--suite", "accuracy", "--results", "kept")
    assert code == ExitCode.INTERRUPTED
    assert json.loads(Path("kept/lab.json").read_text())["accuracy"]["runs"] == 1
    assert Path("kept/accuracy.md").exists()

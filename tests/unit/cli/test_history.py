"""`whimbrel history` and `whimbrel report`, as a person runs them, on a store of their own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unit.records import moved, seen
from whimbrel.cli.main import program
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Verdict
from whimbrel.store import Store, default_path

WIDE = {"COLUMNS": "200", "TZ": "UTC"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, value in WIDE.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def filled() -> None:
    with Store.open() as store:
        store.add(moved(1000.0))
        store.add(seen(moved(2000.0, method=Method.POSTCOPY), downtime=None))
        store.add(replace(moved(3000.0, ending=Ending.TIMEOUT), source="c"))
        store.add(replace(moved(4000.0), prediction=None, verdict=None, vm="unsaid"))


def ask(*words: str) -> str:
    result = CliRunner().invoke(program(), list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("command", ["history", "report"])
def test_without_a_store_it_says_so_and_makes_none(command: str) -> None:
    result = CliRunner().invoke(program(), [command])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "stored" in result.stderr
    assert not default_path().exists()


@pytest.mark.usefixtures("filled")
def test_the_history_shows_the_latest_first_with_what_was_said_and_what_came() -> None:
    lines = ask("history").splitlines()
    assert "From → to" in lines[0]
    assert [
        next(word for word in words if word in line)
        for words, line in zip(
            (["unsaid"], ["timeout"], ["postcopy"], ["tcp"]), lines[1:], strict=True
        )
    ] == ["unsaid", "timeout", "postcopy", "tcp"]
    assert "1970-01-01 00:16" in lines[4]
    assert "a → b" in lines[4]
    assert "go, right" in lines[4]
    assert "go, wrong" in lines[2]


@pytest.mark.usefixtures("filled")
def test_a_narrow_terminal_shows_the_vital_columns_a_line_for_each_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = ask("history").splitlines()
    assert lines[0].split() == ["When", "Method", "Time", "Downtime", "Verdict"]
    assert len(lines) == 1 + 4
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.usefixtures("filled")
def test_the_history_can_be_narrowed_down() -> None:
    assert len(ask("history", "--limit", "2").splitlines()) == 3
    assert "postcopy" in ask("history", "--method", "postcopy")
    assert len(ask("history", "--method", "postcopy").splitlines()) == 2
    assert len(ask("history", "--host", "c").splitlines()) == 2
    assert (
        CliRunner()
        .invoke(program(), ["history", "--host", "z"])
        .stderr.startswith("No stored move")
    )


@pytest.mark.usefixtures("filled")
def test_the_history_as_json_has_every_figure() -> None:
    document = json.loads(ask("history", "--json", "--method", "tcp"))
    assert document["schema"] == "whimbrel.history/1"
    unsaid, late, first = document["moves"]
    assert unsaid["predicted"] is None
    assert late["verdict_met"] is False
    assert first["verdict"] == "go"
    assert first["predicted"]["total_time"].keys() == {"p10", "p50", "p90"}
    assert first["observed"]["wire_bytes"] > 0
    assert first["tuning"]["downtime_limit"] == 0.3


@pytest.mark.usefixtures("filled")
def test_the_report_counts_all_moves_and_each_method() -> None:
    lines = ask("report").splitlines()
    assert lines[1].split()[:2] == ["all", "3"]
    assert lines[2].split()[:2] == ["tcp", "2"]
    assert lines[3].split()[:2] == ["postcopy", "1"]
    assert "2 of 3" in lines[1]


@pytest.mark.usefixtures("filled")
def test_the_report_as_json_has_errors_coverage_and_verdicts() -> None:
    document = json.loads(ask("report", "--json"))
    assert document["schema"] == "whimbrel.accuracy/1"
    assert document["all"]["moves"] == 3
    assert document["all"]["total_time"]["errors"]["count"] == 2
    assert 0 <= document["all"]["total_time"]["coverage"] <= 1
    assert document["all"]["verdicts"]["accuracy"] == pytest.approx(2 / 3)
    assert document["methods"]["postcopy"]["downtime"] is None


@pytest.mark.parametrize("command", ["history", "report"])
def test_help_ends_with_the_exit_codes(command: str) -> None:
    assert ask(command, "--help").rstrip().endswith("130 interrupted")


@pytest.mark.parametrize("words", [["--limit", "0"], ["--method", "telepathy"]])
def test_a_wrong_value_is_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(program(), ["history", *words]).exit_code == 2


def test_a_verdict_that_promised_nothing_is_neither_right_nor_wrong() -> None:
    with Store.open() as store:
        store.add(moved(verdict=Verdict.BORDERLINE))
    assert "borderline" in ask("history")
    assert "wrong" not in ask("history")


def test_a_damaged_store_ends_with_a_remedy_and_code_2(state: Path) -> None:
    default_path().parent.mkdir()
    default_path().write_bytes(b"junk" * 500)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "whimbrel"), "history"],
        env=os.environ | {"XDG_STATE_HOME": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "damaged" in done.stderr
    assert "mv '" in done.stderr
    assert "Traceback" not in done.stderr

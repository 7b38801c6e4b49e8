"""`whimbrel config`: every value with its origin, for people and for programs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from whimbrel.cli import main
from whimbrel.errors import ExitCode

TEXT = '[hosts.a]\nuri = "qemu:///local"\nbandwidth_limit = "800 Mbit/s"\n'

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "120")

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["whimbrel", "config", *words])
        code = main._run()
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_every_value_is_printed_with_its_origin(run: Run) -> None:
    Path("whimbrel.toml").write_text(TEXT)
    code, out, err = run()
    assert (code, err) == (ExitCode.DONE, "")
    rows = [line.split() for line in out.splitlines()]
    assert ["hosts.a.bandwidth_limit", "800", "Mbit/s", "whimbrel.toml:3"] in rows
    assert ["hosts.a.folder", "/run/whimbrel", "default"] in rows
    assert ["policy.max_downtime", "1", "s", "default"] in rows


def test_json_has_the_same_in_whimbrels_units(run: Run) -> None:
    Path("whimbrel.toml").write_text(TEXT)
    document = json.loads(run("--json")[1])
    assert (document["schema"], document["file"]) == ("whimbrel.config/1", "whimbrel.toml")
    limit = document["settings"]["hosts.a.bandwidth_limit"]
    assert limit == {"value": 1e8, "origin": "whimbrel.toml:3"}
    assert document["settings"]["policy.deadline"] == {"value": None, "origin": "default"}


def test_without_a_file_all_is_default_and_that_is_said(run: Run) -> None:
    code, out, err = run()
    assert code == ExitCode.DONE
    assert "config/whimbrel/whimbrel.toml" in err
    assert {line.split()[-1] for line in out.splitlines()[1:]} == {"default"}


def test_a_mistake_ends_with_its_place(run: Run) -> None:
    Path("other.toml").write_text("[hosts.a]\nurl = 3\n")
    code, _, err = run("--config", "other.toml")
    assert code == ExitCode.CONFIG
    assert "other.toml:2: hosts.a.url: no such key." in err

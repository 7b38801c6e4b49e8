"""`whimbrel schedule` and `whimbrel scheduler`, as a person runs them, on a store of their own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from unit.schedule.jobs import again, once
from whimbrel.cli.main import program
from whimbrel.cli.schedule import schedule
from whimbrel.cli.scheduler import exit_code
from whimbrel.errors import ConfigError
from whimbrel.model.job import Job, JobRun, RunState
from whimbrel.schedule.kept import Jobs, holder
from whimbrel.store import Store, default_path

root = typer.Typer()
root.add_typer(schedule, name="schedule")


@root.command()
def move(
    vm: str, to: Annotated[str, typer.Option()], limit: Annotated[int, typer.Option()] = 1
) -> None:
    raise AssertionError(f"{vm} {to} {limit}: it was to be checked, not run")


@root.command()
def lab() -> None:
    pass


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path


def ask(*words: str) -> str:
    result = CliRunner().invoke(root, ["schedule", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(root, ["schedule", *words], catch_exceptions=False)
    return caught.value


def keep(*jobs: Job) -> list[Job]:
    with Store.open() as store:
        return [Jobs(store).add(job) for job in jobs]


def turns(number: int | None = None) -> tuple[JobRun, ...]:
    with Store.open() as store:
        return Jobs(store).runs(number)


MOVE = ("move", "vm1", "--to", "b")


def test_a_job_that_comes_once_is_added_and_listed() -> None:
    assert "Job 1, next " in ask("add", "--at", "in 2 h", *MOVE)
    lines = ask("list").splitlines()
    assert lines[0].split() == ["Job", "When", "Next", "Last", "Command"]
    assert "whimbrel move vm1 --to b" in lines[1]
    assert " once " in lines[1]


def test_a_job_that_comes_again_may_be_written_with_all_its_words() -> None:
    document = json.loads(ask("add", "--cron", "30  2 * * 7", "--json", "whimbrel", *MOVE))
    assert document["schema"] == "whimbrel.job/1"
    assert document["words"] == list(MOVE)
    assert document["cron"] == "30 2 * * 7"
    assert document["next"] > time.time()
    assert document["folder"] == f"{Path.cwd()}"
    assert document["turns"] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "this command"),
        (("--to",), "--to"),
        (("--to", "b", "--limit", "much"), "limit"),
        (("--to", "b", "--nonsense"), "nonsense"),
        (("--to", "b", "another"), "another"),
    ],
)
def test_a_command_that_could_not_be_run_is_refused_at_once(
    words: tuple[str, ...], told: str
) -> None:
    assert told in refused("add", "--at", "in 1 h", "move", "vm1", *words).what.lower()
    assert not default_path().exists()


@pytest.mark.parametrize("word", ["lab", "rm", "schedule"])
def test_only_moves_can_be_scheduled(word: str) -> None:
    assert "Only moves" in refused("add", "--at", "in 1 h", word).what


@pytest.mark.parametrize("when", [(), ("--at", "in 1 h", "--cron", "* * * * *")])
def test_a_job_comes_once_or_again_and_not_both(when: tuple[str, ...]) -> None:
    assert "once or again" in refused("add", *when, *MOVE).what


@pytest.mark.parametrize(
    "when",
    [
        ("--at", "yesterday"),
        ("--cron", "@daily"),
        ("--at", "in 1 h", "--within", "ages"),
    ],
)
def test_a_time_that_cannot_be_read_is_refused(when: tuple[str, ...]) -> None:
    assert refused("add", *when, *MOVE).hint


def test_without_a_job_the_list_says_so_and_makes_no_store() -> None:
    assert ask("list") == ""
    assert not default_path().exists()


def test_a_job_is_removed() -> None:
    keep(once(), again())
    assert "Removed job 1" in ask("remove", "1")
    assert [job["number"] for job in json.loads(ask("list", "--json"))["jobs"]] == [2]
    assert "no job 1" in refused("remove", "1").what


def test_a_job_that_nobody_carried_out_is_told_as_overdue() -> None:
    keep(once())
    result = CliRunner().invoke(root, ["schedule", "list"])
    assert "overdue since 1970-01-01 00:16" in result.stdout
    assert "no scheduler runs" in result.stderr
    assert json.loads(ask("list", "--json"))["jobs"][0]["overdue"] == 1000.0


def test_show_tells_every_turn() -> None:
    [job] = keep(once())
    with Store.open() as store:
        run = Jobs(store).claim(JobRun(1, 1000.0, RunState.RUNNING, holder(), 1001.0))
        assert run is not None
        done = replace(run, state=RunState.DONE, ended=1010.0, code=4, move=7)
        Jobs(store).finish(replace(done, message="first\n│ the link is down │\n╰──╯"))
    shown = ask("show", "1")
    assert "not moved (4)" in shown
    assert shown.rstrip().endswith("7     the link is down")
    [turn] = json.loads(ask("show", f"{job.number}", "--json"))["turns"]
    assert (turn["code"], turn["move"], turn["state"]) == (4, 7, "done")


def test_install_writes_the_unit_and_says_what_to_do(state: Path) -> None:
    path = state / "config/systemd/user/whimbrel-scheduler.service"
    assert "[Service]" in ask("install", "--print")
    assert not path.exists()
    told = ask("install")
    assert path.exists()
    assert "systemctl --user enable --now" in told
    assert f"Wrote {path}. Nothing runs yet" in told
    assert json.loads(ask("install", "--json"))["written"] is True


@pytest.mark.parametrize(
    "command", [["schedule"], *(["schedule", each] for each in ("add", "list", "show", "remove"))]
)
def test_help_ends_with_the_exit_codes(command: list[str]) -> None:
    result = CliRunner().invoke(program(), [*command, "--help"])
    assert result.stdout.rstrip().endswith("130 interrupted")


def test_the_first_turn_that_did_not_end_well_is_the_exit_code() -> None:
    done = JobRun(1, 0.0, RunState.DONE, "", 0.0, code=0)
    assert exit_code([]) == exit_code([done]) == 0
    assert exit_code([done, replace(done, code=8), replace(done, code=6)]) == 8
    assert exit_code([replace(done, state=RunState.MISSED, code=None)]) == 4
    assert exit_code([replace(done, state=RunState.LOST, code=None)]) == 5
    assert exit_code([replace(done, code=-9)]) == 5


def due_now(*words: str) -> Job:
    return once(words=words, at=time.time() - 1, added=0.0, folder="/")


@contextmanager
def scheduler(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """The real one, as a process; it is killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "whimbrel", "scheduler", "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def test_a_scheduler_carries_out_what_is_due_and_ends_well_on_sigterm() -> None:
    keep(due_now("history", "--limit", "none"))
    with scheduler() as process:
        begun, over = told(process), told(process)
        assert (begun["state"], over["state"], over["code"]) == ("running", "done", 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    [run] = turns()
    assert run.code == 2
    assert "Usage: whimbrel history" in run.message


def test_once_carries_out_what_is_due_and_ends_with_what_went_wrong() -> None:
    keep(due_now("history", "--json"), once(words=("history",)))
    with scheduler("--once") as process:
        assert process.wait(60) == 4
    assert {run.job: run.state for run in turns()} == {1: RunState.DONE, 2: RunState.MISSED}
    assert '"schema": "whimbrel.history/1"' in turns(1)[0].message

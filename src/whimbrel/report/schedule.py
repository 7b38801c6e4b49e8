"""Jobs and their turns, as words for people and as documents."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from whimbrel.errors import ExitCode
from whimbrel.model.job import Job, JobRun, RunState
from whimbrel.report.words import NOTHING

SCHEDULE_SCHEMA = "whimbrel.schedule/1"
JOB_SCHEMA = "whimbrel.job/1"
TURN_SCHEMA = "whimbrel.turn/1"

JOB_COLUMNS = ("Job", "When", "Next", "Last", "Command")
TURN_COLUMNS = ("Due", "Began", "Result", "Move", "Message")

OVERDUE_AFTER = 60.0
"""Seconds after which a turn that nobody took tells that no scheduler runs."""

_ENDS = {
    ExitCode.DONE: "done",
    ExitCode.CONFIG: "a value is wrong",
    ExitCode.NO_PLAN: "refused",
    ExitCode.SAFE_AT_SOURCE: "not moved",
    ExitCode.PLACE_UNKNOWN: "place unknown",
    ExitCode.HOST: "host failed",
    ExitCode.GOAL_MISSED: "moved, goal missed",
    ExitCode.INTERRUPTED: "interrupted",
}


@dataclass(frozen=True)
class Listed:
    """A job with what is known of its turns.

    Attributes:
        job: The job.
        next: When it is due next, seconds since 1970-01-01 UTC; None for never again.
        overdue: When it was due without anybody taking it; None where all is settled.
        runs: Its turns, the latest first.
    """

    job: Job
    next: float | None
    overdue: float | None
    runs: tuple[JobRun, ...] = ()


def command_text(words: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(["whimbrel", *words])


def result_words(run: JobRun) -> str:
    """Return in a few words what became of a turn."""
    if run.state is not RunState.DONE:
        return run.state.value
    if run.code is None:
        return "not started"
    words = next((text for code, text in _ENDS.items() if code == run.code), "failed")
    return words if run.code == ExitCode.DONE else f"{words} ({run.code})"


def job_cells(listed: Listed, zone: tzinfo) -> tuple[str, ...]:
    """Return a job's row under `JOB_COLUMNS`, its times in a zone."""
    job = listed.job
    last = listed.runs[0] if listed.runs else None
    if listed.overdue is not None:
        following = f"overdue since {_shown(listed.overdue, zone)}"
    else:
        following = NOTHING if listed.next is None else _shown(listed.next, zone)
    return (
        f"{job.number}",
        job.cron or "once",
        following,
        NOTHING if last is None else f"{_shown(last.due, zone)} {result_words(last)}",
        command_text(job.words),
    )


def turn_cells(run: JobRun, zone: tzinfo) -> tuple[str, ...]:
    """Return a turn's row under `TURN_COLUMNS`, its times in a zone."""
    began = run.state is not RunState.MISSED
    return (
        _shown(run.due, zone),
        _shown(run.began, zone) if began else NOTHING,
        result_words(run),
        NOTHING if run.move is None else f"{run.move}",
        _last_words(run.message),
    )


def turn_line(run: JobRun, job: Job, zone: tzinfo) -> str:
    """Return one line that tells of a turn as it is begun or over."""
    words = f"job {job.number}, due {_shown(run.due, zone)}: {result_words(run)}"
    move = "" if run.move is None else f", move {run.move}"
    message = f": {run.message}" if run.message else ""
    return f"{words}{move}, {command_text(job.words)}{message}"


def schedule_document(listed: Sequence[Listed]) -> dict[str, object]:
    """Return all jobs as JSON can say them, each with its last turn."""
    jobs = [{**_job(each), "last": _turn(each.runs[0]) if each.runs else None} for each in listed]
    return {"schema": SCHEDULE_SCHEMA, "jobs": jobs}


def job_document(listed: Listed) -> dict[str, object]:
    """Return one job with all its turns, the latest first."""
    runs = [_turn(run) for run in listed.runs]
    return {"schema": JOB_SCHEMA, **_job(listed), "turns": runs}


def turn_document(run: JobRun, job: Job) -> dict[str, object]:
    """Return one turn, as the scheduler tells of it."""
    return {"schema": TURN_SCHEMA, "job": job.number, "words": list(job.words), **_turn(run)}


def _job(listed: Listed) -> dict[str, object]:
    job = listed.job
    return {
        "number": job.number,
        "words": list(job.words),
        "at": job.at,
        "cron": job.cron or None,
        "zone": job.zone,
        "window": job.window,
        "folder": job.folder,
        "added": job.added,
        "next": listed.next,
        "overdue": listed.overdue,
    }


def _turn(run: JobRun) -> dict[str, object]:
    return {
        "due": run.due,
        "state": run.state.value,
        "began": None if run.state is RunState.MISSED else run.began,
        "ended": run.ended,
        "code": run.code,
        "message": run.message,
        "move": run.move,
    }


def _last_words(message: str) -> str:
    """Return the last line that says something, without the frame that typer draws around it."""
    lines = [line.strip(" │╭╮╰╯─") for line in message.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _shown(moment: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(moment, zone).strftime("%Y-%m-%d %H:%M")

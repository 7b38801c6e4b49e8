"""Jobs and their turns in the store, and the claim that keeps two schedulers from one turn."""

import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from whimbrel.errors import ConfigError
from whimbrel.model.job import Job, JobRun, RunState
from whimbrel.store import Store

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE = Path("/etc/machine-id")


class Jobs:
    """The jobs of one store; every method raises `ConfigError` where the store cannot be used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, job: Job) -> Job:
        """Keep a job, and return it with its number."""
        row = (json.dumps(job.words), job.at, job.cron, job.zone, job.window, job.folder, job.added)
        with self._store.changing() as connection:
            names = "words, at, cron, zone, window, folder, added"
            text = f"INSERT INTO jobs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
            return replace(job, number=int(connection.execute(text, row).lastrowid or 0))

    def all(self) -> tuple[Job, ...]:
        """Return all jobs by their numbers."""
        with self._store.asking() as connection:
            return tuple(_job(row) for row in connection.execute("SELECT * FROM jobs"))

    def get(self, number: int) -> Job:
        """Return one job; raise `ConfigError` where there is none of that number."""
        with self._store.asking() as connection:
            row = connection.execute("SELECT * FROM jobs WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise ConfigError(f"There is no job {number}.", "List them: whimbrel schedule list")
        return _job(row)

    def remove(self, number: int) -> Job:
        """Forget a job and its turns, and return it; a run that is on its way goes on."""
        job = self.get(number)
        with self._store.changing() as connection:
            connection.execute("DELETE FROM jobs WHERE number = ?", (number,))
            connection.execute("DELETE FROM runs WHERE job = ?", (number,))
        return job

    def runs(self, job: int | None = None, limit: int = -1) -> tuple[JobRun, ...]:
        """Return turns, the latest first: of one job, or of all."""
        text = "SELECT * FROM runs WHERE :job IS NULL OR job = :job"
        text += " ORDER BY due DESC, number DESC LIMIT :limit"
        with self._store.asking() as connection:
            rows = connection.execute(text, {"job": job, "limit": limit})
            return tuple(_run(row) for row in rows)

    def seen_until(self, job: Job) -> float:
        """Return up to when a job's turns are settled: the last that is kept, else its adding."""
        with self._store.asking() as connection:
            text = "SELECT max(due) FROM runs WHERE job = ?"
            (last,) = connection.execute(text, (job.number,)).fetchone()
        return job.added if last is None else max(job.added, float(last))

    def claim(self, run: JobRun) -> JobRun | None:
        """Take a turn, and return it with its number; None where another has it already.

        Nor is one taken whose job was removed meanwhile.
        """
        row = (run.job, run.due, run.state.value, run.holder, run.began, run.ended, run.message)
        with self._store.changing() as connection:
            text = (
                "INSERT OR IGNORE INTO runs (job, due, state, holder, began, ended, message) "
                "SELECT ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM jobs WHERE number = ?)"
            )
            done = connection.execute(text, (*row, run.job))
            taken = done.rowcount == 1
            return replace(run, number=int(done.lastrowid or 0)) if taken else None

    def finish(self, run: JobRun) -> None:
        """Keep how a turn that was taken ended."""
        row = (run.state.value, run.ended, run.code, run.message, run.move, run.number)
        with self._store.changing() as connection:
            text = "UPDATE runs SET state=?, ended=?, code=?, message=?, move=? WHERE number=?"
            connection.execute(text, row)

    def running(self) -> tuple[JobRun, ...]:
        """Return the turns that somebody took and has not finished."""
        with self._store.asking() as connection:
            rows = connection.execute("SELECT * FROM runs WHERE state = 'running'")
            return tuple(_run(row) for row in rows)

    def move_since(self, began: float, words: tuple[str, ...]) -> int | None:
        """Return the number of the latest move of a VM named in `words` begun since then."""
        moves = self._store.moves(20)
        found = (each.number for each in moves if each.began >= began and each.vm in words)
        return next(found, None)


def holder(pid: int | str = "self") -> str:
    """Return what names a process for good: machine, boot, pid and start."""
    text = Path(f"/proc/{pid}/stat").read_text()
    number = text.partition(" ")[0]
    start = text.rpartition(")")[2].split()[19]
    return f"{_machine()} {_BOOT.read_text().strip()} {number} {start}"


def has_ended(name: str) -> bool:
    """Tell whether the process that `holder` named is known to have ended.

    One of another machine (a store on a shared folder) is not known to.
    """
    machine, boot, pid, _ = name.split()
    if machine != _machine():
        return False
    if boot != _BOOT.read_text().strip():
        return True
    try:
        return holder(pid) != name
    except OSError:
        return True


def missed(job: Job, due: float, by: str, message: str, now: float | None = None) -> JobRun:
    """Return a turn that was missed."""
    at = time.time() if now is None else now
    return JobRun(job.number, due, RunState.MISSED, by, at, at, message=message)


def _machine() -> str:
    try:
        return _MACHINE.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _job(row: sqlite3.Row) -> Job:
    values = dict(zip(row.keys(), tuple(row), strict=True))
    values["words"] = tuple(json.loads(values["words"]))
    return Job(**values)


def _run(row: sqlite3.Row) -> JobRun:
    values = dict(zip(row.keys(), tuple(row), strict=True))
    values["state"] = RunState(values["state"])
    return JobRun(**values)

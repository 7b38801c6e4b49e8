"""A move that is planned for later: the job, and each time it was due."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Job:
    """A whimbrel command to be carried out at a time, or again and again.

    Attributes:
        words: The command without "whimbrel": "move", the VM, its flags.
        at: When, seconds since 1970-01-01 UTC; None for one that comes again.
        cron: When, as a cron expression of five fields; empty for one that comes once.
        zone: The zone in which `cron` is read, such as "Europe/Berlin".
        window: Seconds after its time within which it is still carried out.
        folder: The working folder it was planned in, and runs in.
        added: When it was planned, seconds since 1970-01-01 UTC.
        number: Its number in the store; 0 before it is there.
    """

    words: tuple[str, ...]
    at: float | None
    cron: str
    zone: str
    window: float
    folder: str
    added: float
    number: int = 0


class RunState(StrEnum):
    """What became of a job's turn."""

    RUNNING = "running"
    DONE = "done"
    MISSED = "missed"
    LOST = "lost"


@dataclass(frozen=True)
class JobRun:
    """One turn of a job.

    Attributes:
        job: The job's number.
        due: When it was to be, seconds since 1970-01-01 UTC.
        state: Running; done, with the command's exit code; missed, not begun at all; or lost,
            where its scheduler ended before the command did and nobody knows how that went.
        holder: The scheduler that took it.
        began: When it was begun or called missed.
        ended: When it was over; None while it runs.
        code: The command's exit code (docs/cli.md); None where there is none.
        message: The command's last words, or why it was missed.
        move: The number of the move in the history; None where there is none.
        number: Its number in the store; 0 before it is there.
    """

    job: int
    due: float
    state: RunState
    holder: str
    began: float
    ended: float | None = None
    code: int | None = None
    message: str = ""
    move: int | None = None
    number: int = 0

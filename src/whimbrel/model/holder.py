"""Who conducts a move: the process that others are told of, and that may have died."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Holder:
    """One whimbrel.

    Attributes:
        user: The person's name on the machine it runs on.
        host: That machine's name.
        pid: Its process there.
        start: That process's start time, in ticks since the machine booted (proc(5)).
        boot: The machine's boot, so that a process id is never taken for another's.
        since: When it began, in seconds since 1970-01-01 UTC.
    """

    user: str
    host: str
    pid: int
    start: int
    boot: str
    since: float

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid})"

"""A check of the preflight: what was looked at, how that stands, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """How a check ended; errors and warnings are apart."""

    PASS = "pass"
    WARN = "warn"  # the move may go on, and somebody should know
    FAIL = "fail"  # the move would fail, or harm the guest: it must not begin


@dataclass(frozen=True)
class Check:
    """One check of the preflight.

    Attributes:
        name: What was looked at, a few plain words ("machine type", "disk root: same bytes").
        result: How it stands.
        detail: One sentence with what was found.
        remedy: A command or a sentence to copy that mends it; never empty but for a pass.
    """

    name: str
    result: Result
    detail: str
    remedy: str = ""

    def __post_init__(self) -> None:
        """Hold the promise of `remedy`; raises ValueError."""
        if self.result is not Result.PASS and not self.remedy:
            raise ValueError(f"The check {self.name} has no remedy: {self.detail}")


def passed(name: str, detail: str) -> Check:
    """Return a check that found everything in order."""
    return Check(name, Result.PASS, detail)


def warned(name: str, detail: str, remedy: str) -> Check:
    """Return a check that found what somebody should know."""
    return Check(name, Result.WARN, detail, remedy)


def failed(name: str, detail: str, remedy: str) -> Check:
    """Return a check that forbids the move."""
    return Check(name, Result.FAIL, detail, remedy)


def obstacles(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks that forbid the move."""
    return tuple(check for check in checks if check.result is Result.FAIL)


def warnings(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks that somebody should read before the move."""
    return tuple(check for check in checks if check.result is Result.WARN)

"""One cell of a fault matrix as it went, and what was said in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from far.person import Said


@dataclass
class Row:
    """One cell as it went.

    Attributes:
        phase: The phase.
        fault: The fault.
        code: How `whimbrel move` exited; None where the cell is not applicable.
        recovered: How `whimbrel recover` exited; None where it was not called.
        runs_on: Hosts on which the guest runs afterwards.
        said: What move, and recover, said last.
        failures: What is not as it has to be; empty: the cell holds.
        reason: Why it is not applicable, or why the guest is lost.
        seconds: What the command took from the fault on.
        last: The last sentence of whimbrel that says where the guest is.
        date: When it was measured.
        version: Of whimbrel.
        word: What the table calls it, where none of the usual words does.
    """

    phase: StrEnum
    fault: StrEnum
    code: int | None = None
    recovered: int | None = None
    runs_on: Sequence[str] = ()
    said: str = ""
    failures: list[str] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0
    last: str = ""
    date: str = ""
    version: str = ""
    word: str = ""


def last_words(said: Said) -> str:
    """Return all that a command said, its errors first."""
    return f"{said.errors.strip()}\n{said.output.strip()}".strip()


def last_sentence(said: str) -> str:
    """Return the last line that is no table."""
    lines = [line.strip() for line in said.splitlines() if re.search(r"[a-z] .*\.\)?$", line)]
    return lines[-1] if lines else said.strip()

"""What a cell has come to, held against what it has to come to; the same for every matrix.

the command has ended ─► its exit code ─► mend the world ─► (recover)
├► lost: is it said, and does what is advised help
└► else: where does the guest run, is that said, is it whole, what is left over
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from far.person import Said
from faults.expected import Expected
from faults.row import Row, last_sentence, last_words
from faults.underway import DISK, VM
from whimbrel.errors import ExitCode, LabError
from whimbrel.lab.redline import Redline


class Typist(Protocol):
    """Who types the commands, and talks to guests."""

    async def whimbrel(self, *words: str) -> Said:
        """Run the command to its end."""

    def redline(self, vm: str, on: str) -> AbstractAsyncContextManager[Redline]:
        """Talk to the guest on a host."""


class Play(Protocol):
    """What is judged: two hosts, a guest, and a move that has ended."""

    @property
    def at(self) -> Typist:
        """Who types the commands."""

    def mend(self) -> None:
        """Undo what faults have done to the world."""

    async def running(self) -> tuple[str, ...]:
        """Return the hosts on which the guest runs."""


async def judged(
    play: Play,
    row: Row,
    expected: Expected,
    *,
    buried: Callable[[], Awaitable[list[str]]],
    left_over: Callable[[str], Awaitable[list[str]]],
) -> None:
    """Look at what has come of a cell, and say in its row what is not right.

    Args:
        play: Where it was.
        row: Its exit code and words are in it already.
        expected: What it has to come to.
        buried: Does what the last words advise for a lost guest; names what is wrong then.
        left_over: Names what is not as it has to be where the guest runs on a host.
    """
    if row.code not in expected.codes:
        row.failures.append(f"exit code {row.code}")
    play.mend()
    if expected.recovers:
        said = await play.at.whimbrel("recover", VM)
        row.recovered = said.code
        row.said += f"\nrecover: {last_words(said)}"
        if expected.runs_on and said.code != ExitCode.DONE:
            row.failures.append(f"recover: exit code {said.code}")
    row.last = last_sentence(row.said)
    if not expected.runs_on:
        row.reason = expected.why
        row.failures += await buried()
        return
    row.runs_on = await play.running()
    if len(row.runs_on) != 1 or row.runs_on[0] not in expected.runs_on:
        row.failures.append(f"it runs on {' and '.join(row.runs_on) or 'no host'}")
        return
    if not re.search(rf"\b(?:runs|is) on {row.runs_on[0]}\b|goes on as before", row.said):
        row.failures.append("it is not said where the guest runs")
    row.failures += await broken(play, row.runs_on[0])
    row.failures += await left_over(row.runs_on[0])


async def broken(play: Play, host: str) -> list[str]:
    """Name what of the guest on a host is not as it has to be: its memory, or its disk."""
    try:
        async with play.at.redline(VM, host) as guest:
            memory, disk = await guest.verify(), await guest.verify_disk(DISK)
    except (LabError, OSError) as error:
        return [f"the guest does not answer: {error}"]
    found = [] if memory.intact else [f"memory: {memory}"]
    return found if disk.intact else [*found, f"disk: {disk}"]

"""A move by the real command that is under way, followed by its journal as it is written."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from far.person import Said
from whimbrel.model.journal import Entry, Step
from whimbrel.model.migration import Phase
from whimbrel.practice.journal import Tail

VM, DISK = "db", "/dev/vda"
"""The guest of every matrix, and the disk that it checks."""

PATIENCE = 300.0
LOOK_EVERY = 0.002


@dataclass(kw_only=True)
class UnderWay:
    """The move, seen from outside: nothing here asks whimbrel.

    Attributes:
        journals: Where journals lie.
        entries: What the move's journal has told so far.
        process: The move's whimbrel.
    """

    journals: Path
    entries: list[Entry] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    _tail: Tail | None = None
    _undo: list[Callable[[], None]] = field(default_factory=list)

    async def over(self) -> Said:
        """Wait until the move's command has ended, and return what it said."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            output, errors = await self.process.communicate()
        self.read()
        return Said(self.process.returncode or 0, output.decode(), errors.decode())

    @property
    def ended(self) -> bool:
        """Whether the move's command has ended."""
        return self.process is None or self.process.returncode is not None

    def signal(self, number: int) -> None:
        """Send whimbrel a signal."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def read(self) -> None:
        """Read on in the journal."""
        if self._tail is None:
            found = list(self.journals.glob("*.jsonl"))
            if not found:
                return
            self._tail = Tail(found[0])
        self.entries += self._tail.new()

    async def until(self, holds: Callable[[Self], bool], within: float = 90.0) -> bool:
        """Wait until something holds; False when the command ended before, or time is up."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            self.read()
            if holds(self):
                return True
            if self.ended:
                return False
            await asyncio.sleep(LOOK_EVERY)
        return False

    @property
    def steps(self) -> list[Step]:
        """The steps that were announced."""
        between = {Step.EVENT, Step.DECISION}
        return [entry.step for entry in self.entries if entry.step not in between]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind that were told, in order."""
        found = (entry.fields for entry in self.entries if entry.step is Step.EVENT)
        return [each[kind] for each in found if kind in each]

    @property
    def phases(self) -> list[Phase]:
        """The phases that the move has entered."""
        return [Phase(each["phase"]) for each in self.events("phase")]

    def afterwards(self, undo: Callable[[], None]) -> None:
        """Have something undone when the cell is over, or when the world is mended."""
        self._undo.append(undo)

    def mend(self) -> None:
        """Undo what faults have done to the world."""
        while self._undo:
            self._undo.pop()()

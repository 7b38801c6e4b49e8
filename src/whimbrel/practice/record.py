"""What was seen of a move so far, kept in memory and written down as it happens."""

import time
from collections.abc import Callable
from typing import Any

from whimbrel.errors import HostError
from whimbrel.model.journal import Entry, Step, decision_entry, event_entry
from whimbrel.model.migration import Decision, Event, Observation, Pass, Phase, PhaseChange
from whimbrel.ports import Journal


class Unwritten:
    """A journal that keeps nothing: for moves whose both ends die with whimbrel (the lab)."""

    async def write(self, entry: Entry) -> None:
        """See `ports.Journal.write`."""

    def note(self, entry: Entry) -> None:
        """See `ports.Journal.note`."""


class Record:
    """Everything one move has told, in order.

    Args:
        journal: Where it is written down.
        now: Seconds since 1970-01-01 UTC.
    """

    def __init__(self, journal: Journal, now: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._now = now
        self.steps: list[Step] = []
        self.passes: list[Pass] = []
        self.phases: list[PhaseChange] = []
        self.observations: list[Observation] = []
        self.decisions: list[Decision] = []

    async def before(self, step: Step, **fields: Any) -> None:
        """Write down what is about to be done, and return when it is on disk.

        Raises:
            HostError: It cannot be written, and the guest is safe where it is (`may_wait`).
        """
        self.steps.append(step)
        try:
            await self._journal.write(Entry(step, self._now(), fields))
        except HostError:
            if step.may_wait:
                raise

    def take(self, event: Event) -> None:
        """Keep what happened."""
        match event:
            case Pass():
                self.passes.append(event)
            case PhaseChange():
                self.phases.append(event)
            case Observation():
                self.observations.append(event)
        self._journal.note(event_entry(event, self._now()))

    def decided(self, decision: Decision) -> None:
        """Keep what was decided."""
        self.decisions.append(decision)
        self._journal.note(decision_entry(decision, self._now()))

    def entered(self, phase: Phase) -> bool:
        """Tell whether the move has been in this phase."""
        return any(change.phase is phase for change in self.phases)

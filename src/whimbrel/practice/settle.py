"""The end of a move: the guest runs exactly once, and it is known where.

Whoever runs the guest is settled in one order only: the destination runs it after the source
has handed it over; the source takes it back after the destination's process is gone. Where
one of the two cannot be known, nothing is ended and nothing is started.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from whimbrel.errors import HostError
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.ports import Companion, Ended, Machine
from whimbrel.practice.record import Record


@dataclass(frozen=True)
class Moved:
    """A move's outcome, and the machine that holds the guest now (None: nobody does)."""

    outcome: Outcome
    machine: Machine | None


@dataclass(frozen=True)
class Finding:
    """What is known when a move has ended, before anything is done about it.

    Attributes:
        ended: The source's last word, or the phase in which it fell silent.
        silent: Whether the source's stream broke before an end.
        arrived: Whether the guest was seen running at the destination.
        given_up: Why it was cancelled, where that was decided; else empty.
        ending: What a cancelled move is to be called.
    """

    ended: Ended
    silent: bool = False
    arrived: bool = False
    given_up: str = ""
    ending: Ending = Ending.CANCELLED


class Settlement:
    """Settles one move between its two machines.

    Args:
        here: The guest's machine at the source.
        there: The one at the destination.
        companions: What travelled beside memory.
        record: Where each step is written down before it is taken.
    """

    def __init__(
        self, here: Machine, there: Machine, companions: Sequence[Companion], record: Record
    ) -> None:
        self._here = here
        self._there = there
        self._companions = companions
        self._record = record

    async def settle(self, finding: Finding) -> Moved:
        """Make sure that the guest runs exactly once, and say where."""
        ended = finding.ended
        if ended.phase is Phase.COMPLETED and finding.arrived:
            return await self._arrived()
        if self._record.entered(Phase.POSTCOPY):
            return _lost(
                f"post-copy broke, and no side holds all of the guest's memory: {ended.reason}"
            )
        if finding.silent:
            return await self._ask_silent_source(ended.reason)
        await self.undo()
        return await self._back_at_source(finding)

    async def undo(self) -> None:
        """Leave nothing of the move at the destination; the guest never left the source."""
        for companion in reversed(self._companions):
            with suppress(HostError):  # what it leaves, ends with the destination's process
                await companion.after_failure()
        await self._record.before(Step.STOPPING_THERE)
        await self._there.stop()
        await _forget_move(self._here)

    async def _arrived(self) -> Moved:
        await self._record.before(Step.STOPPING_HERE)
        await self._here.stop()
        left = []
        for companion in self._companions:
            try:
                await companion.after_arrival()
            except HostError as error:
                left.append(error.what)
        await _forget_move(self._there)
        return Moved(Outcome(Ending.COMPLETED, " ".join(left), Side.DESTINATION), self._there)

    async def _ask_silent_source(self, reason: str) -> Moved:
        # The destination may hold the whole guest by now: it is not ended before the source
        # has said that the guest is there.
        try:
            runs_here = await self._here.running()
        except HostError as error:
            return _lost(f"{reason} {error.what}")
        if not runs_here:
            return _lost(f"the source is gone: {reason}")
        await self.undo()
        return Moved(Outcome(Ending.FAILED, reason, Side.SOURCE), self._here)

    async def _back_at_source(self, finding: Finding) -> Moved:
        ended = finding.ended
        ending, reason = Ending.FAILED, ended.reason
        if ended.phase is Phase.CANCELLED:
            ending, reason = finding.ending, finding.given_up or reason
        try:
            if not await self._here.running():
                await self._record.before(Step.RESUMING_HERE)
                await self._here.resume()
        except HostError as error:
            return _lost(f"{reason}; the source does not answer either: {error.what}")
        return Moved(Outcome(ending, reason, Side.SOURCE), self._here)


async def _forget_move(machine: Machine) -> None:
    with suppress(HostError):  # it does not answer: whoever recovers it sees to that
        await machine.forget_move()


def _lost(reason: str) -> Moved:
    return Moved(Outcome(Ending.FAILED, reason, None), None)

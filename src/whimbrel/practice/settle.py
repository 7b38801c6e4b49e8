"""The end of a move: the guest runs exactly once, and it is known where.

    completed, and seen running there ─► stop here
    cancelled or failed before the hand-over ─► stop there, runs here
    anything else (a side fell silent, post-copy broke) ─► both are asked: `repair`

Whoever runs the guest is settled in one order only: the destination runs it after the source
has handed it over; the source takes it back after the destination's process is gone. Where
one of the two cannot be known, nothing is ended and nothing is started.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from whimbrel.errors import HostError
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.ports import Companion, Ended, Machine
from whimbrel.practice.cases import case_of
from whimbrel.practice.record import Record
from whimbrel.practice.repair import Deserted, look, repair


@dataclass(frozen=True)
class Moved:
    """A move's outcome, and the machine that holds the guest now (None: nobody does)."""

    outcome: Outcome
    machine: Machine | None


@dataclass(frozen=True)
class Finding:
    """What is known when a move has ended, before anything is done about it.

    Attributes:
        ended: The source's last word, or why it fell silent.
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
        move: The same move, for the case that a side falls silent.
        companions: What travelled beside memory.
        record: Where each step is written down before it is taken.
    """

    def __init__(
        self,
        here: Machine,
        there: Machine,
        move: Deserted,
        companions: Sequence[Companion],
        record: Record,
    ) -> None:
        self._here = here
        self._there = there
        self._move = move
        self._companions = companions
        self._record = record
        self._may_be_there = False

    async def settle(self, finding: Finding) -> Moved:
        """Make sure that the guest runs exactly once, and say where."""
        if finding.ended.phase is Phase.COMPLETED and finding.arrived:
            return await self._arrived()
        if finding.silent:
            return await self._ask_both(finding.ended.reason)
        if self._record.entered(Phase.POSTCOPY):
            return await self._broken_postcopy(finding.ended.reason)
        await self.undo()
        return await self._back_at_source(finding)

    async def undo(self) -> None:
        """Leave nothing of the move at the destination; the guest never left the source."""
        await self._undo_companions()
        await self._record.before(Step.STOPPING_THERE)
        try:
            await self._there.stop()
        except HostError:
            self._may_be_there = True  # it waits, and never runs by itself
        await _forget_move(self._here)

    async def _undo_companions(self) -> None:
        for companion in reversed(self._companions):
            with suppress(HostError):  # what it leaves, ends with the destination's process
                await companion.after_failure()

    async def _arrived(self) -> Moved:
        await self._record.before(Step.STOPPING_HERE)
        left = []
        try:
            await self._here.stop()
        except HostError as error:
            left.append(f"What is left at the source could not be ended: {error.what}")
        left += await self._release()
        await _forget_move(self._there)
        return Moved(Outcome(Ending.COMPLETED, " ".join(left), Side.DESTINATION), self._there)

    async def _release(self) -> list[str]:
        left = []
        for companion in self._companions:
            try:
                await companion.after_arrival()
            except HostError as error:
                left.append(error.what)
        return left

    async def _ask_both(self, reason: str) -> Moved:
        repaired = await repair(self._deserted(), self._record)
        if repaired.runs_on is Side.DESTINATION:
            left = " ".join([reason, repaired.last.hint, *await self._release()]).strip()
            return Moved(Outcome(Ending.COMPLETED, left, Side.DESTINATION), self._there)
        if repaired.runs_on is Side.SOURCE:
            await self._undo_companions()
            return Moved(Outcome(Ending.FAILED, reason, Side.SOURCE), self._here)
        case = repaired.last
        return _lost(f"{reason} {case.sentence} {case.hint}".strip())

    async def _broken_postcopy(self, reason: str) -> Moved:
        case = case_of(await look(self._deserted()))
        return _lost(f"{reason}. {case.sentence} {case.hint}".strip())

    def _deserted(self) -> Deserted:
        steps = self._record.steps
        return replace(self._move, last=steps[-1] if steps else None, exact=True)

    async def _back_at_source(self, finding: Finding) -> Moved:
        ended = finding.ended
        ending, reason = Ending.FAILED, ended.reason
        if ended.phase is Phase.CANCELLED:
            ending, reason = finding.ending, finding.given_up or reason
        try:
            if not await self._here.running():
                if self._may_be_there and Step.RUNNING_THERE in self._record.steps:
                    return _lost(f"{reason}; the destination does not answer: it may run there")
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

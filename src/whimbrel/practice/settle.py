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
from whimbrel.practice.cases import Repair, case_of
from whimbrel.practice.record import Record
from whimbrel.practice.repair import Deserted, look, repair

CLEAR = "When that host answers: whimbrel recover."
"""What is to be done about what is left over."""


@dataclass(frozen=True)
class Moved:
    """How a move was settled.

    Attributes:
        outcome: How it ended.
        machine: What holds the guest now; None: nobody does, or that is not known.
        left: What could not be cleared away, a sentence each; `whimbrel recover` does later.
        over: Whether the guest is known to run nowhere, so that nothing is left to find out.
    """

    outcome: Outcome
    machine: Machine | None
    left: tuple[str, ...] = ()
    over: bool = False


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
        self._left: list[str] = []

    async def settle(self, finding: Finding) -> Moved:
        """Make sure that the guest runs exactly once, and say where, and what is left over."""
        moved = await self._settled(finding)
        if not self._left:
            return moved
        reason = " ".join([_sentence(moved.outcome.reason), *self._left, CLEAR]).strip()
        return replace(moved, outcome=replace(moved.outcome, reason=reason), left=self.left)

    async def _settled(self, finding: Finding) -> Moved:
        if finding.ended.phase is Phase.COMPLETED and finding.arrived:
            return await self._arrived()
        if finding.silent:
            return await self._ask_both(finding.ended.reason)
        if self._record.entered(Phase.POSTCOPY):
            return await self._broken_postcopy(finding.ended.reason)
        await self._undo()
        return await self._back_at_source(finding)

    @property
    def left(self) -> tuple[str, ...]:
        """What could not be cleared away, a sentence each."""
        return tuple(self._left)

    async def called_off(self) -> bool:
        """Undo a move of which nothing was sent; tell whether the guest is seen to run here."""
        await self._undo()
        with suppress(HostError):
            return await self._here.running()
        return False

    async def _undo(self) -> None:
        """Leave nothing of the move at the destination; the guest never left the source."""
        await self._undo_companions(self._here)
        await self._record.before(Step.STOPPING_THERE)
        try:
            await self._there.stop()
        except HostError as error:
            self._may_be_there = True
            self._left.append(
                "What waits at the destination, and never runs by itself, could not be ended: "
                f"{_sentence(error.what)}"
            )
        await _forget_move(self._here)

    async def _undo_companions(self, machine: Machine | None) -> None:
        for companion in reversed(self._companions):
            try:
                await companion.after_failure(machine)
            except HostError as error:
                self._left.append(_sentence(error.what))

    async def _arrived(self) -> Moved:
        await self._record.before(Step.STOPPING_HERE)
        try:
            await self._here.stop()
        except HostError as error:
            what = _sentence(error.what)
            self._left.append(f"What is left at the source could not be ended: {what}")
        await self._release()
        await _forget_move(self._there)
        return Moved(Outcome(Ending.COMPLETED, "", Side.DESTINATION), self._there)

    async def _release(self) -> None:
        for companion in self._companions:
            try:
                await companion.after_arrival()
            except HostError as error:
                self._left.append(_sentence(error.what))

    async def _ask_both(self, reason: str) -> Moved:
        repaired = await repair(self._deserted(), self._record)
        case = repaired.last
        self._left = []  # whatever it was, it has been looked for again
        if repaired.runs_on is not None and case.repair is not Repair.NOTHING:
            self._left.append(f"{case.sentence} {case.hint}".strip())
        if repaired.runs_on is Side.DESTINATION:
            await self._release()
            return Moved(Outcome(Ending.COMPLETED, reason, Side.DESTINATION), repaired.machine)
        over = case.over
        if repaired.runs_on is Side.SOURCE or (over and Step.RUNNING_THERE not in self._steps):
            await self._undo_companions(repaired.machine)
        if repaired.runs_on is Side.SOURCE:
            return Moved(Outcome(Ending.FAILED, reason, Side.SOURCE), repaired.machine)
        return _lost(f"{_sentence(reason)} {case.sentence} {case.hint}".strip(), over=over)

    async def _broken_postcopy(self, reason: str) -> Moved:
        case = case_of(await look(self._deserted()))
        return _lost(f"{_sentence(reason)} {case.sentence} {case.hint}".strip(), over=case.over)

    @property
    def _steps(self) -> Sequence[Step]:
        return self._record.steps

    def _deserted(self) -> Deserted:
        return replace(self._move, last=self._steps[-1] if self._steps else None, exact=True)

    async def _back_at_source(self, finding: Finding) -> Moved:
        ended = finding.ended
        ending, reason = Ending.FAILED, ended.reason
        if ended.phase is Phase.CANCELLED:
            ending, reason = finding.ending, finding.given_up or reason
        try:
            if not await self._here.running():
                if self._may_be_there and Step.RUNNING_THERE in self._steps:
                    return _lost(f"{reason}; the destination does not answer: it may run there")
                await self._record.before(Step.RESUMING_HERE)
                await self._here.resume()
        except HostError as error:
            return _lost(f"{reason}; the source does not answer either: {error.what}")
        return Moved(Outcome(ending, reason, Side.SOURCE), self._here)


async def _forget_move(machine: Machine) -> None:
    with suppress(HostError):  # it does not answer: whoever recovers it sees to that
        await machine.forget_move()


def _lost(reason: str, *, over: bool = False) -> Moved:
    return Moved(Outcome(Ending.FAILED, reason, None), None, over=over)


def _sentence(words: str) -> str:
    return words if not words or words.endswith((".", "!", "?")) else f"{words}."

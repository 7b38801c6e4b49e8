"""One move, from the request until it is known where the guest runs.

    prepare the destination ─► companions ready ─► send ─► watch
      watch ─┬─ stands still before switchover ─► companions let go ─► proceed
             ├─ completed / postcopy ─► run there ─► stop here
             ├─ cancelled / failed ─► stop there, runs here
             └─ connection lost ─► ask both sides

Each step is in the journal before it is taken. What is done at the end, and in which order,
stands in `settle`.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from whimbrel.errors import CommandRefused, GuestLost, HostError, HostUnreachable, PlaceUnknown
from whimbrel.model.journal import Step
from whimbrel.model.migration import (
    ENDS,
    Action,
    Cancel,
    Event,
    Phase,
    PhaseChange,
    Proceed,
    Side,
    StartPostcopy,
)
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plain import plain
from whimbrel.model.units import format_time
from whimbrel.ports import Ended, Migration, Reception
from whimbrel.practice.attend import Afoot, attended
from whimbrel.practice.interrupts import to_the_end
from whimbrel.practice.mend import Mender
from whimbrel.practice.record import Record
from whimbrel.practice.repair import Deserted
from whimbrel.practice.request import Clock, Request, Watcher
from whimbrel.practice.settle import CLEAR, Finding, Moved, Settlement
from whimbrel.theory.convergence import Convergence

__all__ = ["Clock", "Moved", "Request", "Watcher", "move"]


async def move(request: Request, watcher: Watcher, clock: Clock = time.monotonic) -> Moved:
    """Move a guest, and return how that ended and where it runs now.

    A failed, cancelled or timed-out move is an outcome, not an exception. When the caller is
    cancelled (Ctrl-C), the move is called back first, or, past the point of no return,
    finished; then the cancellation goes on.

    Raises:
        HostError: Before anything was sent: the destination cannot receive, a companion cannot
            come along, or the journal cannot be written. The guest runs at the source, and
            nothing is left at the destination.
    """
    began = clock()
    record = Record(request.journal)
    await record.before(Step.OPENED, **_opening(request))
    try:
        reception = await request.destination.receive(
            request.vm or request.machine.vm, request.settings, request.place
        )
    except BaseException as error:
        await _close_unmoved(record, error, _may_wait_there(error))
        raise
    watcher.prepared(reception.machine)
    conduct = _Conduct(request, reception, watcher, record, lambda: clock() - began)
    return await conduct.carry_out()


def _opening(request: Request) -> dict[str, Any]:
    return {
        "vm": request.machine.vm.name,
        "source": request.source.name,
        "destination": request.destination.name,
        "pid": request.machine.pid,
        "timeout": request.timeout,
        "tuning": plain(request.settings),
    }


def _deserted(request: Request, reception: Reception) -> Deserted:
    name, address = request.machine.vm.name, reception.address
    return Deserted(name, request.source, request.destination, address, patience=request.patience)


def _own_control(request: Request) -> Convergence:
    return Convergence(
        request.tuning,
        request.timeout,
        request.policy,
        certificate=request.certificate,
        prediction=request.prediction,
    )


def _closing(moved: Moved) -> dict[str, Any]:
    outcome = moved.outcome
    return {
        "ending": outcome.ending.value,
        "reason": outcome.reason,
        "runs_on": outcome.runs_on and outcome.runs_on.value,
        "wall_time": outcome.wall_time,
        "over": moved.over,
        "left": list(moved.left),
    }


def _unmoved(error: BaseException, left: Sequence[str] = ()) -> dict[str, Any]:
    reason = str(error) or type(error).__name__
    runs_on = Side.SOURCE.value
    return {"ending": Ending.FAILED.value, "reason": reason, "runs_on": runs_on, "left": list(left)}


def _may_wait_there(error: BaseException) -> tuple[str, ...]:
    if isinstance(error, HostUnreachable):  # then nobody knows how far it was built
        return ("Something may wait at the destination, which never runs by itself.",)
    return ()


async def _close_unmoved(record: Record, error: BaseException, left: Sequence[str]) -> None:
    await record.before(Step.CLOSED, **_unmoved(error, left))
    if left and isinstance(error, HostError):
        what = error.what if error.what.endswith(".") else f"{error.what}."
        raise HostError(" ".join([what, *left]), CLEAR) from error


class _Conduct:
    """The conduct of one move between `receive` and the outcome."""

    def __init__(
        self,
        request: Request,
        reception: Reception,
        watcher: Watcher,
        record: Record,
        elapsed: Clock,
    ) -> None:
        self._request = request
        self._reception = reception
        self._watcher = watcher
        self._record = record
        self._elapsed = elapsed
        self._settlement = Settlement(
            request.machine,
            reception.machine,
            _deserted(request, reception),
            request.companions,
            record,
        )
        self._control = request.control or _own_control(request)
        self._arrived_at: float | None = None
        self._over_at: float | None = None
        self._silent = False
        self._hindrance = ""
        self._interrupts = 0

    async def carry_out(self) -> Moved:
        """Send the guest and see it through."""
        preparation = self._elapsed()
        try:
            migration = await self._send()
        except TimeoutError:
            reason = f"not ready to send memory after {format_time(self._request.timeout)}"
            outcome = Outcome(Ending.TIMEOUT, reason, Side.SOURCE)
            left = self._settlement.left
            return await self._closed(Moved(outcome, self._request.machine, left))
        async with attended(self._request.attendants, self._afoot(migration)):
            ended, moved = await self._see_through(migration)
        outcome = replace(
            moved.outcome,
            arrival_time=self._arrived_at,
            preparation_time=preparation,
            total_time=ended.total_time,
            setup_time=ended.setup_time,
            downtime_reported=None if self._arrived_at is None else ended.downtime,
            hypervisor_bytes=ended.transferred,
            passes=tuple(self._record.passes),
            phases=tuple(self._record.phases),
            observations=tuple(self._record.observations),
            decisions=tuple(self._record.decisions),
        )
        return replace(moved, outcome=outcome)

    async def _send(self) -> Migration:
        request, reception = self._request, self._reception
        address = reception.address
        try:
            await self._record.before(
                Step.PREPARED, host=address.host, port=address.port, pid=reception.machine.pid
            )
            async with asyncio.timeout(request.timeout - self._elapsed()):
                for companion in request.companions:
                    await companion.before_memory(reception)
            await self._record.before(Step.SENDING)
            return await request.source.send(request.machine, request.settings, address)
        except BaseException as error:
            await to_the_end(self._unsent(error))
            raise

    async def _unsent(self, error: BaseException) -> None:
        """Settle a move whose memory was not sent, or of which that is not known."""
        if Step.SENDING not in self._record.steps and await self._settlement.called_off():
            await self._closed_unsent(error)
            return
        reason = error.what if isinstance(error, HostError) else "The move was broken off."
        finding = Finding(Ended(Phase.FAILED, reason), silent=True)
        moved = await self._closed(await self._settlement.settle(finding))
        if moved.outcome.runs_on is not Side.SOURCE:
            lost = GuestLost if moved.over else PlaceUnknown
            raise lost(moved.outcome.reason) from error

    async def _closed_unsent(self, error: BaseException) -> None:
        if isinstance(error, TimeoutError):
            return  # it is an outcome, and closed as one
        await _close_unmoved(self._record, error, self._settlement.left)

    async def _closed(self, moved: Moved) -> Moved:
        await self._record.before(Step.CLOSED, **_closing(moved))
        return moved

    def _afoot(self, migration: Migration) -> Afoot:
        seen = self._record.observations
        there = self._reception.machine
        return Afoot(migration, self._request.machine, there, lambda: seen[-1] if seen else None)

    async def _see_through(self, migration: Migration) -> tuple[Ended, Moved]:
        calls: list[asyncio.Task[None]] = []

        def interrupted(count: int) -> None:
            self._interrupts = count
            calls.append(asyncio.create_task(self._call_back(migration)))

        try:
            return await to_the_end(self._watch_and_settle(migration), interrupted)
        finally:
            for call in calls:
                call.cancel()

    async def _call_back(self, migration: Migration) -> None:
        # Refused past the point of no return, or when it is over: then it runs to its end.
        with suppress(HostError):
            await migration.apply(Cancel())

    async def _watch_and_settle(self, migration: Migration) -> tuple[Ended, Moved]:
        ended = await self._watch(migration)
        # Figures that are asked for afterwards keep no guest waiting.
        wall = self._elapsed() if self._over_at is None else self._over_at
        finding = Finding(
            ended,
            silent=self._silent,
            arrived=self._arrived_at is not None,
            given_up=self._hindrance or self._control.reason,
            ending=self._cancelled_as(),
        )
        moved = await self._settlement.settle(finding)
        moved = replace(moved, outcome=replace(moved.outcome, wall_time=wall))
        return ended, await self._closed(moved)

    def _cancelled_as(self) -> Ending:
        if self._hindrance:
            return Ending.FAILED
        return Ending.TIMEOUT if self._control.too_late else Ending.CANCELLED

    async def _watch(self, migration: Migration) -> Ended:
        offset = self._elapsed()
        phase = Phase.IDLE
        mender = Mender(migration, self._reception, self._record, self._request.patience)
        try:
            async for seen in migration.watch():
                event = replace(seen, at=seen.at + offset)
                self._record.take(event)
                if isinstance(event, PhaseChange):
                    phase = event.phase
                    await self._enter(phase, migration)
                self._watcher.happened(event)
                await self._decide(migration, event)
                mender.hear(event)
                if reason := self._left_alone(phase, mender):
                    if phase is Phase.POSTCOPY_PAUSED:
                        await mender.leave()
                    return Ended(phase, reason)
            return await migration.ended()
        except HostError as error:
            self._silent = phase not in ENDS
            return Ended(Phase.FAILED if self._silent else phase, reason=error.what)
        finally:
            await mender.close()

    def _left_alone(self, phase: Phase, mender: Mender) -> str:
        """Return why a post-copy is left to itself; empty: it is not.

        A first interrupt ends the waiting for a link, a second one the watching.
        """
        enough = {Phase.POSTCOPY_PAUSED: 1, Phase.POSTCOPY: 2}.get(phase)
        if enough is not None and self._interrupts >= enough:
            return f"it was interrupted, and is {phase}"
        return mender.gave_up

    async def _enter(self, phase: Phase, migration: Migration) -> None:
        # First of all things, since the guest stands still until this is done.
        if phase in {Phase.COMPLETED, Phase.POSTCOPY} and self._arrived_at is None:
            await self._record.before(Step.RUNNING_THERE)
            await self._reception.run()
            self._arrived_at = self._elapsed()
            self._watcher.arrived(self._reception.machine)
        if phase is Phase.COMPLETED:
            self._over_at = self._elapsed()
        elif phase is Phase.SWITCHOVER and self._request.settings.pause_before_switchover:
            await self._hand_over(migration)

    async def _hand_over(self, migration: Migration) -> None:
        try:
            await self._record.before(Step.HANDING_OVER)
            for companion in self._request.companions:
                await companion.before_handover()
        except HostError as error:
            self._hindrance = error.what
            await self._call_back(migration)
            return
        # Refused when it was called back meanwhile; its stream says how it ended.
        with suppress(CommandRefused):
            await migration.apply(Proceed())

    async def _decide(self, migration: Migration, event: Event) -> None:
        decision = self._control.hear(event)
        if decision is None:
            return
        self._record.decided(decision)
        self._watcher.decided(decision)
        # Refused when the move was quicker than the decision; its stream says how it ended.
        with suppress(CommandRefused):
            await self._apply(migration, decision.action)

    async def _apply(self, migration: Migration, action: Action) -> None:
        if isinstance(action, StartPostcopy):
            try:
                await self._record.before(Step.POSTCOPY)
            except HostError as error:
                self._hindrance = error.what
                action = Cancel()
        await migration.apply(action)

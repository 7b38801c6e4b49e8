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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.journal import Step
from whimbrel.model.method import Policy, Tuning
from whimbrel.model.migration import (
    ENDS,
    Action,
    Cancel,
    Decision,
    Event,
    Phase,
    PhaseChange,
    Proceed,
    Side,
    StartPostcopy,
)
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plain import plain
from whimbrel.model.plan import Certificate
from whimbrel.model.prediction import Prediction
from whimbrel.model.units import format_time
from whimbrel.ports import Companion, Ended, Hypervisor, Journal, Machine, Migration, Reception
from whimbrel.practice.attend import Afoot, Attendant, attended
from whimbrel.practice.record import Record, Unwritten
from whimbrel.practice.settle import Finding, Moved, Settlement
from whimbrel.theory.convergence import Convergence

__all__ = ["Moved", "Request", "Watcher", "move"]

Clock = Callable[[], float]


class Watcher(Protocol):
    """Somebody who looks on; nothing here may take long, the move waits for it."""

    def prepared(self, machine: Machine) -> None:
        """The destination waits for its guest in `machine`."""

    def happened(self, event: Event) -> None:
        """Something happened; `event.at` counts from the request."""

    def decided(self, decision: Decision) -> None:
        """Something was decided and will be carried out."""

    def arrived(self, machine: Machine) -> None:
        """The guest runs in `machine`, at the destination."""


@dataclass(frozen=True)
class Request:
    """What shall be moved, from where to where, and how.

    Attributes:
        source: The host the guest runs on.
        machine: The guest's machine there.
        destination: The host it shall run on.
        address: Where the destination shall listen.
        tuning: Every setting.
        timeout: Seconds after which the move is cancelled.
        policy: How far the guard may go where the move does not converge; None leaves it alone.
        certificate: When a guarded move has to go over to which rung, counted from the request.
        prediction: What was foreseen of it; the guard is sooner alarmed where that is not met.
        companions: What travels beside memory.
        journal: Where each step is written down before it is taken.
        attendants: What acts beside the move while the guest is on its way.
        companions: What travels beside memory.
        journal: Where each step is written down before it is taken.
        vm: What is built at the destination, where its disks lie elsewhere; None: as here.
    """

    source: Hypervisor
    machine: Machine
    destination: Hypervisor
    address: MigrationAddress
    tuning: Tuning
    timeout: float
    policy: Policy | None = None
    certificate: Certificate | None = None
    prediction: Prediction | None = None
    attendants: tuple[Attendant, ...] = ()
    companions: tuple[Companion, ...] = ()
    journal: Journal = field(default_factory=Unwritten)

    @property
    def settings(self) -> Tuning:
        """The tuning; with companions the guest waits for them before it is handed over."""
        if not self.companions:
            return self.tuning
        return replace(self.tuning, pause_before_switchover=True)

    vm: Vm | None = None


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
            request.vm or request.machine.vm, request.settings, request.address
        )
        watcher.prepared(reception.machine)
        conduct = _Conduct(request, reception, watcher, record, lambda: clock() - began)
        moved = await conduct.carry_out()
    except BaseException as error:
        await record.before(Step.CLOSED, ending=Ending.FAILED.value, reason=str(error))
        raise
    await record.before(Step.CLOSED, **_closing(moved))
    return moved


def _opening(request: Request) -> dict[str, Any]:
    return {
        "vm": request.machine.vm.name,
        "source": request.source.name,
        "destination": request.destination.name,
        "pid": request.machine.pid,
        "timeout": request.timeout,
        "tuning": plain(request.settings),
    }


def _closing(moved: Moved) -> dict[str, Any]:
    outcome = moved.outcome
    return {
        "ending": outcome.ending.value,
        "reason": outcome.reason,
        "runs_on": outcome.runs_on and outcome.runs_on.value,
        "wall_time": outcome.wall_time,
    }


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
            request.machine, reception.machine, request.companions, record
        )
        self._control = Convergence(
            request.tuning,
            request.timeout,
            request.policy,
            certificate=request.certificate,
            prediction=request.prediction,
        )
        self._arrived_at: float | None = None
        self._silent = False
        self._hindrance = ""

    async def carry_out(self) -> Moved:
        """Send the guest and see it through."""
        preparation = self._elapsed()
        try:
            migration = await self._send()
        except TimeoutError:
            return Moved(
                Outcome(Ending.TIMEOUT, self._too_slow(), Side.SOURCE), self._request.machine
            )
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
        return Moved(outcome, moved.machine)

    async def _send(self) -> Migration:
        request, reception = self._request, self._reception
        address = reception.address
        try:
            await self._record.before(
                Step.PREPARED, host=address.host, port=address.port, pid=reception.machine.pid
            )
            async with asyncio.timeout(self._left()):
                for companion in request.companions:
                    await companion.before_memory(reception)
            await self._record.before(Step.SENDING)
            return await request.source.send(request.machine, request.settings, address)
        except BaseException:
            await self._settlement.undo()
            raise

    def _left(self) -> float:
        return self._request.timeout - self._elapsed()

    def _too_slow(self) -> str:
        return f"not ready to send memory after {format_time(self._request.timeout)}"

    def _afoot(self, migration: Migration) -> Afoot:
        seen = self._record.observations
        there = self._reception.machine
        return Afoot(migration, self._request.machine, there, lambda: seen[-1] if seen else None)

    async def _see_through(self, migration: Migration) -> tuple[Ended, Moved]:
        watching = asyncio.ensure_future(self._watch_and_settle(migration))
        try:
            return await asyncio.shield(watching)
        except asyncio.CancelledError:
            await self._call_back(migration)
            await watching
            raise

    async def _call_back(self, migration: Migration) -> None:
        # Refused past the point of no return, or when it is over: then it runs to its end.
        with suppress(HostError):
            await migration.apply(Cancel())

    async def _watch_and_settle(self, migration: Migration) -> tuple[Ended, Moved]:
        ended = await self._watch(migration)
        wall = self._elapsed()
        finding = Finding(
            ended,
            silent=self._silent,
            arrived=self._arrived_at is not None,
            given_up=self._hindrance or self._control.reason,
            ending=self._cancelled_as(),
        )
        moved = await self._settlement.settle(finding)
        return ended, replace(moved, outcome=replace(moved.outcome, wall_time=wall))

    def _cancelled_as(self) -> Ending:
        if self._hindrance:
            return Ending.FAILED
        return Ending.TIMEOUT if self._control.too_late else Ending.CANCELLED

    async def _watch(self, migration: Migration) -> Ended:
        offset = self._elapsed()
        phase = Phase.IDLE
        try:
            async for seen in migration.watch():
                event = replace(seen, at=seen.at + offset)
                if isinstance(event, PhaseChange):
                    phase = event.phase
                    await self._enter(phase, migration)
                self._record.take(event)
                self._watcher.happened(event)
                await self._decide(migration, event)
            return await migration.ended()
        except HostError as error:
            self._silent = phase not in ENDS
            return Ended(Phase.FAILED if self._silent else phase, reason=error.what)

    async def _enter(self, phase: Phase, migration: Migration) -> None:
        # First of all things, since the guest stands still until this is done.
        if phase in {Phase.COMPLETED, Phase.POSTCOPY} and self._arrived_at is None:
            await self._record.before(Step.RUNNING_THERE)
            await self._reception.run()
            self._arrived_at = self._elapsed()
            self._watcher.arrived(self._reception.machine)
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

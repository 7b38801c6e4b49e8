"""One move, from the request until it is known where the guest runs.

    prepare the destination ─► send ─► watch ─┬─ completed / postcopy ─► run there ─► stop here
                                              ├─ cancelled / failed ─► stop there, runs here
                                              └─ connection lost ─► ask both sides

Whoever runs the guest is settled in one order only: the destination runs it after the
source has handed it over; the source takes it back after the destination's process is gone.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Policy, Tuning
from whimbrel.model.migration import (
    ENDS,
    Cancel,
    Decision,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    Side,
)
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plan import Certificate
from whimbrel.model.prediction import Prediction
from whimbrel.ports import Ended, Hypervisor, Machine, Migration, Reception
from whimbrel.practice.attend import Afoot, Attendant, attended
from whimbrel.theory.convergence import Convergence

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
        attendants: What acts beside the move while the guest is on its way.
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


@dataclass(frozen=True)
class Moved:
    """A move's outcome, and the machine that holds the guest now (None: nobody does)."""

    outcome: Outcome
    machine: Machine | None


@dataclass
class _Record:
    """What was seen so far."""

    passes: list[Pass] = field(default_factory=list)
    phases: list[PhaseChange] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def take(self, event: Event) -> None:
        match event:
            case Pass():
                self.passes.append(event)
            case PhaseChange():
                self.phases.append(event)
            case Observation():
                self.observations.append(event)

    @property
    def handed_over(self) -> bool:
        """Whether the source gave the guest away."""
        return any(p.phase in {Phase.POSTCOPY, Phase.COMPLETED} for p in self.phases)


async def move(request: Request, watcher: Watcher, clock: Clock = time.monotonic) -> Moved:
    """Move a guest, and return how that ended and where it runs now.

    A failed, cancelled or timed-out move is an outcome, not an exception. When the caller is
    cancelled (Ctrl-C), the move is called back first, or, past the point of no return,
    finished; then the cancellation goes on.

    Raises:
        HostError: Before anything was sent: the destination cannot receive. The guest runs
            at the source, and nothing is left at the destination.
    """
    began = clock()
    reception = await request.destination.receive(
        request.machine.vm, request.tuning, request.address
    )
    preparation = clock() - began
    watcher.prepared(reception.machine)
    conduct = _Conduct(request, reception, watcher, clock, began)
    return await conduct.carry_out(preparation)


class _Conduct:
    """The conduct of one move between `receive` and the outcome."""

    def __init__(
        self,
        request: Request,
        reception: Reception,
        watcher: Watcher,
        clock: Clock,
        began: float,
    ) -> None:
        self._request = request
        self._reception = reception
        self._watcher = watcher
        self._clock = clock
        self._began = began
        self._record = _Record()
        self._control = Convergence(
            request.tuning,
            request.timeout,
            request.policy,
            certificate=request.certificate,
            prediction=request.prediction,
        )
        self._arrived_at: float | None = None
        self._silent = False

    async def carry_out(self, preparation: float) -> Moved:
        """Send the guest and see it through."""
        request = self._request
        try:
            migration = await request.source.send(
                request.machine, request.tuning, self._reception.address
            )
        except BaseException:
            await self._reception.machine.stop()
            raise
        async with attended(request.attendants, self._afoot(migration)):
            ended = await self._see_through(migration)
            wall = self._clock() - self._began
            moved = await self._settle(ended)
        outcome = replace(
            moved.outcome,
            wall_time=wall,
            arrival_time=self._arrived_at and self._arrived_at - self._began,
            preparation_time=preparation,
            total_time=ended.total_time,
            setup_time=ended.setup_time,
            downtime_reported=ended.downtime if self._arrived_at else None,
            hypervisor_bytes=ended.transferred,
            passes=tuple(self._record.passes),
            phases=tuple(self._record.phases),
            observations=tuple(self._record.observations),
            decisions=tuple(self._record.decisions),
        )
        return Moved(outcome, moved.machine)

    def _afoot(self, migration: Migration) -> Afoot:
        seen = self._record.observations
        there = self._reception.machine
        return Afoot(migration, self._request.machine, there, lambda: seen[-1] if seen else None)

    async def _see_through(self, migration: Migration) -> Ended:
        watching = asyncio.ensure_future(self._watch(migration))
        try:
            return await asyncio.shield(watching)
        except asyncio.CancelledError:
            await self._call_back(migration)
            await self._settle(await watching)
            raise

    async def _call_back(self, migration: Migration) -> None:
        # Refused past the point of no return, or when it is over: then it runs to its end.
        with suppress(HostError):
            await migration.apply(Cancel())

    async def _watch(self, migration: Migration) -> Ended:
        offset = self._clock() - self._began
        phase = Phase.IDLE
        try:
            async for seen in migration.watch():
                event = replace(seen, at=seen.at + offset)
                self._record.take(event)
                if isinstance(event, PhaseChange):
                    phase = event.phase
                    await self._run_when_handed_over(phase)
                self._watcher.happened(event)
                await self._decide(migration, event)
            return await migration.ended()
        except HostError as error:
            self._silent = phase not in ENDS
            return Ended(Phase.FAILED if self._silent else phase, reason=error.what)

    async def _run_when_handed_over(self, phase: Phase) -> None:
        # First of all things, since the guest stands still until this is done.
        if phase in {Phase.COMPLETED, Phase.POSTCOPY} and self._arrived_at is None:
            await self._reception.run()
            self._arrived_at = self._clock()
            self._watcher.arrived(self._reception.machine)

    async def _decide(self, migration: Migration, event: Event) -> None:
        decision = self._control.hear(event)
        if decision is None:
            return
        self._record.decisions.append(decision)
        self._watcher.decided(decision)
        # Refused when the move was quicker than the decision; its stream says how it ended.
        with suppress(CommandRefused):
            await migration.apply(decision.action)

    async def _settle(self, ended: Ended) -> Moved:
        """Make sure that the guest runs exactly once, and say where."""
        there = self._reception.machine
        here = self._request.machine
        if ended.phase is Phase.COMPLETED and self._arrived_at is not None:
            await here.stop()
            return Moved(Outcome(Ending.COMPLETED, "", Side.DESTINATION), there)
        if any(p.phase is Phase.POSTCOPY for p in self._record.phases):
            return await self._after_lost_postcopy(ended)
        if self._silent:
            return await self._ask_silent_source(ended)
        await there.stop()
        return await self._back_at_source(ended)

    async def _after_lost_postcopy(self, ended: Ended) -> Moved:
        reason = f"post-copy broke, and no side holds all of the guest's memory: {ended.reason}"
        return Moved(Outcome(Ending.FAILED, reason, None), None)

    async def _ask_silent_source(self, ended: Ended) -> Moved:
        # The destination may hold the whole guest by now: it is not ended before the source
        # has said that the guest is there.
        try:
            runs_here = await self._request.machine.running()
        except HostError as error:
            return Moved(Outcome(Ending.FAILED, f"{ended.reason} {error.what}", None), None)
        if not runs_here:
            return Moved(Outcome(Ending.FAILED, f"the source is gone: {ended.reason}", None), None)
        await self._reception.machine.stop()
        return Moved(Outcome(Ending.FAILED, ended.reason, Side.SOURCE), self._request.machine)

    async def _back_at_source(self, ended: Ended) -> Moved:
        here = self._request.machine
        ending = Ending.CANCELLED if ended.phase is Phase.CANCELLED else Ending.FAILED
        reason = ended.reason
        if self._control.gave_up and ending is Ending.CANCELLED:
            ending = Ending.TIMEOUT if self._control.too_late else Ending.CANCELLED
            reason = self._control.reason
        try:
            if not await here.running():
                await here.resume()
        except HostError as error:
            lost = f"{reason}; the source does not answer either: {error.what}"
            return Moved(Outcome(Ending.FAILED, lost, None), None)
        return Moved(Outcome(ending, reason, Side.SOURCE), here)

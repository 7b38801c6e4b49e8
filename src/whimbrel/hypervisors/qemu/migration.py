"""A guest leaving a QEMU: events for what matters, polling for people.

Passes come from MIGRATION_PASS events, since only figures at the start of a pass can be
compared; observations come from asking every 100 ms, QEMU's own window (BUFFER_DELAY).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from whimbrel.errors import CommandRefused, HostUnreachable, ProtocolError
from whimbrel.hypervisors.qemu.monitor import Events, Monitor
from whimbrel.hypervisors.qemu.translate import (
    channels_argument,
    ended_from,
    limit_parameters,
    observation_from,
    phase_of,
)
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Transport
from whimbrel.model.migration import (
    ENDS,
    TRANSITIONS,
    Action,
    Cancel,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    Proceed,
    SetBandwidthLimit,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.ports import Ended

POLL_EVERY = 0.1

EVENTS = ("MIGRATION", "MIGRATION_PASS")

_RECOVERING = {"postcopy-recover-setup", "postcopy-recover"}


HANDSHAKE_WITHIN = 5.0
"""Seconds for both ends to shake hands (TLS); a far end that is there takes milliseconds."""


SILENT_AT_MOST = 20.0
"""Seconds that a far end may leave what was sent to it without an answer. TCP alone would try
for a quarter of an hour, and during the switchover the guest stands still as long. A link that
is cut for 5 s is found again by TCP's second attempt after it, within 13 s (RFC 6298)."""

Impatience = Callable[[int, float], Awaitable[None]]
"""Lets the source's connections to a port end when the far end is silent for so many seconds."""


async def patient(_port: int, _seconds: float) -> None:
    """Leave connections as they are."""


@dataclass(frozen=True)
class Far:
    """The far end of a migration.

    Attributes:
        port: Its port; 0: not known.
        limit: What limits its silence.
    """

    port: int = 0
    limit: Impatience = patient


@dataclass(frozen=True)
class Guard:
    """What frees a source from a far end that accepts its connection and then keeps silent.

    QEMU waits for a TLS handshake in its main loop, with all its locks held, for as long as the
    far end likes: meanwhile it answers nobody, and the guest stands still.

    Attributes:
        cut: Shuts the source's connections to a port of the destination from outside.
        port: That port.
        phases: When handshakes are due, or a cut does no harm.
    """

    cut: Callable[[int], Awaitable[None]]
    port: int = 0
    phases: frozenset[Phase] = frozenset(
        {
            Phase.IDLE,
            Phase.SETUP,
            Phase.CANCELLING,
            Phase.POSTCOPY_PAUSED,
            # QEMU may say that it is over, and only then come to the handshake.
            Phase.CANCELLED,
            Phase.FAILED,
        }
    )


class QemuMigration:
    """The port's `Migration`, over the source's monitor."""

    def __init__(
        self,
        monitor: Monitor,
        events: Events,
        memory: int,
        alive: Callable[[], bool],
        guard: Guard | None = None,
        *,
        far: Far = Far(),
    ) -> None:
        self._monitor = monitor
        self._guard = guard
        self._far = far
        self._was_cut = self._limited = False
        self._memory = memory
        self._events = events
        self._alive = alive
        self._phase = Phase.IDLE
        self._called_back = self._rejoined = False
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._next_poll = self._began + POLL_EVERY
        self._last = Observation(at=0.0, phase=Phase.IDLE)

    @classmethod
    async def rejoined(
        cls,
        monitor: Monitor,
        events: Events,
        memory: int,
        alive: Callable[[], bool],
        guard: Guard | None = None,
    ) -> "QemuMigration":
        """Return a move that is under way; `CommandRefused` when there is none."""
        answer = await monitor.execute("query-migrate")
        phase = phase_of(answer.get("status", "none"))
        if phase in ENDS or phase is Phase.IDLE:
            events.close()
            raise CommandRefused(f"No move is under way; the last one is {phase}.")
        migration = cls(monitor, events, memory, alive, guard)
        migration._began -= answer.get("total-time", 0) / 1000
        migration._rejoined = True
        return migration

    async def watch(self) -> AsyncIterator[Event]:
        """See `ports.Migration.watch`."""
        try:
            while self._phase not in ENDS:
                await self._limit_silence()
                heard = await self._events.next(self._next_poll - self._clock())
                if heard is None:
                    async for event in self._poll():
                        yield event
                elif heard[0] == "MIGRATION":
                    change = self._enter(phase_of(heard[1]["status"]))
                    if change:
                        yield change
                else:
                    yield await self._start_of_pass(heard[1]["pass"])
        finally:
            self._events.close()

    async def apply(self, action: Action) -> None:
        """See `ports.Migration.apply`."""
        match action:
            case StartPostcopy():
                await self._monitor.execute("migrate-start-postcopy")
            case Cancel():
                await self._cancel()
            case SetDowntimeLimit(seconds):
                await self._set({"downtime-limit": round(seconds * 1000)})
            case SetBandwidthLimit(rate):
                await self._set(limit_parameters(rate))
            case Proceed():
                await self._monitor.execute("migrate-continue", {"state": "pre-switchover"})

    async def pause(self) -> None:
        """See `ports.Migration.pause`."""
        await self._monitor.execute("migrate-pause", urgent=True)

    async def resume(self, address: MigrationAddress) -> None:
        """See `ports.Migration.resume`."""
        channels = channels_argument(address, Transport.TCP)
        if self._guard is not None:
            self._guard = replace(self._guard, port=address.port)
        await self._monitor.execute("migrate", {"channels": channels, "resume": True})
        answer = await self._ask()
        while answer["status"] in _RECOVERING:
            await asyncio.sleep(POLL_EVERY)
            answer = await self._ask()
        if phase_of(answer["status"]) is Phase.POSTCOPY_PAUSED:
            words = answer.get("error-desc") or "no connection"
            raise HostUnreachable(f"The post-copy could not be taken up again: {words}")

    async def ended(self) -> Ended:
        """See `ports.Migration.ended`; after a cancel QEMU forgets RAM, so the last word counts."""
        answer = await self._execute("query-migrate")
        ended = ended_from(answer, self._phase)
        if self._was_cut and ended.phase is Phase.FAILED:
            silent = f"the destination did not shake hands within {HANDSHAKE_WITHIN:.0f} s"
            ended = replace(ended, reason=f"{silent}, and was left: {ended.reason}")
        if ended.transferred is None and self._last.passes:
            return Ended(
                phase=ended.phase,
                reason=ended.reason,
                total_time=self._last.at,
                transferred=self._last.transferred,
            )
        return ended

    async def _limit_silence(self) -> None:
        """Do so once all connections are made, and the guest does not wait for anything else."""
        if self._far.port and not self._limited and self._phase is Phase.PRECOPY:
            self._limited = True
            await self._far.limit(self._far.port, SILENT_AT_MOST)

    async def _poll(self) -> AsyncIterator[Event]:
        self._next_poll = self._clock() + POLL_EVERY
        answer = await self._ask()
        phase = phase_of(answer.get("status", "none"))
        # An event may be on its way for the same change: whichever comes first reports it.
        change = self._enter(phase, str(answer.get("error-desc", "")))
        if change:
            yield change
        if "ram" in answer and phase not in ENDS:
            self._last = observation_from(answer, self._now(), self._phase)
            yield self._last

    async def _ask(self) -> dict[str, Any]:
        if not self._alive():
            raise HostUnreachable("The source's QEMU ended in the middle of the move.")
        answer = await self._execute("query-migrate")
        if not isinstance(answer, dict):
            raise ProtocolError("QEMU answered query-migrate with something that is no object.")
        return answer

    async def _start_of_pass(self, number: int) -> Pass:
        answer = await self._ask()
        seen = observation_from(answer, self._now(), self._phase)
        # The first pass begins during setup, when QEMU tells no figures of memory yet, and an
        # answer that comes late tells of a pass half sent: all of it is to be sent then.
        first = number <= 1 or "ram" not in answer
        remaining = self._memory if first else seen.remaining
        return Pass(number, seen.at, seen.transferred, remaining)

    def _enter(self, phase: Phase, reason: str = "") -> PhaseChange | None:
        if phase is Phase.FAILED and self._called_back:
            # A cancel shuts the sockets; a channel that was just writing calls that a failure.
            phase = Phase.CANCELLED
        if phase is self._phase or (phase is Phase.IDLE and self._phase is not Phase.IDLE):
            return None
        if self._rejoined and self._phase is Phase.IDLE:
            self._phase = phase  # where it was found
            return PhaseChange(phase, self._now(), reason)
        if phase not in TRANSITIONS[self._phase]:
            if self._skipped(phase):
                self._phase = phase
                return PhaseChange(phase, self._now(), reason)
            if self._phase in TRANSITIONS[phase]:
                return None  # a poll has overtaken the event that now arrives
            raise ProtocolError(f"QEMU went from {self._phase} to {phase}, which cannot be.")
        self._phase = phase
        return PhaseChange(phase, self._now(), reason)

    def _skipped(self, phase: Phase) -> bool:
        return any(phase in TRANSITIONS[between] for between in TRANSITIONS[self._phase])

    def _now(self) -> float:
        return self._clock() - self._began

    async def _cancel(self) -> None:
        if self._phase in {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}:
            raise CommandRefused(
                "The guest already runs at the destination (post-copy); it cannot be called back.",
                "Let the move finish.",
            )
        self._called_back = True
        await self._execute("migrate_cancel")

    async def _execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Carry out a command, also where QEMU hangs in a handshake."""
        if self._guard is None or self._phase not in self._guard.phases:
            return await self._monitor.execute(command, arguments)
        answer = asyncio.ensure_future(self._monitor.execute(command, arguments))
        try:
            # More than once: QEMU may connect after the first cut, or several times (channels).
            while not (await asyncio.wait([answer], timeout=HANDSHAKE_WITHIN))[0]:
                self._was_cut = True
                await self._guard.cut(self._guard.port)
            return answer.result()
        finally:
            answer.cancel()
            await asyncio.wait([answer])

    async def _set(self, parameters: dict[str, int]) -> None:
        await self._monitor.execute("migrate-set-parameters", parameters)

"""A guest leaving a host that libvirt runs: events of both hosts, polling for people.

libvirt conducts the move in one call that lasts as long as it does (`Departure`); beside it come
events: passes and a stopped guest from the source, its arrival from the destination. The arrival
counts, not the call's return, since libvirt ends the source's QEMU in between, for which the
guest need not wait: when the destination says that the guest stands there, its memory and devices
are whole, and the source has been stopped for good.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whimbrel.errors import CommandRefused, HostError, HostUnreachable, Unsupported
from whimbrel.hypervisors.libvirt.connection import Aborted, Busy
from whimbrel.hypervisors.libvirt.machine import LibvirtAddress
from whimbrel.hypervisors.libvirt.phases import STATES, TOLD, way_between
from whimbrel.hypervisors.libvirt.resuming import nobody_leads, require_resuming
from whimbrel.hypervisors.libvirt.silence import SILENT_AT_MOST, Silence
from whimbrel.hypervisors.libvirt.states import Happening, State
from whimbrel.hypervisors.libvirt.translate import (
    ended_from,
    has_disks,
    has_memory,
    mebibytes,
    milliseconds,
    observation_from,
    under_way,
)
from whimbrel.model.migration import (
    ENDS,
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
    Side,
    StartPostcopy,
)
from whimbrel.ports import Ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from whimbrel.hypervisors.libvirt.connection import Domain
    from whimbrel.hypervisors.libvirt.departure import Departure
    from whimbrel.hypervisors.libvirt.ears import Ears
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
    from whimbrel.model.inventory import MigrationAddress

POLL_EVERY = 0.1

_RESUMES_WITHIN = 10.0
_FIGURES_WITHIN = 3.0
_ASK_AGAIN = 0.02
_SAYS_SO_WITHIN = 2.0
_RETURNS_WITHIN = 10.0
_LIMITS_EVERY = 5.0

_RETURNED = "returned"


class LibvirtMigration:
    """The port's `Migration`, over the source's libvirt and the destination's."""

    def __init__(
        self,
        machine: LibvirtMachine,
        domain: Domain,
        heard: asyncio.Queue[Happening],
        ears: Iterable[Ears],
        departure: Departure | None,
    ) -> None:
        self._machine, self._domain, self._departure = machine, domain, departure
        self._heard, self._ears = heard, tuple(ears)
        self._call: asyncio.Future[None] | None = None
        self._phase = Phase.IDLE
        self._called_back = self._left = self._hurried = self._limited = False
        self._reason = ""
        self._figures: Mapping[str, Any] = {}
        self._clock = asyncio.get_running_loop().time
        self._began = self._moved_at = self._lived_at = self._clock()
        self._next_poll = self._began + POLL_EVERY
        self._silence, self._silent, self._limit_at = Silence(self._began), False, self._began
        self._last = Observation(at=0.0, phase=Phase.IDLE)

    def depart(self) -> None:
        """Let libvirt begin."""
        assert self._departure is not None  # noqa: S101 - only who has one departs
        self._hold(asyncio.ensure_future(self._departure.carry_out()))

    async def begun(self) -> None:
        """Return when libvirt is at it, or has ended it already."""
        while self._call is not None and not self._call.done():
            if under_way(await self._domain.job()):
                return
            await asyncio.sleep(0.01)  # no event tells that a job begins

    async def call_off(self) -> None:
        """Have libvirt end what it has just begun; the guest stays here."""
        with suppress(HostError):
            await self.begun()
            if self._call is not None and not self._call.done():
                await self._domain.abort()
                await asyncio.wait([self._call], timeout=_RESUMES_WITHIN)

    def found(self, job: Mapping[str, Any]) -> None:
        """Take the move as it stands: somebody else has begun it."""
        self._began -= job.get("time_elapsed", 0) / 1000

    async def watch(self) -> AsyncIterator[Event]:
        """See `ports.Migration.watch`."""
        try:
            if self._departure is not None:
                for change in self._enter(Phase.SETUP):
                    yield change
            while self._phase not in ENDS:
                happening = await self._next()
                seen = self._poll() if happening is None else self._take(happening)
                for event in await seen:
                    yield event
        finally:
            if self._phase is not Phase.COMPLETED:
                self._listen_no_more()

    def _listen_no_more(self) -> None:
        for ears in self._ears:
            ears.close()

    async def apply(self, action: Action) -> None:
        """See `ports.Migration.apply`."""
        match action:
            case StartPostcopy():
                self._hurried = True
                await self._domain.start_postcopy()
            case Cancel():
                await self._cancel()
            case SetDowntimeLimit(seconds):
                await self._domain.set_downtime_limit(milliseconds(seconds))
            case SetBandwidthLimit(rate):
                await self._limit(rate)
            case Proceed():
                raise CommandRefused("libvirt goes on by itself.")

    async def pause(self) -> None:
        """See `ports.Migration.pause`."""
        await self._domain.pause_postcopy()

    async def resume(self, address: MigrationAddress) -> None:
        """See `ports.Migration.resume`."""
        departure = self._departure
        if await self._domain.state() is not State.LOST_POSTCOPY:
            raise CommandRefused("No post-copy has lost its connection.")
        if isinstance(address, LibvirtAddress) and address.there and departure:
            departure = replace(departure, reception=address.there)
        if departure is None:
            raise nobody_leads(self._clock() - self._moved_at)
        await require_resuming(departure.reception.connection)
        self._departure = departure
        try:
            async with asyncio.timeout(_RESUMES_WITHIN):
                await self._take_up(departure)
        except TimeoutError:
            raise HostUnreachable(
                f"The post-copy was not taken up again within {_RESUMES_WITHIN:.0f} s."
            ) from None

    async def _take_up(self, departure: Departure) -> None:
        call: asyncio.Future[None] | None = None
        while await self._domain.state() is State.LOST_POSTCOPY:
            if call is None:
                call = asyncio.ensure_future(departure.carry_out(again=True))
                self._hold(call)
            elif call.done():
                # QEMU may not have noticed yet that it was told to pause: libvirt refuses then.
                error, call = call.exception(), None
                if not isinstance(error, CommandRefused):
                    raise HostUnreachable(f"The post-copy could not be taken up again: {error}")
            await asyncio.sleep(POLL_EVERY)

    async def ended(self) -> Ended:
        """See `ports.Migration.ended`; a move that did not end well is told by its last word."""
        if self._phase is Phase.COMPLETED:
            try:
                return ended_from(await self._last_figures())
            finally:
                self._listen_no_more()
        ended = Ended(self._phase, self._reason)
        if self._last.passes:
            return replace(ended, total_time=self._last.at, transferred=self._last.transferred)
        return ended

    async def _last_figures(self) -> Mapping[str, Any]:
        """Ask the destination, or wait for the source's last word, whichever comes first."""
        until = self._clock() + _FIGURES_WITHIN
        while not has_memory(self._figures) and self._clock() < until:
            if self._departure is not None:
                there = await self._departure.reception.machine.domain()
                with suppress(CommandRefused, Unsupported):  # it is still busy with the move
                    self._figures = await there.last_job()
            while not self._heard.empty():
                self._figures = self._heard.get_nowait().figures or self._figures
            await asyncio.sleep(0 if has_memory(self._figures) else _ASK_AGAIN)
        return self._figures

    def _hold(self, call: asyncio.Future[None]) -> None:
        self._call = self._machine.leaving = call
        call.add_done_callback(self._returned)

    def _returned(self, call: asyncio.Future[None]) -> None:
        if not call.cancelled():
            call.exception()  # whoever waits for it is told; nobody need wait
        if call is self._call:
            self._heard.put_nowait(Happening(_RETURNED))

    async def _next(self) -> Happening | None:
        try:
            async with asyncio.timeout_at(self._next_poll):
                return await self._heard.get()
        except TimeoutError:
            self._next_poll = self._clock() + POLL_EVERY
            return None

    async def _take(self, happening: Happening) -> Sequence[Event]:
        """Make events of what libvirt told."""
        if happening.side is Side.DESTINATION:
            if happening.kind == "started" and self._departure is not None:
                self._departure.reception.built()
            arrived = happening.kind in {"paused", "resumed"}
            return await self._arrival() if arrived else []
        match happening.kind:
            case "pass":
                return await self._start_of_pass(happening.number)
            case "job":
                self._figures = happening.figures
            case "left":
                self._left = True
            case "returned":
                return await self._ending()
            case "handed-over" | "postcopy" | "lost-postcopy":
                return self._enter(TOLD[happening.kind])
        return []

    async def _arrival(self) -> list[PhaseChange]:
        """Ask whether the guest stands at the destination, or runs there, as was just told."""
        if self._departure is None or self._phase in {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}:
            return []
        state = await self._departure.reception.machine.state()
        if state is State.RUNNING_IN_POSTCOPY:
            return self._enter(Phase.POSTCOPY)
        waits = "PAUSED" in self._departure.flags and state is State.PAUSED
        # Where post-copy was asked for, the source tells whether it came to that.
        runs = state is State.RUNNING and not self._hurried
        if not (waits or runs):
            return []
        # Else libvirt's call tells, as soon as it returns: a guest that stands there may not be
        # let go on while it runs here.
        return self._enter(Phase.COMPLETED) if await self._given_away() or runs else []

    async def _given_away(self) -> bool:
        """Tell whether the source says too that its guest stands; its word may come later."""
        until = self._clock() + _SAYS_SO_WITHIN
        while (await self._domain.state()).runs:
            if self._clock() > until:
                return False
            await asyncio.sleep(_ASK_AGAIN)
        return True

    async def _ending(self) -> list[PhaseChange]:
        """Tell what it means that libvirt's call has returned."""
        error = None if self._call is None else self._call.exception()
        if error is None:
            return self._enter(Phase.COMPLETED)
        if not isinstance(error, HostError):
            raise error
        self._reason = error.what
        if isinstance(error, Busy) and self._departure is not None:
            self._departure.reception.machine.promised = True  # what is there is another's
        state = await self._domain.state()
        if state is State.LOST_POSTCOPY:
            return self._enter(Phase.POSTCOPY_PAUSED)
        if not state.lives:
            raise HostUnreachable(f"The source's QEMU has ended: {self._reason}")
        if self._silent:
            self._reason = f"For {SILENT_AT_MOST:.0f} s nothing got through ({self._reason})"
        back = self._called_back or (isinstance(error, Aborted) and not self._silent)
        return self._enter(Phase.CANCELLED if back else Phase.FAILED)

    async def _poll(self) -> Sequence[Event]:
        if self._phase is Phase.PRECOPY and self._departure is not None and not self._limited:
            self._limited = True  # all connections are made now
            await self._machine.limit_silence(self._departure.reception.address)
        state = await self._domain.state()
        # A post-copy whose leader has lost one side goes on by itself.
        alone = self._call is None or bool(self._call.done() and self._call.exception())
        # Where the source dies amid a post-copy, libvirt's call may never return: it waits for the
        # destination's QEMU, and that for the memory of its guest.
        if state.lives:
            self._lived_at = self._clock()
        stuck = not self._left and self._clock() - self._lived_at > _RETURNS_WITHIN
        if (alone or stuck) and not state.lives:
            return self._enter(self._gone())
        events: list[Event] = list(self._enter(STATES[state])) if state in STATES else []
        job: Mapping[str, Any] = {}
        with suppress(CommandRefused):  # it ends just now
            job = await self._domain.job()
        if under_way(job):
            await self._end_silence(job)
            return events + self._seen(job)
        if self._departure is None and state.runs:
            events += self._enter(Phase.CANCELLED if self._called_back else Phase.FAILED)
        return events

    async def _end_silence(self, job: Mapping[str, Any]) -> None:
        """Call off what gets on no more, as long as that leaves the guest where it runs."""
        early = self._phase in {Phase.SETUP, Phase.PRECOPY} and self._departure is not None
        if self._departure and has_disks(job) and self._clock() > self._limit_at:
            # One disk's connection is made after the other's, at a port that libvirt has chosen.
            self._limit_at = self._clock() + _LIMITS_EVERY
            address = self._departure.reception.address
            await self._machine.limit_silence(replace(address, port=0))
        if self._silence.too_long(job, self._clock()) and early and not self._silent:
            self._silent = True
            with suppress(HostError):  # it ends by itself just now
                await self._domain.abort()

    def _gone(self) -> Phase:
        if self._left:
            return Phase.COMPLETED
        raise HostUnreachable("The source's VM has ended, and nobody saw it arrive.")

    def _seen(self, job: Mapping[str, Any]) -> list[Event]:
        if self._phase in ENDS:
            return []
        if not has_memory(job):
            # Disks go first; whoever counts the time must hear meanwhile that it goes on.
            return [Observation(self._now(), self._phase)] if has_disks(job) else []
        changes: list[Event] = []
        if self._phase in {Phase.IDLE, Phase.SETUP}:
            changes += self._enter(Phase.PRECOPY)
        seen = observation_from(job, self._now(), self._phase)
        if seen.transferred != self._last.transferred:
            self._moved_at = self._clock()
        self._last = seen
        return [*changes, seen]

    async def _start_of_pass(self, number: int) -> list[Event]:
        job: Mapping[str, Any] = {}
        with suppress(CommandRefused):
            job = await self._domain.job()
        changes: list[Event] = []
        if self._phase in {Phase.IDLE, Phase.SETUP}:
            changes += self._enter(Phase.PRECOPY)
        seen = observation_from(job, self._now(), self._phase)
        # Of the first pass libvirt may have no figures yet: all of memory is to be sent then.
        first = number <= 1 or not has_memory(job)
        remaining = self._machine.vm.memory if first else seen.remaining
        return [*changes, Pass(number, seen.at, seen.transferred, remaining)]

    def _enter(self, phase: Phase) -> list[PhaseChange]:
        """Enter a phase, through those between that libvirt did not tell of."""
        if phase is self._phase or self._phase in ENDS:
            return []
        if self._departure is None and self._phase is Phase.IDLE:
            way = [phase]  # where it was found
        else:
            way = way_between(self._phase, phase)
        if way:
            self._phase = self._machine.last = phase
        reason = self._reason if phase is Phase.FAILED else ""
        return [PhaseChange(each, self._now(), reason) for each in way]

    def _now(self) -> float:
        return self._clock() - self._began

    async def _cancel(self) -> None:
        if self._phase in {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}:
            raise CommandRefused(
                "The guest already runs at the destination (post-copy); it cannot be called back.",
                "Let the move finish.",
            )
        if self._phase in ENDS:
            raise CommandRefused(f"The move is {self._phase}.")
        self._called_back = True
        await self._domain.abort()

    async def _limit(self, rate: float | None) -> None:
        limit = mebibytes(rate)
        await self._domain.set_speed_limit(limit)
        if self._departure is not None and "POSTCOPY" in self._departure.flags:
            await self._domain.set_speed_limit(0 if rate is None else limit, postcopy=True)

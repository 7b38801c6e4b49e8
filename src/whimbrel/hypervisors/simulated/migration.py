"""A simulated move: a course, played on the network's clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from whimbrel.errors import CommandRefused, HostUnreachable
from whimbrel.hypervisors.simulated.machine import (
    SimulatedMachine,
    SimulatedReception,
    Site,
    State,
)
from whimbrel.model.inventory import MigrationAddress
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
    StartPostcopy,
)
from whimbrel.model.prediction import Course
from whimbrel.ports import Ended
from whimbrel.theory.simulate import Change
from whimbrel.theory.trace import observe

OBSERVE_EVERY = 0.1
"""Simulated seconds between two observations."""

HORIZON = 30.0
"""Simulated seconds for which a course is worked out at first."""

CourseOf = Callable[[tuple[Change, ...], float], Course]
"""A move's course, given what is done to it and how far ahead to look."""


class SimulatedMigration:
    """The port's `Migration`; a task of its own plays the course, watched or not."""

    def __init__(
        self,
        machine: SimulatedMachine,
        reception: SimulatedReception,
        site: Site,
        course_of: CourseOf,
        *,
        may_pull: bool,
        pauses: bool = False,
    ) -> None:
        self._pauses, self._paused, self._held = pauses, False, 0.0
        self._called = False
        self._machine, self._reception, self._site = machine, reception, site
        self._course_of, self._may_pull = course_of, may_pull
        self._changes: tuple[Change, ...] = ()
        self._horizon = HORIZON
        self._course = course_of((), HORIZON)
        self._phase, self._entered = Phase.IDLE, {Phase.IDLE}
        self._position, self._pass = 0.0, 0
        self._last = Observation(0.0, Phase.IDLE)
        self._lost = ""
        self._ended: Ended | None = None
        self._heard: asyncio.Queue[Event | None] = asyncio.Queue()
        self._woken = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._task = asyncio.create_task(self._play())
        machine.migration = self
        machine.mourners.append(self._source_vanished)
        reception.machine.mourners.append(self._destination_vanished)

    async def watch(self) -> AsyncIterator[Event]:
        """See `ports.Migration.watch`."""
        while (event := await self._heard.get()) is not None:
            yield event
            if isinstance(event, PhaseChange) and event.phase in ENDS:
                return
        raise HostUnreachable(self._lost)

    async def apply(self, action: Action) -> None:
        """See `ports.Migration.apply`."""
        self._refuse(action)
        if Phase.CANCELLING in self._entered:
            return
        if isinstance(action, Proceed):
            self._pauses = False
            self._woken.set()
            return
        self._called = self._called or isinstance(action, Cancel)
        if self._called and self._standing:
            self._called_back()
            return
        now = min((self._clock() - self._began) * self._site.network.speed, self._next()[0])
        self._changes += (Change(max(now, self._position), action),)
        self._course = self._course_of(self._changes, self._horizon)
        self._woken.set()

    async def pause(self) -> None:
        """See `ports.Migration.pause`."""
        self._site.reach()
        if self._phase is not Phase.POSTCOPY:
            raise CommandRefused("There is no post-copy under way that could be paused.")
        self._paused = True
        self._enter(PhaseChange(Phase.POSTCOPY_PAUSED, self._position))
        self._woken.set()

    async def resume(self, address: MigrationAddress) -> None:
        """See `ports.Migration.resume`."""
        self._site.reach()
        if not self._paused:
            raise CommandRefused("No post-copy is paused.")
        place = (address.host, address.port)
        if self._site.network.cut or self._site.network.again.get(place) is not self._reception:
            raise HostUnreachable(f"Nobody listens at {address.host}:{address.port}.")
        del self._site.network.again[place]
        self._paused = False
        self._enter(PhaseChange(Phase.POSTCOPY, self._position))
        self._woken.set()

    async def ended(self) -> Ended:
        """See `ports.Migration.ended`."""
        self._site.reach()
        if self._ended is None or self._machine.gone:
            raise HostUnreachable(self._lost or "The source cannot tell how the move ended.")
        return self._ended

    @property
    def _over(self) -> bool:
        return self._phase in ENDS or self._machine.gone

    def _source_vanished(self) -> None:
        """Break off: the source has lost its power."""
        if self._phase in ENDS:
            return
        self._lose("The source's machine ended in the middle of the move.")
        self._reception.lose("the source has ended before all of it was there")
        self._woken.set()

    def _destination_vanished(self) -> None:
        """Fail: the destination has lost its power."""
        if not self._over:
            self._fail("The destination closed the connection.")
            self._woken.set()

    def _refuse(self, action: Action) -> None:
        self._site.reach()
        pulling = Phase.POSTCOPY in self._entered
        if self._lost:
            raise HostUnreachable(self._lost)
        if self._phase in ENDS:
            raise CommandRefused("The move has already ended.")
        if isinstance(action, Cancel) and pulling:
            raise CommandRefused(
                "The guest already runs at the destination (post-copy); it cannot be called back.",
                "Let the move finish.",
            )
        if isinstance(action, StartPostcopy) and not self._may_pull:
            raise CommandRefused("Post-copy was not prepared for this move.")
        if isinstance(action, Proceed) and not self._standing:
            raise CommandRefused("The move does not wait before its switchover.")

    @property
    def _standing(self) -> bool:
        """Whether it goes on only when told: before switchover, or with its link lost."""
        return self._paused or (self._pauses and self._phase is Phase.SWITCHOVER)

    def _called_back(self) -> None:
        for phase in (Phase.CANCELLING, Phase.CANCELLED):
            self._enter(PhaseChange(phase, self._position))
        self._woken.set()

    async def _stand(self) -> None:
        """Wait until it may go on; the course's clock stands still meanwhile."""
        if self._called and not self._paused:
            self._called_back()  # it came too late for its pass, and in time for the hand-over
        while self._standing and not self._over:
            began = self._clock()
            if not await self._interrupted(OBSERVE_EVERY / self._site.network.speed):
                self._tell(replace(self._last, at=self._position, phase=self._phase))
            passed = self._clock() - began
            self._began += passed
            self._held += passed * self._site.network.speed

    async def _play(self) -> None:
        while not self._over:
            if self._standing:
                await self._stand()
                continue
            at, event = self._next()
            wait = at / self._site.network.speed - (self._clock() - self._began)
            if await self._interrupted(wait):
                continue
            self._position = at
            if not self._course.completed and at > self._horizon / 2:
                self._horizon *= 2
                self._course = self._course_of(self._changes, self._horizon)
            if event is not None:
                self._happen(event)

    async def _interrupted(self, seconds: float) -> bool:
        """Let so much real time pass; tell whether something came in between."""
        self._woken.clear()
        try:
            await asyncio.wait_for(self._woken.wait(), max(seconds, 0.0))
        except TimeoutError:
            return False
        return True

    def _next(self) -> tuple[float, Event | None]:
        """Return when something happens next, and what; None for nothing but time."""
        tick = (int(self._position / OBSERVE_EVERY + 1e-6) + 1) * OBSERVE_EVERY
        seen = replace(observe(self._course.trace, tick), phase=self._phase)
        upcoming: list[Event] = [each for each in self._course.passes if each.number > self._pass]
        upcoming += [each for each in self._course.phases if each.phase not in self._entered]
        event = min(upcoming, key=lambda each: each.at, default=None)
        if event is not None and event.at <= tick:
            return event.at, event
        return tick, seen if Phase.PRECOPY in self._entered else None

    def _happen(self, event: Event) -> None:
        """Let an event happen, unless a fault is due in the phase in which it would."""
        if self._site.faults.fails_in is self._phase:
            self._fail("The move failed, as was asked for.")
            return
        if self._site.faults.unreachable_in is self._phase:
            self._site.reachable = False
            self._lose("The connection to the source's hypervisor was lost.")
        if isinstance(event, PhaseChange):
            self._enter(self._stopping_first(event))
        elif isinstance(event, Pass):
            self._pass = event.number
            self._tell(event)
        else:
            self._last = event
            self._tell(event)

    def _stopping_first(self, change: PhaseChange) -> PhaseChange:
        """Let the guest stand still before it goes over to post-copy, where that was asked for."""
        if change.phase is Phase.POSTCOPY and self._pauses:
            return PhaseChange(Phase.SWITCHOVER, change.at)
        return change

    def _enter(self, change: PhaseChange) -> None:
        self._phase = change.phase
        self._machine.phase = self._reception.machine.phase = change.phase
        self._entered.add(change.phase)
        if change.phase is Phase.SWITCHOVER:
            self._machine.enter(State.STOPPED)
        elif change.phase in {Phase.POSTCOPY, Phase.COMPLETED}:
            self._machine.enter(State.HANDED_OVER)
            self._reception.arrive()
        elif change.phase is Phase.CANCELLED:
            self._machine.enter(State.RUNNING)
            self._reception.lose("the move was cancelled")
        if change.phase in ENDS:
            self._ended = self._last_word(change)
            self._machine.migration = None
        self._tell(change)

    def _last_word(self, change: PhaseChange) -> Ended:
        course, completed = self._course, change.phase is Phase.COMPLETED
        return Ended(
            phase=change.phase,
            reason=change.reason,
            total_time=change.at + self._held,
            setup_time=next((p.at for p in course.phases if p.phase is Phase.PRECOPY), None),
            downtime=course.downtime_reported if completed else None,
            transferred=course.counted_bytes if completed else self._last.transferred,
        )

    def _fail(self, reason: str) -> None:
        # In post-copy neither side has the whole guest any more: it runs nowhere.
        at = max(self._position, self._last.at)
        self._reception.lose("the move failed")
        self._enter(PhaseChange(Phase.FAILED, at, reason))

    def _lose(self, reason: str) -> None:
        """Tell the watcher that nothing more will be heard."""
        if not self._lost:
            self._lost = reason
            self._heard.put_nowait(None)

    def _tell(self, event: Event) -> None:
        if not self._lost:
            self._heard.put_nowait(replace(event, at=event.at + self._held))

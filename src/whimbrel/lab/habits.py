"""How others conduct a move, each a small object: what it sees in, an action and its reason out.

    event ──► Conducted ──► at its own pace ──► Habit.look ──► action, reason

They stand in for whimbrel's own control (`practice.move.Control`) when the lab compares. They know
no clock: time comes with what is seen. What each was read from stands in docs/peers.md; they
are written after what those programs do, not copied from them.
"""

import math
from typing import Protocol

from whimbrel.model.migration import (
    ENDS,
    Action,
    Cancel,
    Decision,
    Event,
    Observation,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.policy import LONGEST_DOWNTIME
from whimbrel.model.units import GIB, format_size, format_time
from whimbrel.theory.convergence import STARTING

Act = tuple[Action, str]
"""What to do, and why, as a sentence for people."""

_TOO_LATE = ENDS | {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}
"""Phases in which nothing is left to be decided."""


class Habit(Protocol):
    """What one product does while memory is copied; made anew for every move."""

    @property
    def every(self) -> float:
        """Seconds until it looks again."""

    def look(self, seen: Observation, elapsed: float) -> Act | None:
        """Return what it does about what it sees, so many seconds after the move began."""


class Conducted:
    """A product's habit as the control of a move.

    Args:
        habit: What it does.
        deadline: Seconds since the request after which the lab gives the move up.
    """

    def __init__(self, habit: Habit, deadline: float) -> None:
        self._habit, self._deadline = habit, deadline
        self._began: float | None = None
        self._next = self._asked_at = float("-inf")
        self._phase = Phase.IDLE
        self._reason, self._late, self._gave_up = "", False, False

    @property
    def reason(self) -> str:
        """See `Control.reason`."""
        return self._reason

    @property
    def too_late(self) -> bool:
        """See `Control.too_late`."""
        return self._late

    def hear(self, event: Event) -> Decision | None:
        """See `Control.hear`."""
        if isinstance(event, PhaseChange):
            self._enter(event)
        if self._gave_up or self._phase in _TOO_LATE or event.at < self._asked_at + STARTING:
            return None
        if event.at > self._deadline:
            self._late = True
            return self._decided((Cancel(), f"not done after {format_time(self._deadline)}"), event)
        if not isinstance(event, Observation) or self._phase is not Phase.PRECOPY:
            return None
        return self._look(event)

    def _enter(self, change: PhaseChange) -> None:
        self._phase = change.phase
        if self._began is None and change.phase in {Phase.SETUP, Phase.PRECOPY}:
            self._began = change.at
            self._next = change.at + self._habit.every

    def _look(self, seen: Observation) -> Decision | None:
        if self._began is None or seen.at < self._next:
            return None
        found = self._habit.look(seen, seen.at - self._began)
        # As a program that sleeps between two looks: what comes late puts off the next.
        self._next = seen.at + self._habit.every
        return None if found is None else self._decided(found, seen)

    def _decided(self, found: Act, event: Event) -> Decision:
        action, reason = found
        if isinstance(action, Cancel):
            self._gave_up, self._reason = True, reason
        elif isinstance(action, StartPostcopy):
            self._asked_at = event.at
        return Decision(action, reason, event.at)


class Waiting:
    """Whoever starts a move and waits for its end, however long (virsh, Ganeti)."""

    every = float("inf")

    def look(self, seen: Observation, elapsed: float) -> Act | None:  # noqa: ARG002 - as the port
        """See `Habit.look`."""
        return None


class Doubling:
    """Allows twice the downtime whenever what remains has grown often enough (Proxmox).

    It looks once a second; ten times a second as soon as less remains than it takes to be sent
    until the next look, by the mean until now.
    """

    _OFTEN = 5

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._looks = self._grown = self._sent = 0
        self._before: int | None = None
        self.every = 1.0

    def look(self, seen: Observation, elapsed: float) -> Act | None:  # noqa: ARG002 - as the port
        """See `Habit.look`."""
        self._looks += 1
        mean = self._sent / self._looks
        if seen.transferred == self._sent:
            return None
        self._sent = seen.transferred
        if seen.remaining < mean:
            self.every = 0.1
        if seen.remaining == 0 or (self._before and seen.remaining > self._before):
            self._grown += 1
        self._before = seen.remaining
        if self._grown <= self._OFTEN or self._limit >= LONGEST_DOWNTIME:
            return None
        self._grown = 0
        self._limit = min(2 * self._limit, LONGEST_DOWNTIME)
        reason = f"what remains has grown {self._OFTEN + 1} times, now {_left(seen)}"
        return SetDowntimeLimit(self._limit), reason


class Timing:
    """Gives a move so many seconds per gigabyte, then post-copy or nothing (KubeVirt).

    Args:
        memory: Bytes of guest memory; begun gigabytes count.
        postcopy: Whether it may go over to post-copy.
    """

    every = 0.4
    _PER_GIGABYTE, _WITHOUT_PROGRESS = 150.0, 150.0

    def __init__(self, memory: int, *, postcopy: bool) -> None:
        self._allowed = self._PER_GIGABYTE * math.ceil(memory / 1e9)
        self._postcopy = postcopy
        self._before = 0
        self._progressed = 0.0

    def look(self, seen: Observation, elapsed: float) -> Act | None:
        """See `Habit.look`; progress is less than at the look before, as it is there."""
        if self._before == 0 or seen.remaining < self._before:
            self._progressed = elapsed
        self._before = seen.remaining
        over = f"not complete after {format_time(self._allowed)}, {_left(seen)} remains"
        if elapsed > self._allowed and self._postcopy:
            return StartPostcopy(), over
        if elapsed - self._progressed > self._WITHOUT_PROGRESS:
            return Cancel(), f"stuck for {format_time(self._WITHOUT_PROGRESS)}"
        return (Cancel(), over) if elapsed > self._allowed else None


class Stepping:
    """Allows more downtime step by step, by the clock (Nova).

    Args:
        memory: Bytes of guest memory; 2 GiB at least count.
    """

    every = 0.5
    _MOST, _STEPS, _DELAY, _PER_GIB = 0.5, 10, 75.0, 800.0

    def __init__(self, memory: int) -> None:
        size = max(2.0, memory / GIB)
        self._delay = int(self._DELAY * size)
        self._allowed = int(self._PER_GIB * size)
        self._step = -1

    def look(self, seen: Observation, elapsed: float) -> Act | None:
        """See `Habit.look`."""
        if elapsed > self._allowed:
            over = f"not complete after {format_time(self._allowed)}, {_left(seen)} remains"
            return Cancel(), over
        step = min(int(elapsed // self._delay), self._STEPS)
        if step == self._step:
            return None
        self._step = step
        return SetDowntimeLimit(self._limit(step)), f"step {step} of {self._STEPS}"

    def _limit(self, step: int) -> float:
        base = self._MOST / self._STEPS
        return math.floor(1000 * (base + (self._MOST - base) / self._STEPS * step) + 1e-6) / 1000


class Stalling:
    """Takes the next step whenever more remains than at the look before (oVirt).

    Args:
        steps: After how many such looks, and what then; -1 stands for the very next one.
    """

    every = 10.0

    def __init__(self, steps: tuple[tuple[int, Action], ...]) -> None:
        self._steps = list(steps)
        self._stalled = 0
        self._before: int | None = None

    def look(self, seen: Observation, elapsed: float) -> Act | None:  # noqa: ARG002 - as the port
        """See `Habit.look`."""
        before, self._before = self._before, seen.remaining
        if before is None or seen.remaining <= before:
            return None
        self._stalled += 1
        if not self._steps or self._steps[0][0] >= self._stalled:
            return None
        _, action = self._steps.pop(0)
        return action, f"stalled for {self._stalled} looks, {_left(seen)} remains"


def _left(seen: Observation) -> str:
    return format_size(seen.remaining)

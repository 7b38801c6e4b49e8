"""Passes in, decisions out: the one control that drives a simulated and a real move alike.

    pass ──► watch.Watch: does the move still come closer to its end?
                 │ no, for two passes
                 ▼
             the next rung:  a longer stop, if policy allows the one that is needed
                             post-copy, if policy and tuning allow it
                             give up, with the reason, before time is wasted

A move without a policy runs exactly as it was set: it is only started on post-copy where its
tuning says so, and given up at its deadline.
"""

from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import (
    ENDS,
    Action,
    Cancel,
    Decision,
    Event,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.units import format_rate, format_size, format_time
from whimbrel.theory.watch import Watch

HEADROOM = 1.25
"""How much longer a stop is allowed than the guard reckons: QEMU estimates for itself, from its
last 100 ms, and a limit set exactly to one's own estimate is missed."""

_AFTER_FIRST = {Postcopy.AFTER_FIRST_PASS, Postcopy.AFTER_FIRST_PASS_PREEMPT}

_TOO_LATE = ENDS | {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}
"""Phases in which nothing is left to give up."""


class Convergence:
    """What to do about one move, told event by event.

    Each action is decided once. Time comes with the events, so a move that brings none brings
    no decision either; a hypervisor's stream never goes silent (`ports.Migration.watch`).

    Args:
        tuning: What the move was set to.
        deadline: Seconds since the request after which the move is given up.
        policy: How far the guard may go; None leaves the move alone.
    """

    def __init__(self, tuning: Tuning, deadline: float, policy: Policy | None = None) -> None:
        self._wants_postcopy = tuning.postcopy in _AFTER_FIRST
        self._may_postcopy = tuning.postcopy is Postcopy.IF_STALLED
        self._downtime_limit = tuning.downtime_limit
        self._deadline = deadline
        self._policy = policy
        self._watch = Watch()
        self._phase = Phase.IDLE
        self._given_up: Decision | None = None
        self._late = False

    @property
    def gave_up(self) -> bool:
        """Whether it decided to cancel."""
        return self._given_up is not None

    @property
    def reason(self) -> str:
        """Why it gave up; empty where it did not."""
        return "" if self._given_up is None else self._given_up.reason

    @property
    def too_late(self) -> bool:
        """Whether it gave up because the deadline had passed."""
        return self._late

    def hear(self, event: Event) -> Decision | None:
        """Take in what happened and return what to do about it, if anything."""
        if isinstance(event, PhaseChange):
            self._phase = event.phase
        if self.gave_up or self._phase in _TOO_LATE:
            return None
        if event.at > self._deadline:
            self._late = True
            return self._give_up(f"not done after {format_time(self._deadline)}", event.at)
        if isinstance(event, Pass) and self._phase is Phase.PRECOPY:
            return self._consider(event)
        return None

    def _consider(self, event: Pass) -> Decision | None:
        self._watch.hear(event)
        if self._wants_postcopy and event.number > 1:
            self._wants_postcopy = False
            return Decision(StartPostcopy(), _after_first_pass(event), event.at)
        if self._policy is None or not self._watch.stalled:
            return None
        return self._next_rung(event, self._policy)

    def _next_rung(self, event: Pass, policy: Policy) -> Decision:
        rate = self._watch.rate
        what = f"{format_size(event.remaining)} are rewritten in every pass"
        needed = event.remaining / rate * HEADROOM if rate else float("inf")
        if self._downtime_limit < needed <= policy.downtime:
            self._downtime_limit = needed
            self._watch.forgive()
            reason = f"{what}: at {format_rate(rate)} a stop of {format_time(needed)} will do"
            return _decided(SetDowntimeLimit(needed), reason, event)
        if self._may_postcopy and policy.postcopy:
            self._may_postcopy = False
            return _decided(StartPostcopy(), f"{what}: pre-copy will not converge", event)
        limit = max(policy.downtime, self._downtime_limit)
        reason = f"{what}, too much for a stop of {format_time(limit)} at {format_rate(rate)}"
        return self._give_up(f"it will not converge: {reason}", event.at)

    def _give_up(self, reason: str, at: float) -> Decision:
        self._given_up = Decision(Cancel(), reason, at)
        return self._given_up


def _decided(action: Action, reason: str, event: Pass) -> Decision:
    return Decision(action, reason, event.at)


def _after_first_pass(event: Pass) -> str:
    return f"the first pass is over with {format_size(event.remaining)} dirtied meanwhile"

"""Events in, decisions out: the one control that drives a simulated and a real move alike.

    pass ─────► watch.Watch: does the move still come closer to its end?
                     │ no, for two passes or 5 s
                     ▼
                ladder.Ladder: the next rung ◄─── due by now, says the certificate ◄─── any event
                     │ nothing left
                     ▼
                give up, with what hindered, before time is wasted

A move without a policy runs exactly as it was set: it is only started on post-copy where its
tuning says so, and given up at its deadline.

QEMU looks for dirty pages, and counts a pass, as soon as what is left fits its downtime limit. The
end of memory is still to be sent then, and a guest that goes over has to fetch it page by page:
there lie the rings of its devices, which the destination needs before it lets the guest run
(docs/theory.md, "Post-copy"). It is sent within the downtime limit, and waited for.
"""

from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import (
    ENDS,
    Cancel,
    Decision,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    StartPostcopy,
)
from whimbrel.model.plan import Certificate
from whimbrel.model.prediction import Prediction
from whimbrel.model.units import format_size, format_time
from whimbrel.theory.ladder import Ladder
from whimbrel.theory.watch import Watch

STARTING = 5.0
"""Seconds that a move gets to go over to post-copy. A cancel in between might meet a guest that
already runs at the destination, and lose it."""

_AFTER_FIRST = {Postcopy.AFTER_FIRST_PASS, Postcopy.AFTER_FIRST_PASS_PREEMPT}

_TOO_LATE = ENDS | {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}
"""Phases in which nothing is left to give up."""


class Convergence:
    """What to do about one move, told event by event.

    Time comes with the events, so a move that brings none brings no decision either; a
    hypervisor's stream never goes silent (`ports.Migration.watch`), and observations come
    several times a second.

    Args:
        tuning: What the move was set to.
        deadline: Seconds since the request after which the move is given up.
        policy: How far the guard may go; None leaves the move alone.
        certificate: When a guarded move has to climb to which rung; None: only when it stalls.
        prediction: What was foreseen of a guarded move.
    """

    def __init__(
        self,
        tuning: Tuning,
        deadline: float,
        policy: Policy | None = None,
        *,
        certificate: Certificate | None = None,
        prediction: Prediction | None = None,
    ) -> None:
        self._ladder = None if policy is None else Ladder(tuning, policy, certificate)
        forbidden = policy is not None and not policy.postcopy
        self._wants_postcopy = tuning.postcopy in _AFTER_FIRST and not forbidden
        self._rest = tuning.downtime_limit
        self._pulls_at, self._left = float("inf"), 0
        self._asked_at = float("-inf")
        self._deadline = deadline
        self._watch = Watch(prediction.band if prediction else ())
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

    @property
    def pulls_at(self) -> float:
        """When the move goes over to post-copy, seconds; inf while that is not known."""
        return self._pulls_at

    def hear(self, event: Event) -> Decision | None:
        """Take in what happened and return what to do about it, if anything."""
        self._note(event)
        if self.gave_up or self._phase in _TOO_LATE or event.at < self._asked_at + STARTING:
            return None
        if event.at > self._deadline:
            self._late = True
            return self._give_up(f"not done after {format_time(self._deadline)}", event.at)
        if self._phase is not Phase.PRECOPY:
            return None
        decision = self._decide(event)
        if decision is not None:
            self._remember(decision)
        return decision

    def _remember(self, decision: Decision) -> None:
        if isinstance(decision.action, StartPostcopy):
            self._asked_at = decision.at
        elif isinstance(decision.action, Cancel):
            self._given_up = decision

    def _note(self, event: Event) -> None:
        match event:
            case PhaseChange():
                self._phase = event.phase
            case Pass():
                self._watch.hear(event)
            case Observation():
                self._watch.throttled(event.throttle)

    def _decide(self, event: Event) -> Decision | None:
        if self._wants_postcopy and self._after_first_pass(event):
            return self._go_over(event.at)
        stalled = isinstance(event, Pass) and self._watch.stalled and not self._wants_postcopy
        if isinstance(event, Pass) and stalled and self._ladder is not None:
            return self._next_rung(event, self._ladder)
        due = None if self._ladder is None else self._ladder.due(event.at)
        if due is not None:
            self._watch.forgive()
        return due

    def _after_first_pass(self, event: Event) -> bool:
        """Tell whether the first pass is over, and the rest of it sent."""
        if isinstance(event, Pass) and event.number > 1 and not self._pulls_at < float("inf"):
            self._pulls_at, self._left = event.at + self._rest, event.remaining
        return event.at >= self._pulls_at

    def _go_over(self, at: float) -> Decision:
        self._wants_postcopy = False
        if self._ladder is not None:
            self._ladder.pulled()
        left = format_size(self._left)
        reason = f"the first pass is over, and {left} were left to send when it ended"
        return Decision(StartPostcopy(), reason, at)

    def _next_rung(self, event: Pass, ladder: Ladder) -> Decision:
        decision = ladder.next(event, self._watch.rate)
        if decision is None:
            what = ladder.too_much(event, self._watch.rate)
            return self._give_up(f"it will not converge: {what}", event.at)
        self._watch.forgive()
        return decision

    def _give_up(self, reason: str, at: float) -> Decision:
        hindrance = self._ladder.hindrance if self._ladder else ""
        self._given_up = Decision(Cancel(), f"{reason}; {hindrance}" if hindrance else reason, at)
        return self._given_up

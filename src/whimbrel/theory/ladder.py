"""What can still be done about a move that does not complete, each rung with what hinders it.

    stalled ──────────► next():  a longer stop where that will do, else post-copy
    by the clock ─────► due():   what the certificate says must be done by now

No rung goes beyond the policy, and none is taken without a reason that says which limit of the
policy stood in the way of a gentler one.
"""

from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import Cancel, Decision, Pass, SetDowntimeLimit, StartPostcopy
from whimbrel.model.plan import Certificate, Rung, Step
from whimbrel.model.units import format_rate, format_size, format_time

HEADROOM = 1.25
"""How much longer a stop is allowed than the guard reckons: QEMU estimates for itself, from its
last 100 ms, and a limit set exactly to one's own estimate is missed."""

AHEAD = 0.25
"""Seconds before its last moment at which a rung is climbed. Time comes with events, polled every
0.1 s, so that the next one may be too late."""


class Ladder:
    """The rungs of one guarded move; each is climbed once, a longer stop as often as it helps.

    Args:
        tuning: What the move was begun with.
        policy: How far it may go.
        certificate: When each rung is due at the latest; None: only a stall leads to one.
    """

    def __init__(
        self, tuning: Tuning, policy: Policy, certificate: Certificate | None = None
    ) -> None:
        self._policy = policy
        self._limit = tuning.downtime_limit
        self._prepared = tuning.postcopy is not Postcopy.NEVER
        self._pulling = False
        rungs = () if certificate is None else certificate.rungs
        self._pending = [rung for rung in rungs if rung.action is not None]
        self._longest = policy.downtime if certificate is None else self._certified(rungs)
        self._refusal = next(
            (r.reason for r in rungs if r.step is Step.POSTCOPY and r.action is None), ""
        )

    @property
    def hindrance(self) -> str:
        """Why nothing surer than what was done is left; empty before post-copy was begun."""
        if self._pulling:
            return ""
        if not self._policy.postcopy:
            return "the policy forbids post-copy"
        if self._refusal:
            return f"post-copy is out of the question: {self._refusal}"
        return "" if self._prepared else "the move was not set up for post-copy"

    def next(self, event: Pass, rate: float) -> Decision | None:
        """Return the next rung of a move that stalled; None where nothing is left.

        Args:
            event: The pass at which it was noticed.
            rate: Bytes per second that the move sends; 0: unknown.
        """
        stop = self.stop_needed(event, rate)
        if self._limit < stop <= self._longest:
            self._limit = stop
            will_do = f"at {format_rate(rate)} a stop of {format_time(stop)} will do"
            return Decision(SetDowntimeLimit(stop), f"{_rewritten(event)}: {will_do}", event.at)
        if not self._may_pull:
            return None
        self._pulling = True
        return Decision(
            StartPostcopy(), f"pre-copy stalled: {self.too_much(event, rate)}", event.at
        )

    def due(self, at: float) -> Decision | None:
        """Return what the certificate says must be done by now; None where it says nothing.

        Where several rungs are due, the surest that may be climbed is taken.
        """
        due = [rung for rung in self._pending if at + AHEAD >= rung.latest]
        self._pending = [rung for rung in self._pending if rung not in due]
        return next((d for rung in reversed(due) if (d := self._climb(rung, at))), None)

    def pulled(self) -> None:
        """Note that post-copy was begun otherwise."""
        self._pulling = True

    def stop_needed(self, event: Pass, rate: float) -> float:
        """Return the downtime limit in seconds with which a pass would have been the last.

        Where QEMU went on though its limit should have done, it estimates less than was seen,
        and gets more room.
        """
        if rate <= 0:
            return float("inf")
        return max(event.remaining / rate, self._limit) * HEADROOM

    def too_much(self, event: Pass, rate: float) -> str:
        """Say what a stalled pass had left, and why no stop that is allowed will do."""
        longest = max(self._longest, self._limit)
        bound = f"too much for the longest stop allowed, {format_time(longest)}"
        return f"{_rewritten(event)}, {bound} at {format_rate(rate)}"

    @property
    def _may_pull(self) -> bool:
        free = self._policy.postcopy and not self._refusal
        return free and self._prepared and not self._pulling

    def _certified(self, rungs: tuple[Rung, ...]) -> float:
        """Return the longest downtime limit with which the wish's downtime is kept, seconds."""
        limits = [r.action.seconds for r in rungs if isinstance(r.action, SetDowntimeLimit)]
        return min(self._policy.downtime, max(limits, default=self._limit))

    def _climb(self, rung: Rung, at: float) -> Decision | None:
        reason = f"not done by {format_time(at)}, when the certificate goes on to {rung.step}"
        match rung.action:
            case SetDowntimeLimit(seconds):
                return self._raised(seconds, reason, at)
            case StartPostcopy() if self._may_pull:
                self._pulling = True
                return Decision(rung.action, reason, at)
            case Cancel() if self._policy.postcopy and not self._pulling:
                return Decision(rung.action, reason, at)
        return None

    def _raised(self, wanted: float, reason: str, at: float) -> Decision | None:
        seconds = min(wanted, self._longest)
        if seconds <= self._limit:
            return None
        if seconds < wanted:
            allowed = format_time(seconds)
            reason += f" of {format_time(wanted)}, of which the policy allows {allowed}"
        self._limit = seconds
        return Decision(SetDowntimeLimit(seconds), reason, at)


def _rewritten(event: Pass) -> str:
    return f"{format_size(event.remaining)} are rewritten in every pass"

"""How a move ended: where the guest runs, and every figure measured on the way.

What each figure means, and how it is measured, stands in docs/measures.md.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from whimbrel.model.migration import Decision, Observation, Pass, Phase, PhaseChange, Side


class Ending(StrEnum):
    """The ways a move, or an attempt at one, can end."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    NOT_AVAILABLE = "not-available"


@dataclass(frozen=True)
class Outcome:
    """What became of one move.

    Attributes:
        ending: How it ended.
        reason: Why, where it did not complete; else empty.
        runs_on: Where the guest runs now; None where that is not known.
        wall_time: Seconds from the request until the guest runs at the destination and needs
            the source no more (or, where it did not get there, until it is known to be safe).
        arrival_time: Seconds from the request until the guest ran at the destination; earlier
            than `wall_time` in post-copy only.
        preparation_time: Seconds of that until the destination listened.
        total_time: The hypervisor's own total time in seconds.
        setup_time: The hypervisor's own setup time in seconds.
        downtime_reported: The hypervisor's own downtime in seconds.
        hypervisor_bytes: Bytes the hypervisor says it sent.
        passes: The start of every pass.
        phases: Every phase entered.
        observations: What polling saw, in order.
        decisions: What was decided on the way, with reasons.
    """

    ending: Ending
    reason: str
    runs_on: Side | None
    wall_time: float | None = None
    arrival_time: float | None = None
    preparation_time: float | None = None
    total_time: float | None = None
    setup_time: float | None = None
    downtime_reported: float | None = None
    hypervisor_bytes: int | None = None
    passes: tuple[Pass, ...] = ()
    phases: tuple[PhaseChange, ...] = ()
    observations: tuple[Observation, ...] = field(default=(), repr=False)
    decisions: tuple[Decision, ...] = ()

    @property
    def throttle_max(self) -> float | None:
        """The strongest throttling seen, 0 to 1; None where nothing was observed."""
        return max((o.throttle for o in self.observations), default=None)

    @property
    def downtime_expected(self) -> float | None:
        """What the hypervisor last expected of the downtime while the guest ran at the source."""
        known = (
            each.expected_downtime
            for each in reversed(self.observations)
            if each.phase is Phase.PRECOPY and each.expected_downtime is not None
        )
        return next(known, None)

    @property
    def standstill(self) -> float | None:
        """Seconds the guest stood still, by the clock of whoever conducted the move.

        From when the source was heard to stop it until it ran at the destination: the way of
        these words is in it, at most one round trip. None where it did not arrive. Where the
        source tells of post-copy only after the hand-over, its own account of that is added.
        """
        if self.arrival_time is None:
            return None
        left = {Phase.SWITCHOVER, Phase.POSTCOPY, Phase.COMPLETED}
        first: PhaseChange | None = None
        for each in reversed(self.phases):
            if each.phase in left:
                first = each
            elif each.phase is Phase.PRECOPY:
                break
        if first is None:
            return None
        before = 0.0 if first.phase is Phase.SWITCHOVER else self.downtime_reported or 0.0
        return max(0.0, self.arrival_time - first.at) + before

    @property
    def pass_count(self) -> int | None:
        """Number of passes; None where none was seen."""
        counts = [p.number for p in self.passes] + [o.passes for o in self.observations]
        return max(counts, default=None)

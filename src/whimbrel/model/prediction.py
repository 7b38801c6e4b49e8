"""What theory says a move will do: one course of events, or a spread of them."""

from dataclasses import dataclass, field
from enum import StrEnum

from whimbrel.model.method import Tuning
from whimbrel.model.migration import Observation, Pass, PhaseChange


@dataclass(frozen=True)
class Interval:
    """The 10th, 50th and 90th percentile of one figure over the draws; p10 <= p50 <= p90."""

    p10: float
    p50: float
    p90: float

    def holds(self, value: float) -> bool:
        """Tell whether a value lies within p10 and p90, both included."""
        return self.p10 <= value <= self.p90


class Verdict(StrEnum):
    """Whether a move should be begun."""

    GO = "go"
    BORDERLINE = "borderline"
    REFUSE = "refuse"


GO_FROM = 0.9
"""Completion probability from which a move is worth beginning."""

REFUSE_BELOW = 0.5
"""Completion probability below which it is not."""


def verdict_for(probability: float) -> Verdict:
    """Return the verdict that a completion probability leads to."""
    if probability >= GO_FROM:
        return Verdict.GO
    return Verdict.REFUSE if probability < REFUSE_BELOW else Verdict.BORDERLINE


@dataclass(frozen=True)
class Course:
    """How one move goes, simulated from beginning to end.

    Attributes:
        completed: Whether it ended within the deadline; if not, the figures are those of the
            deadline and `downtime` is 0.
        total_time: Seconds from the request until the source reports completion.
        downtime: Seconds the guest stands still.
        downtime_reported: Seconds of downtime as QEMU's source counts them; shorter than
            `downtime` in post-copy (migration.c, postcopy_start).
        wire_bytes: Bytes on the wire.
        counted_bytes: Bytes as QEMU counts them (`transferred`); differs from `wire_bytes`
            only for multifd with compression up to 8.0.
        normal_pages: Pages sent with content.
        zero_pages: Pages sent as a mark.
        passes: The start of every pass, the last being that of the stopped guest.
        phases: Every phase entered.
        throttle: The strongest throttling, 0 to 1.
        source_cpu_seconds: CPU the move takes at the source.
        destination_cpu_seconds: CPU the move takes at the destination.
        preparation_time: Seconds to prepare destination memory, before `total_time` begins.
        fault_seconds: Seconds that post-copy faults make the guest wait, summed.
        trace: Observations at every bend; straight lines lie between them.
    """

    completed: bool
    total_time: float
    downtime: float
    downtime_reported: float
    wire_bytes: int
    counted_bytes: int
    normal_pages: int
    zero_pages: int
    passes: tuple[Pass, ...]
    phases: tuple[PhaseChange, ...]
    throttle: float = 0.0
    source_cpu_seconds: float = 0.0
    destination_cpu_seconds: float = 0.0
    preparation_time: float = 0.0
    fault_seconds: float = 0.0
    trace: tuple[Observation, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PassBand:
    """One predicted pass over the draws that reached it; a chart's band.

    Attributes:
        number: 1 for the first.
        share: Share of the draws that reached it.
        at: Seconds since the request.
        remaining: Raw bytes found dirty.
    """

    number: int
    share: float
    at: Interval
    remaining: Interval


@dataclass(frozen=True)
class Widening:
    """What past moves did to a prediction's intervals (theory/widening.py).

    From 0 on: added to each half-width as variances are; below 0: the share taken off it. None:
    left as it was drawn.

    Attributes:
        total_time: Of the total time, as a natural logarithm.
        downtime: Of the downtime, seconds.
        wire_bytes: Of the bytes, as a natural logarithm.
    """

    total_time: float | None = None
    downtime: float | None = None
    wire_bytes: float | None = None


@dataclass(frozen=True)
class Prediction:
    """What a move with one tuning will do, with intervals.

    The intervals speak of the draws that completed; where none did, of all draws as they
    stood at the deadline.

    Attributes:
        tuning: What it was predicted for.
        deadline: Seconds the move was given.
        completion_probability: Share of the draws that completed, 0 to 1.
        verdict: What that share advises.
        total_time: Seconds.
        downtime: Seconds the guest stands still.
        wire_bytes: Bytes on the wire.
        passes: Number of passes.
        throttle: Strongest throttling, 0 to 1.
        source_cpu_seconds: CPU at the source.
        destination_cpu_seconds: CPU at the destination.
        preparation_time: Seconds before the move, to prepare destination memory.
        fault_seconds: Seconds the guest waits for post-copy faults, summed.
        band: The predicted passes, as far as at least a tenth of the draws reached them.
        widened: What past moves did to the intervals of time, downtime and bytes.
    """

    tuning: Tuning
    deadline: float
    completion_probability: float
    verdict: Verdict
    total_time: Interval
    downtime: Interval
    wire_bytes: Interval
    passes: Interval
    throttle: Interval
    source_cpu_seconds: Interval
    destination_cpu_seconds: Interval
    preparation_time: Interval
    fault_seconds: Interval
    band: tuple[PassBand, ...] = field(default=(), repr=False)
    widened: Widening = Widening()

"""A move that is over: what was known before it, what was predicted, what happened."""

from dataclasses import dataclass

from whimbrel.model.memory import Survey
from whimbrel.model.method import Method, Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Prediction, Verdict
from whimbrel.model.storage import StorageCopied


@dataclass(frozen=True)
class MoveFigures:
    """What one move was seen to take; None: not measured. Defined as in docs/measures.md.

    Attributes:
        total_time: The hypervisor's own total time in seconds; what predictions speak of.
        preparation_time: Seconds until the destination listened, its memory prepared.
        downtime: Seconds the guest stood still, observed from outside the hypervisor.
        downtime_reported: Seconds of it that the hypervisor counted.
        downtime_expected: Seconds that the hypervisor itself last expected, before it stopped
            the guest.
        wire_bytes: Bytes on the wire.
        normal_pages: Pages sent with content.
        source_cpu_seconds: CPU the move took at the source, by the threads that move the guest
            only; None where those could not be told from its vCPUs.
        destination_cpu_seconds: Likewise at the destination.
    """

    total_time: float | None = None
    preparation_time: float | None = None
    downtime: float | None = None
    downtime_reported: float | None = None
    downtime_expected: float | None = None
    wire_bytes: int | None = None
    normal_pages: int | None = None
    source_cpu_seconds: float | None = None
    destination_cpu_seconds: float | None = None


@dataclass(frozen=True)
class MoveRecord:
    """One move as the store keeps it.

    Attributes:
        began: When it was asked for, seconds since 1970-01-01 UTC.
        ended: When it was over; on the same clock.
        source: Name of the host it left.
        destination: Name of the host it was to go to.
        vm: Name of the VM.
        method: How it was moved.
        tuning: Every setting of it.
        ending: How it ended.
        observed: What it took.
        survey: What was measured before it, with no correction from past moves in it; None
            where nothing was.
        prediction: What was said beforehand; None where nothing was.
        verdict: What the plan advised; None where there was none.
        copied: What became of the disks that went along; None where none did, or did not arrive.
        number: What the store calls it; None before it is stored.
    """

    began: float
    ended: float
    source: str
    destination: str
    vm: str
    method: Method
    tuning: Tuning
    ending: Ending
    observed: MoveFigures = MoveFigures()
    survey: Survey | None = None
    prediction: Prediction | None = None
    verdict: Verdict | None = None
    copied: StorageCopied | None = None
    number: int | None = None

    @property
    def completed(self) -> bool | None:
        """Whether it completed; None where that says nothing: it was called back or never run."""
        if self.ending in {Ending.CANCELLED, Ending.NOT_AVAILABLE}:
            return None
        return self.ending is Ending.COMPLETED

    @property
    def verdict_met(self) -> bool | None:
        """Whether the verdict said what happened; None where it promised nothing."""
        if self.completed is None or self.verdict in {None, Verdict.BORDERLINE}:
            return None
        return self.completed == (self.verdict is Verdict.GO)

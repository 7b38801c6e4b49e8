"""What is known when a move is planned, but for what is wished of it."""

import math
from dataclasses import dataclass

from whimbrel.model.inventory import Capability
from whimbrel.model.memory import Survey
from whimbrel.model.plan import Rejection
from whimbrel.theory.rules import QemuRules


@dataclass(frozen=True)
class Earlier:
    """What the same guest was seen to do before.

    Attributes:
        age: Seconds ago.
        write_rate: Pages written per second, each rewriting counted (`DirtyCurve.write_rate`).
    """

    age: float
    write_rate: float


@dataclass(frozen=True)
class Situation:
    """One guest between two hosts.

    Attributes:
        survey: Guest, link and hosts.
        source: What the source can do.
        destination: What the destination can do.
        rules: The QEMU that moves it.
        hints: Whether the guest can tell its free pages; fixed when it was booted.
        tolerance: Seconds of standing still that its clients tolerate.
        headroom: Share of the destination that is left free once the guest is there; below 0
            where it is overcommitted.
        floor: Bytes per second that the link is promised to carry in every second; None takes
            the 10th percentile of the surveyed goodput.
        earlier: What was seen of the guest before, in any order.
        barred: Methods that a check keeps out although both hosts can do them, and why.
    """

    survey: Survey
    source: frozenset[Capability]
    destination: frozenset[Capability]
    rules: QemuRules = QemuRules()
    hints: bool = False
    tolerance: float = 1.0
    headroom: float = 1.0
    floor: float | None = None
    earlier: tuple[Earlier, ...] = ()
    barred: tuple[Rejection, ...] = ()

    @property
    def common(self) -> frozenset[Capability]:
        """What both hosts can do."""
        return self.source & self.destination

    @property
    def cores(self) -> int:
        """Whole cores that either host has left for the move, at least 1."""
        survey = self.survey
        return max(1, math.floor(min(survey.source.spare_cores, survey.destination.spare_cores)))

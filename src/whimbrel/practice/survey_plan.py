"""How deep a survey looks: when, at how many pages, and how long the link is probed.

Looks come in bursts of growing steps. Within a burst windows of many lengths lie one after the
other; the same windows come again in the next burst, and pairs of looks in different bursts
give the long ones. So one series of looks is the whole curve, repeated.
"""

from dataclasses import dataclass
from itertools import accumulate

from whimbrel.model.survey import Depth


@dataclass(frozen=True)
class Effort:
    """What one depth means.

    Attributes:
        pages: Pages that are watched for changes.
        steps: Seconds between the looks of a burst.
        bursts: How many bursts.
        contents: Pages whose content is compressed one by one, and as many dirtied ones.
        runs: Runs of `RUN` pages that are compressed as a stream.
        probe: Seconds the link is probed for each number of streams.
        probes: For how many numbers of streams, at most.
        touched: Bytes of memory touched to time first touches.
    """

    pages: int
    steps: tuple[float, ...]
    bursts: int
    contents: int
    runs: int
    probe: float
    probes: int
    touched: int

    @property
    def schedule(self) -> tuple[float, ...]:
        """When to look, seconds since the first look; the first is 0."""
        steps = self.steps * self.bursts
        return tuple(accumulate(steps, initial=0.0))


RUN = 128
"""Pages of a run: those of a multifd packet (multifd.h 77)."""

EFFORTS = {
    Depth.QUICK: Effort(8192, (0.05, 0.1, 0.15, 0.3), 2, 256, 4, 0.25, 1, 64 << 20),
    Depth.DEFAULT: Effort(16384, (0.05, 0.1, 0.2, 0.35, 0.7), 3, 2048, 32, 0.5, 2, 128 << 20),
    Depth.DEEP: Effort(
        16384, (0.05, 0.1, 0.2, 0.4, 0.75, 1.5, 1.5), 10, 4096, 48, 2.0, 3, 256 << 20
    ),
}


@dataclass(frozen=True)
class FarEffort:
    """What one depth means where no shell leads to the guest's host.

    Attributes:
        pages: Pages that are read, twice.
        counted: Seconds, whole ones, for which the hypervisor counts written pages.
        runs: Runs of `RUN` pages that are compressed as a stream.
    """

    pages: int
    counted: tuple[float, ...]
    runs: int


AFAR = {
    Depth.QUICK: FarEffort(256, (1.0,), 2),
    Depth.DEFAULT: FarEffort(512, (1.0, 2.0), 4),
    Depth.DEEP: FarEffort(2048, (1.0, 2.0, 4.0, 8.0, 1.0, 2.0, 4.0), 8),
}

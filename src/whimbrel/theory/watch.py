"""Whether a move comes closer to its end, told from the starts of its passes alone.

QEMU's `remaining` falls within a pass and jumps at the next; only the figures at the start of a
pass can be compared (docs/theory.md). A move converges as long as passes begin with less and
less. Where the guest rewrites as much in each pass as the last one sent, they do not.
"""

from collections.abc import Sequence

from whimbrel.model.migration import Pass
from whimbrel.model.prediction import PassBand

IMPROVEMENT = 0.04
"""Share by which a pass must begin with less than the best before it to count as progress; the
4 % of KubeVirt's stall detector (VEP 248), within the noise of repeated passes."""

PATIENCE = 2
"""Passes without progress after which a move has stalled."""

LONG = 5.0
"""Seconds without progress after which one such pass is enough."""

BEYOND = 1.25
"""A pass that begins with more than this times the forecast's p90 is beyond the forecast."""

_SHORTEST = 0.2
"""Seconds between two passes from which they tell something: QEMU's passes come in bursts where
it synchronises near its threshold."""


class Watch:
    """The passes of one move so far.

    Args:
        band: The passes that were foreseen; empty where none were.
    """

    def __init__(self, band: Sequence[PassBand] = ()) -> None:
        self._foreseen = {each.number: each.remaining.p90 for each in band}
        self._passes: list[Pass] = []
        self._best: int | None = None
        self._progress_at = 0.0
        self._counted_at = 0.0
        self._without_progress = 0
        self._throttle = 0.0
        self._slowed = False

    @property
    def stalled(self) -> bool:
        """Whether the last passes brought the move no closer to its end.

        Two passes say so; one is enough where it was long, or the forecast promised better.
        """
        if not self._without_progress:
            return False
        last = self._passes[-1]
        waited = last.at - self._progress_at
        return self._without_progress >= PATIENCE or waited >= LONG or self._beyond(last)

    @property
    def rate(self) -> float:
        """Bytes sent per second until the last pass, over the last 0.2 s or more; 0: unknown."""
        if not self._passes:
            return 0.0
        last = self._passes[-1]
        for earlier in reversed(self._passes):
            if last.at - earlier.at >= _SHORTEST:
                return (last.transferred - earlier.transferred) / (last.at - earlier.at)
        return 0.0

    def hear(self, event: Pass) -> None:
        """Take in the start of a pass; the first tells the size of the guest, no more."""
        self._passes.append(event)
        slowed, self._slowed = self._slowed, False
        if event.number == 1:
            return
        if self._best is None or event.remaining < self._best * (1 - IMPROVEMENT):
            self._best = event.remaining
            self._progress_at = self._counted_at = event.at
            self._without_progress = 0
        elif not slowed and event.at - self._counted_at >= _SHORTEST:
            self._counted_at = event.at
            self._without_progress += 1

    def throttled(self, level: float) -> None:
        """Take in how strongly the guest is throttled, 0 to 1.

        A pass in which that rose is no evidence: its successor is sent to a slower guest.
        """
        self._slowed = self._slowed or level > self._throttle
        self._throttle = max(level, self._throttle)

    def forgive(self) -> None:
        """Start counting anew from the last pass: something was done, and deserves its chance."""
        self._without_progress = 0
        if self._passes:
            self._best = self._passes[-1].remaining
            self._progress_at = self._counted_at = self._passes[-1].at

    def _beyond(self, event: Pass) -> bool:
        if not self._foreseen:
            return False
        foreseen = self._foreseen.get(event.number)
        return foreseen is None or event.remaining > foreseen * BEYOND

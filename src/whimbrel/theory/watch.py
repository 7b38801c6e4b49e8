"""Whether a move comes closer to its end, told from the starts of its passes alone.

QEMU's `remaining` falls within a pass and jumps at the next; only the figures at the start of a
pass can be compared (docs/theory.md). A move converges as long as passes begin with less and
less. Where the guest rewrites as much in each pass as the last one sent, they do not.
"""

from itertools import pairwise

from whimbrel.model.migration import Pass

IMPROVEMENT = 0.04
"""Share by which a pass must begin with less than the best before it to count as progress; the
4 % of KubeVirt's stall detector (VEP 248), within the noise of repeated passes."""

PATIENCE = 2
"""Passes without progress after which a move has stalled."""

_SHORTEST = 0.2
"""Seconds between two passes from which a rate is told: QEMU's passes come in bursts where it
synchronises near its threshold, and bytes over next to no time tell nothing."""


class Watch:
    """The passes of one move so far."""

    def __init__(self) -> None:
        self._passes: list[Pass] = []
        self._best: int | None = None
        self._without_progress = 0

    @property
    def stalled(self) -> bool:
        """Whether the last passes brought the move no closer to its end."""
        return self._without_progress >= PATIENCE

    @property
    def rate(self) -> float:
        """Bytes sent per second between the last passes that lie far enough apart; 0: unknown."""
        for earlier, later in reversed(list(pairwise(self._passes))):
            if later.at - earlier.at >= _SHORTEST:
                return (later.transferred - earlier.transferred) / (later.at - earlier.at)
        return 0.0

    def hear(self, event: Pass) -> None:
        """Take in the start of a pass; the first tells the size of the guest, no more."""
        self._passes.append(event)
        if event.number == 1:
            return
        if self._best is None or event.remaining < self._best * (1 - IMPROVEMENT):
            self._best = event.remaining
            self._without_progress = 0
        else:
            self._without_progress += 1

    def forgive(self) -> None:
        """Start counting anew: something was done about it and deserves its chance."""
        self._without_progress = 0
        self._best = None

"""How far along a move is, told in the seconds of its forecast or from what is seen alone.

    forecast   pass 1 ────────────── pass 2 ─── pass 3 ─ stopped
    seen       pass 1 ───────────────────── pass 2 ──┤ now: so much of pass 2 is done

A pass that begins with more than foreseen takes longer in proportion, and so does what follows;
a link that is slower than foreseen stretches everything that is still to come.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

from whimbrel.model.migration import Observation, Pass
from whimbrel.model.prediction import Interval, PassBand, Prediction
from whimbrel.theory.bounds import Z90

STANDARD = NormalDist()

FADING = 0.5
"""Share that a finished pass keeps of its weight with each pass after it: a link that changes
shows in the last passes."""

TRUST = (0.05, 0.3)
"""Share of the total time, and seconds, for which the forecast's pace weighs against the seen."""

_VOLUME = (0.2, 5.0)
_MOST = 0.98
"""How much of a pass can be done before the next has begun."""

_CONVERGING = 0.97
"""Dirty rate over bandwidth from which the passes still to come are not summed up any more."""

_MANY = 30
"""Passes still to come at most."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a move; times in seconds since its memory's way began.

    Attributes:
        now: The time.
        passes: The starts of its passes.
        last: What was polled last; None before the first poll.
        threshold: Bytes that may be left to the stopped guest; 0: unknown.
    """

    now: float
    passes: tuple[Pass, ...]
    last: Observation | None
    threshold: float = 0.0

    @property
    def remaining(self) -> int:
        """Raw bytes of the running pass that are not sent yet."""
        start = self.passes[-1]
        if self.last is None or self.last.at < start.at:
            return start.remaining
        return min(self.last.remaining, start.remaining)


class Timeline:
    """A prediction as a line of passes.

    Args:
        prediction: With a band of at least one pass.
    """

    def __init__(self, prediction: Prediction) -> None:
        self._wire = max(prediction.wire_bytes.p50, 1.0)
        self.total = max(prediction.total_time.p50, 1e-3)
        self.spread = spread(prediction.total_time)
        self._band = {each.number: each for each in prediction.band}

    def left(self, seen: Seen) -> float | None:
        """Return the seconds still to go; None where the forecast does not reach as far."""
        band = self._band.get(seen.passes[-1].number)
        if band is None:
            return None
        part, volume = self._part(seen, band), self._volume(seen.passes[-1])
        lasts, after = self._ahead(band)
        work = part * lasts * volume
        return self._pace(seen, work) * volume * ((1 - part) * lasts + after)

    def beyond(self, start: Pass, factor: float) -> bool:
        """Tell whether a pass begins with more than `factor` times the forecast's p90."""
        band = self._band.get(start.number)
        return band is None or start.remaining > band.remaining.p90 * factor

    def _ahead(self, band: PassBand) -> tuple[float, float]:
        """Return how long a pass takes in the forecast, and what follows it, in seconds."""
        # Only the slower draws come to a pass that not all reach.
        end = self.total * math.exp(self.spread * STANDARD.inv_cdf(1 - band.share / 2))
        left = max(end - band.at.p50, 0.0)
        following = self._band.get(band.number + 1)
        lasts = left if following is None else min(left, max(following.at.p50 - band.at.p50, 0.0))
        return lasts, left - lasts

    def _part(self, seen: Seen, band: PassBand) -> float:
        """Return how much of the running pass is done, 0 to 1."""
        start = seen.passes[-1]
        if band.number > 1:
            return min(1 - seen.remaining / start.remaining, _MOST) if start.remaining else _MOST
        # Zero pages go at once and may lie anywhere, so only bytes tell of the first pass.
        foreseen = self._wire * min(self._ahead(band)[0] / self.total, 1.0)
        sent = 0 if seen.last is None else seen.last.transferred - start.transferred
        return min(max(sent, 0) / max(foreseen, 1.0), _MOST)

    def _volume(self, start: Pass) -> float:
        band = self._band.get(start.number)
        if start.number == 1 or band is None or band.remaining.p50 <= 0:
            return 1.0
        low, high = _VOLUME
        return min(max(start.remaining / band.remaining.p50, low), high)

    def _pace(self, seen: Seen, work: float) -> float:
        """Return the seconds that a second of the forecast takes.

        Args:
            seen: The move so far.
            work: Seconds of the forecast done in the running pass.
        """
        took, done = 0.0, 0.0
        for start, following in pairwise(seen.passes):
            band = self._band.get(start.number)
            if band is None:
                continue
            took = FADING * took + following.at - start.at
            done = FADING * done + self._volume(start) * self._ahead(band)[0]
        took = FADING * took + seen.now - seen.passes[-1].at
        done = FADING * done + work
        share, seconds = TRUST
        prior = share * self.total + seconds
        return (took + prior) / (done + prior)


def left_by_sight(seen: Seen) -> float | None:
    """Return the seconds still to go from the figures of the move alone; None: nothing to tell.

    What the pass has left, then every pass as much smaller than the one before as the guest
    dirties slower than the link carries, until the rest may be left to the stopped guest.
    """
    rate = sight_rate(seen)
    if rate <= 0:
        return None
    left = seen.remaining / rate
    if len(seen.passes) < 2:  # noqa: PLR2004 - before the second pass nothing is known of dirtying
        return left
    before, start = seen.passes[-2:]
    dirtying = start.remaining / max(start.at - before.at, 1e-3) / rate
    shrink = min(dirtying, _CONVERGING)
    upcoming, count = start.remaining * shrink, 0
    while upcoming > max(seen.threshold, 1.0) and count < _MANY:
        left += upcoming / rate
        upcoming, count = upcoming * shrink, count + 1
    return left


def sight_rate(seen: Seen) -> float:
    """Return the raw bytes per second by which what remains falls; 0: unknown."""
    start = seen.passes[-1]
    if seen.now - start.at >= TRUST[1] and seen.remaining < start.remaining:
        return (start.remaining - seen.remaining) / (seen.now - start.at)
    return seen.last.bandwidth if seen.last is not None else 0.0


def spread(interval: Interval) -> float:
    """Return the standard deviation of the logarithm of what has these percentiles."""
    if interval.p10 <= 0 or interval.p90 <= interval.p10:
        return 0.0
    return math.log(interval.p90 / interval.p10) / (2 * Z90)

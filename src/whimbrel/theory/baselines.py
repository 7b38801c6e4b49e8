"""What others would predict: simple models that ours must beat to be worth its length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whimbrel.model.units import PAGE
from whimbrel.theory.dirtying import DirtySample

MOST_PASSES = 1000
"""Passes after which a baseline gives up."""


@dataclass(frozen=True)
class Baseline:
    """What a simple model predicts; seconds and bytes are infinite where it never ends.

    Attributes:
        total_time: Seconds.
        wire_bytes: Bytes.
        downtime: Seconds.
    """

    total_time: float
    wire_bytes: float
    downtime: float

    @property
    def completes(self) -> bool:
        """Whether the model expects the move to end."""
        return math.isfinite(self.total_time)


NEVER = Baseline(math.inf, math.inf, math.inf)
"""The move does not end."""


def volume_over_bandwidth(volume: float, bandwidth: float) -> Baseline:
    """Return the model of an envelope's back: bytes over bytes per second, no dirtying."""
    return Baseline(volume / bandwidth, volume, 0.0)


def geometric(
    volume: float, bandwidth: float, dirty_rate: float, downtime_limit: float
) -> Baseline:
    """Return the geometric model (Liu 2011 and many others): each pass is λ times the last.

    Args:
        volume: Bytes to be sent in the first pass.
        bandwidth: Bytes per second.
        dirty_rate: Bytes per second, taken as constant whatever the window.
        downtime_limit: Seconds.
    """
    share, threshold = dirty_rate / bandwidth, bandwidth * downtime_limit
    if volume <= threshold:
        return Baseline(volume / bandwidth, volume, volume / bandwidth)
    if share >= 1:
        return NEVER
    if share <= 0:
        return Baseline(volume / bandwidth, volume, 0.0)
    last = max(1, math.ceil(math.log(threshold / volume) / math.log(share)))
    sent = volume * (1 - share ** (last + 1)) / (1 - share)
    return Baseline(sent / bandwidth, sent, volume * share**last / bandwidth)


def interpolated(
    volume: float, bandwidth: float, samples: Sequence[DirtySample], downtime_limit: float
) -> Baseline:
    """Return the model of Gudkov (QEMU list, 2023): passes over a piece-wise linear W(t).

    Args:
        volume: Bytes to be sent in the first pass.
        bandwidth: Bytes per second.
        samples: The measured dirty curve; constant beyond the longest window.
        downtime_limit: Seconds; the first pass that fits in it is the last.
    """
    ordered = sorted(samples, key=lambda each: each.window)
    windows = [0.0, *(each.window for each in ordered)]
    pages = [0.0, *(each.pages for each in ordered)]
    total, sent, left = 0.0, 0.0, volume
    for _ in range(MOST_PASSES):
        lasts = left / bandwidth
        total, sent = total + lasts, sent + left
        if lasts <= downtime_limit:
            return Baseline(total, sent, lasts)
        left = float(np.interp(lasts, windows, pages)) * PAGE
    return NEVER


def expected_downtime(remaining: float, bandwidth: float) -> float:
    """Return QEMU's own estimate: bytes found dirty at the last pass over bandwidth."""
    return remaining / bandwidth if bandwidth > 0 else math.inf

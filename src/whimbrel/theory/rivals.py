"""What others would have said of a move, from the very survey that our prediction was made of.

They are given all that a survey found which they can use: the bytes that have to be sent (zero
pages left out, compression counted), the goodput of as many streams, and the dirty curve. So
what remains between them and ours is the model.
"""

from collections.abc import Mapping

from whimbrel.model.memory import Survey
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.units import PAGE
from whimbrel.theory.baselines import Baseline, geometric, interpolated, volume_over_bandwidth
from whimbrel.theory.dirtying import DirtySample
from whimbrel.theory.rules import DEFAULT_BANDWIDTH_LIMIT

VOLUME = "V/B"
GEOMETRIC = "geometric"
INTERPOLATION = "interpolation"

MEAN_WINDOW = 1.0
"""Seconds over which the one dirty rate of the geometric model is taken, QEMU's own default
(calc-dirty-rate, calc-time 1)."""

WINDOWS = (0.125, 0.25, 0.5, 0.75, *(0.5 * step for step in range(2, 21)))
"""Seconds at which the dirty curve is interpolated: those of Gudkov's patches (QEMU list,
2023), which go on in steps of 0.5 s."""


def rivals(survey: Survey, tuning: Tuning) -> Mapping[str, Baseline]:
    """Return what each simple model says of a move, by its name.

    Post-copy sends every page once whatever the guest writes, which all of them know.
    """
    survey = survey.along(tuning)
    ratio = survey.memory.ratio(tuning.compression).all
    volume = survey.memory.total * (1 - survey.memory.zero_share) * ratio
    bandwidth = survey.link.goodput_for(tuning.channels or 1)
    if tuning.as_qemu_comes:
        bandwidth = min(bandwidth, DEFAULT_BANDWIDTH_LIMIT)
    if tuning.bandwidth_limit is not None:
        bandwidth = min(bandwidth, tuning.bandwidth_limit)
    once = volume_over_bandwidth(volume, bandwidth)
    if tuning.postcopy not in {Postcopy.NEVER, Postcopy.IF_STALLED}:
        return dict.fromkeys((VOLUME, GEOMETRIC, INTERPOLATION), once)
    dirty, limit = survey.memory.dirty, tuning.downtime_limit
    mean = dirty.distinct(MEAN_WINDOW) / MEAN_WINDOW * PAGE * ratio
    samples = [DirtySample(window, dirty.distinct(window) * ratio, 1.0) for window in WINDOWS]
    return {
        VOLUME: once,
        GEOMETRIC: geometric(volume, bandwidth, mean, limit),
        INTERPOLATION: interpolated(volume, bandwidth, samples, limit),
    }

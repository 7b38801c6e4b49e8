"""How a guest dirties memory: W(t), distinct pages in a window, as a mixture of classes.

With page rates distributed as G, W(t) = N ∫ (1 - exp(-λt)) dG(λ): increasing, concave,
subadditive (docs/theory.md, "The dirty curve"). A mixture over a dozen log-spaced λ is fitted
to what was measured; writers whose law is known have it exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.errors import ConfigError
from whimbrel.model.memory import DirtyCurve, PageClass
from whimbrel.model.scenario import Access, Load
from whimbrel.model.units import PAGE
from whimbrel.theory.arrays import Floats
from whimbrel.theory.nonnegative import nonnegative_least_squares

SLOWEST = 1 / 600
"""Smallest rate of the fit: one write per page in ten minutes."""

FASTEST = 100.0
"""Largest rate of the fit: one write per page in 10 ms."""


@dataclass(frozen=True)
class DirtySample:
    """One measurement of the dirty curve.

    Attributes:
        window: Seconds between the two looks at memory.
        pages: Distinct pages found dirtied.
        error: Standard error of `pages`.
    """

    window: float
    pages: float
    error: float


def sampling_error(pages: float, dirty: float, sampled: int) -> float:
    """Return the standard error of a dirty page count taken from a sample.

    Args:
        pages: Pages in the guest.
        dirty: Of these, how many were found dirty (scaled up from the sample).
        sampled: Pages looked at.
    """
    share = min(max(dirty / pages, 1 / (sampled + 1)), 1 - 1 / (sampled + 1))
    return pages * float(np.sqrt(share * (1 - share) / sampled))


def fit(samples: Sequence[DirtySample], *, rates: int = 12) -> DirtyCurve:
    """Fit a mixture to measurements: non-negative least squares, weighted by 1/error².

    Args:
        samples: At least one, with windows and errors above 0.
        rates: Number of log-spaced rates between `SLOWEST` and `FASTEST`.

    Raises:
        ConfigError: There is no sample, or one has no window or no error.
    """
    if not samples or min(min(each.window, each.error) for each in samples) <= 0:
        raise ConfigError("A dirty curve needs samples with windows and errors above 0.")
    speeds = np.geomspace(SLOWEST, FASTEST, rates)
    windows = np.array([each.window for each in samples])
    errors = np.array([each.error for each in samples])
    pages = np.array([each.pages for each in samples])
    touched = -np.expm1(-np.outer(windows, speeds))
    counts = nonnegative_least_squares(touched / errors[:, None], pages / errors)
    classes = tuple(
        PageClass(float(count), float(speed))
        for count, speed in zip(counts, speeds, strict=True)
        if count > 0
    )
    return DirtyCurve(classes, *_uncertainty(windows, pages, errors))


def _uncertainty(windows: Floats, pages: Floats, errors: Floats) -> tuple[float, float]:
    # Short windows see the product of rate and size only, long ones the size alone.
    relative = errors / np.maximum(pages, errors)
    middle = np.median(windows)
    return _combined(relative[windows <= middle]), _combined(relative[windows >= middle])


def _combined(relative: Floats) -> float:
    return float(1 / np.sqrt(np.sum(relative**-2)))


def uniform(pages: float, write_rate: float) -> DirtyCurve:
    """Return the law of a writer that picks each page at random, writes per second given."""
    return DirtyCurve((PageClass(pages, write_rate / pages),) if pages else ())


def sequential(pages: float, write_rate: float) -> DirtyCurve:
    """Return the law of a writer that visits its pages one after the other, in any order."""
    return DirtyCurve((PageClass(pages, write_rate / pages, cyclic=True),) if pages else ())


def skewed(
    pages: float, write_rate: float, *, writes: float = 0.8, on_pages: float = 0.2
) -> DirtyCurve:
    """Return the two-class law: a share of the writes falls on a share of the pages."""
    if not pages:
        return DirtyCurve()
    hot, cold = pages * on_pages, pages * (1 - on_pages)
    return DirtyCurve(
        (
            PageClass(hot, write_rate * writes / hot),
            PageClass(cold, write_rate * (1 - writes) / cold),
        )
    )


def curve_of(load: Load) -> DirtyCurve:
    """Return the exact law of the lab's writer."""
    law = {Access.UNIFORM: uniform, Access.SEQUENTIAL: sequential, Access.SKEWED: skewed}
    return law[load.access](load.hot // PAGE, load.dirty_rate / PAGE)


def slowdown(throttle: Floats | float, busy_share: float) -> Floats:
    """Return the factor on all rates under throttling, an array of any shape.

    A paced writer uses `busy_share` of its vCPU; until the throttle has eaten the idle rest,
    nothing changes: r(p) = min(r, (1 - p) r_max) with r_max = r / busy_share
    (docs/theory.md, "Throttling").
    """
    return np.minimum(1.0, (1.0 - np.asarray(throttle, dtype=np.float64)) / busy_share)


def throttled(curve: DirtyCurve, throttle: float, busy_share: float) -> DirtyCurve:
    """Return the curve of the same guest under throttling (0 to 1)."""
    factor = float(slowdown(throttle, busy_share))
    slowed = tuple(replace(each, rate=each.rate * factor) for each in curve.classes)
    return replace(curve, classes=slowed)

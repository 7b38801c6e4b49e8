"""From looks at sampled pages to the dirty curve, with its uncertainty. Pure.

L looks give L (L - 1) / 2 windows: a page counts in the window between two looks when any look
within it found the page changed. Shares over all starts of (nearly) the same window are
averaged, and a mixture of page classes is fitted (theory.dirtying says what that is).

What the sample leaves open is found by fitting again to random selections of its `GROUPS`
interleaved parts (the bootstrap): the sample is systematic, so parts are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from whimbrel.model.memory import DirtyCurve, PageClass
from whimbrel.theory.dirtying import FASTEST, SLOWEST, DirtySample
from whimbrel.theory.nonnegative import nonnegative_least_squares

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Marks = NDArray[np.uint64]

GROUPS = 16
"""Interleaved parts of the sample."""

RATES = 24
"""Rates of the fit, even in logarithm between SLOWEST and FASTEST."""

TURNS = 120
"""Rates of cyclic classes that are tried beside them; finer, since their law has a kink."""

WRAPPED = 0.9
"""A cyclic class must come round within this share of the longest window to be seen as such."""

SELECTIONS = 32
"""How often the fit is repeated to learn its uncertainty."""

FLOOR = 0.01
"""Relative error below which no window is trusted: the mixture itself is no closer."""

UNSTEADY = 0.15
"""Spread of the dirty rate from which a guest is called unsteady."""

ALIKE = 1.08
"""Windows whose lengths differ by less than this factor count as one."""

_ENOUGH = 30.0
"""Changed pages in a window's sample below which it says nothing about steadiness."""

_POOR = 2.0
"""Misfit per window, in squares of the error, from which cyclic classes are tried."""

_BETTER = 0.4
"""They are taken when they bring the misfit down to this share of it."""

_LARGE = 0.1
"""Share of the written pages from which a class that has not come round is worth a longer look."""

_HEAVY = 1e5
"""Weight of the rule that all shares together are one."""


@dataclass(frozen=True)
class Windows:
    """What the looks say of windows of several lengths.

    Attributes:
        lengths: Seconds, rising, shape (W,).
        shares: Share of the sampled pages that changed, by part of the sample, (W, G).
    """

    lengths: Floats
    shares: Floats


def changes(marks: Marks) -> Flags:
    """Return which pages changed between each look and the next: (L, n) to (L - 1, n)."""
    found: Flags = marks[1:] != marks[:-1]
    return found


def windows(times: Floats, changed: Flags) -> Windows:
    """Return the shares changed in all windows between two looks, alike ones averaged.

    Args:
        times: When each look began, seconds, shape (L,), L at least 2.
        changed: As `changes` returns it, pages in address order; at least GROUPS pages.
    """
    whole = changed[:, : changed.shape[1] // GROUPS * GROUPS]
    lengths, shares = [], []
    for start in range(len(times) - 1):
        seen = np.logical_or.accumulate(whole[start:], axis=0)
        shares.append(seen.reshape(len(seen), -1, GROUPS).mean(axis=1))
        lengths.append(times[start + 1 :] - times[start])
    return _pooled(np.concatenate(lengths), np.concatenate(shares))


def _pooled(lengths: Floats, shares: Floats) -> Windows:
    order = np.argsort(lengths)
    lengths, shares = lengths[order], shares[order]
    starts = [0]
    for index, length in enumerate(lengths):
        if length > lengths[starts[-1]] * ALIKE:
            starts.append(index)
    counts = np.diff([*starts, len(lengths)])
    return Windows(
        np.add.reduceat(lengths, starts) / counts,
        np.add.reduceat(shares, starts) / counts[:, None],
    )


def curve(found: Windows, pages: int) -> DirtyCurve:
    """Fit the dirty curve of `pages` pages from which the sample was taken.

    Windows of the survey fix the curve up to `horizon`; unsteadiness is not in it yet.
    """
    mean = found.shares.mean(axis=1)
    spread = found.shares.std(axis=1, ddof=1) / np.sqrt(GROUPS)
    # A window without any change says little, not nothing: as if one page more had been seen.
    errors = np.hypot(np.maximum(spread, mean * FLOOR), 1.0 / max(pages, 1) + 1e-6)
    cyclic = _is_cyclic(found.lengths, mean, errors)
    best = _classes(found.lengths, mean, errors, cyclic=cyclic)
    others = [
        _classes(found.lengths, found.shares[:, some].mean(axis=1), errors, cyclic=cyclic)
        for some in np.random.default_rng(pages).integers(0, GROUPS, (SELECTIONS, GROUPS))
    ]
    short, long = float(found.lengths[0]), float(found.lengths[-1])
    size, rate = _spread(best, others, long), _spread(best, others, short)
    scaled = tuple(replace(each, pages=each.pages * pages) for each in best.classes)
    return DirtyCurve(scaled, max(rate, FLOOR), size, horizon=long)


def unturned(fitted: DirtyCurve) -> bool:
    """Tell whether a large class goes round the guest's memory and was not seen to come back.

    It may end just behind the horizon, or go on through all pages: a longer window tells.
    """
    written = sum(each.pages for each in fitted.classes)
    return any(
        each.cyclic and each.rate * fitted.horizon * WRAPPED < 1.0 and each.pages > _LARGE * written
        for each in fitted.classes
    )


def curve_from_counts(samples: Sequence[DirtySample], pages: int) -> DirtyCurve:
    """Fit the dirty curve to counts of the hypervisor, at least one, with errors above 0."""
    lengths = np.array([each.window for each in samples])
    shares = np.array([each.pages for each in samples]) / pages
    errors = np.array([each.error for each in samples]) / pages
    best = _classes(lengths, shares, errors, cyclic=False)
    scaled = tuple(replace(each, pages=each.pages * pages) for each in best.classes)
    relative = errors / np.maximum(shares, errors)
    middle = np.median(lengths)
    rate, size = (
        float(1 / np.sqrt(np.sum(relative[part] ** -2.0)))
        for part in (lengths <= middle, lengths >= middle)
    )
    return DirtyCurve(scaled, rate, size, horizon=float(lengths.max()))


def unsteadiness(times: Floats, changed: Flags, fitted: DirtyCurve, pages: int) -> float:
    """Return the spread of the dirty rate over time, relative; 0 where sampling explains it.

    Each step between two looks is compared with what the fitted curve expects of it.
    """
    steps = np.diff(times)
    seen = changed.sum(axis=1).astype(np.float64)
    scale = changed.shape[1] / max(pages, 1)
    expected = np.array([fitted.distinct(float(step)) for step in steps]) * scale
    telling = expected >= _ENOUGH
    if telling.sum() < 3:  # noqa: PLR2004 - a spread needs three values
        return 0.0
    ratio = seen[telling] / expected[telling]
    chance = 1 / expected[telling] + (3 * FLOOR) ** 2
    weights = steps[telling] / steps[telling].sum()
    mean = float(weights @ ratio)
    excess = float(weights @ ((ratio - mean) ** 2 - chance))
    doubtful = float(np.mean((ratio - mean) ** 2 / chance)) < 3.0  # noqa: PLR2004
    return 0.0 if doubtful or excess <= 0 else float(np.sqrt(excess)) / max(mean, 1e-9)


def growing(fitted: DirtyCurve, fresh: int, untouched: int, seconds: float) -> DirtyCurve:
    """Add the pages that were provided for the first time: they are written too.

    Args:
        fitted: The curve of the pages that were there.
        fresh: Pages provided in the course of the survey.
        untouched: Pages that may still be.
        seconds: How long the survey watched, above 0.
    """
    if fresh <= 0 or untouched <= 0:
        return fitted
    added = PageClass(float(untouched + fresh), fresh / seconds / (untouched + fresh), cyclic=True)
    return replace(fitted, classes=(*fitted.classes, added))


def _is_cyclic(lengths: Floats, shares: Floats, errors: Floats) -> bool:
    plain, turning = (
        _misfit(_classes(lengths, shares, errors, cyclic=cyclic), lengths, shares, errors)
        for cyclic in (False, True)
    )
    return plain > _POOR * len(lengths) and turning < _BETTER * plain


def _misfit(fitted: DirtyCurve, lengths: Floats, shares: Floats, errors: Floats) -> float:
    expected = np.array([fitted.distinct(float(length)) for length in lengths])
    return float(np.sum(((expected - shares) / errors) ** 2))


def _classes(lengths: Floats, shares: Floats, errors: Floats, *, cyclic: bool) -> DirtyCurve:
    """Fit classes as shares of the pages; with those never written they are all pages."""
    speeds = np.geomspace(SLOWEST, FASTEST, RATES)
    turns = _turns(lengths, shares) if cyclic else np.empty(0)
    touched = np.hstack(
        [
            -np.expm1(-np.outer(lengths, speeds)),
            np.minimum(1.0, np.outer(lengths, turns)),
            np.zeros((len(lengths), 1)),
        ]
    )
    rows = np.vstack([touched / errors[:, None], np.full(touched.shape[1], _HEAVY)])
    found = nonnegative_least_squares(rows, np.append(shares / errors, _HEAVY))
    kinds = [*((rate, False) for rate in speeds), *((rate, True) for rate in turns)]
    return DirtyCurve(
        tuple(
            PageClass(float(share), float(rate), cyclic=turn)
            for share, (rate, turn) in zip(found, kinds, strict=False)
            if share > 0
        )
    )


def _turns(lengths: Floats, shares: Floats) -> Floats:
    """Return the rates of cyclic classes that the windows can tell apart.

    One that has not come round yet might be of any size: then it goes on through all pages.
    """
    horizon = float(lengths[-1])
    unseen = max(float(shares[-1]) / horizon, SLOWEST)
    return np.append(np.geomspace(1 / (WRAPPED * horizon), FASTEST, TURNS), unseen)


def _spread(best: DirtyCurve, others: Sequence[DirtyCurve], window: float) -> float:
    """Return the relative standard error of W(window)."""
    whole = best.distinct(window)
    if whole <= 0:
        return 0.0
    return float(np.std([each.distinct(window) / whole for each in others], ddof=1))

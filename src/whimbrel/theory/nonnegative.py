"""Least squares without negative parts: a dirty curve has no classes of minus so many pages.

The active set method of Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23; what
scipy.optimize.nnls does too. It stands here because scipy takes 47 MiB of a program that may take
200; a test holds the two against each other.
"""

import numpy as np

from whimbrel.theory.arrays import Floats


def nonnegative_least_squares(columns: Floats, values: Floats) -> Floats:
    """Return the x >= 0, (N,), for which `columns @ x` comes closest to `values`.

    Args:
        columns: What is mixed, (M, N).
        values: What the mixture shall be, (M,).
    """
    count = columns.shape[1]
    found, used = np.zeros(count), np.zeros(count, dtype=np.bool_)
    least = 10 * np.finfo(np.float64).eps * np.abs(columns).sum(axis=0).max() * max(columns.shape)
    for _ in range(3 * count):
        gain = np.where(used, -np.inf, columns.T @ (values - columns @ found))
        best = int(np.argmax(gain))
        if gain[best] <= least:
            break
        used[best] = True
        found, used = _feasible(columns, values, found, used)
    return found


def _feasible(
    columns: Floats, values: Floats, found: Floats, used: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Solve for the used columns, dropping those that would turn negative on the way there."""
    while used.any():
        solved = np.zeros_like(found)
        solved[used] = np.linalg.lstsq(columns[:, used], values, rcond=None)[0]
        blocked = used & (solved <= 0)
        if not blocked.any():
            return solved, used
        # A column found zero and solved zero blocks at once; nothing is divided by nothing.
        way = np.maximum(found[blocked] - solved[blocked], np.finfo(np.float64).tiny)
        step = (found[blocked] / way).min()
        found = np.maximum(0.0, found + step * (solved - found))
        used = used & ~(blocked & (found <= np.finfo(np.float64).tiny + 1e-12 * found.max()))
    return np.zeros_like(found), used

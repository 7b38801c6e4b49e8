import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from whimbrel.theory.nonnegative import nonnegative_least_squares


@given(st.integers(0, 1 << 32), st.integers(1, 30), st.integers(1, 20))
def test_it_comes_as_close_as_scipy_does(seed: int, rows: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    columns = chance.normal(size=(rows, count))
    values = chance.normal(size=rows)
    found = nonnegative_least_squares(columns, values)
    _, distance = nnls(columns, values)
    assert (found >= 0).all()
    assert np.linalg.norm(columns @ found - values) == pytest.approx(distance, rel=1e-6, abs=1e-9)


@given(st.integers(0, 1 << 32))
def test_mixtures_of_saturating_curves_are_found_as_well(seed: int) -> None:
    # Such columns are nearly alike, which is what dirty curves are made of.
    chance = np.random.default_rng(seed)
    windows = np.geomspace(0.05, 5.0, 15)
    columns = -np.expm1(-np.outer(windows, np.geomspace(0.01, 100.0, 12)))
    errors = chance.uniform(0.5, 50.0, size=15)
    truth = columns @ (chance.exponential(1000.0, size=12) * (chance.random(12) < 0.3))
    values = (truth + errors * chance.normal(size=15)) / errors
    found = nonnegative_least_squares(columns / errors[:, None], values)
    _, distance = nnls(columns / errors[:, None], values)
    reached = np.linalg.norm(columns / errors[:, None] @ found - values)
    assert reached == pytest.approx(distance, rel=1e-4, abs=1e-6)


def test_nothing_fits_what_is_all_negative() -> None:
    assert nonnegative_least_squares(np.eye(3), -np.ones(3)).tolist() == [0.0, 0.0, 0.0]

"""How long a guest waits for its first pages after the switch to post-copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.theory.postcopy import MOST_BELIEVED, faults, standing

seconds = st.floats(1e-3, 100.0)


@given(seconds, st.floats(0.0, 1e3))
def test_a_guest_never_waits_longer_than_all_pages_take_nor_than_its_own_do(
    every: float, own: float
) -> None:
    waited = float(standing(np.array([own]), np.array([every]))[0])
    assert 0 <= waited <= min(own, every) * (1 + 1e-9)


def test_few_pages_among_many_wait_for_themselves_only() -> None:
    assert standing(np.array([0.1]), np.array([100.0]))[0] == pytest.approx(0.1, rel=0.01)


@given(seconds, st.floats(0.01, MOST_BELIEVED - 0.01))
def test_how_many_it_needed_is_found_from_how_long_it_waited(every: float, share: float) -> None:
    waited = float(standing(np.array([share * every]), np.array([every]))[0])
    assert faults(waited, every) == pytest.approx(share * every, rel=1e-6)


@pytest.mark.parametrize("waited", [1.0, 5.0])
def test_a_guest_that_waited_until_the_last_page_is_believed_to_need_so_many(
    waited: float,
) -> None:
    assert faults(waited, 1.0) == MOST_BELIEVED


def test_where_nothing_is_missing_nothing_is_learnt() -> None:
    assert faults(0.3, 0.0) == 0.0
    assert standing(np.array([0.3]), np.array([0.0]))[0] == pytest.approx(0.0, abs=1e-8)

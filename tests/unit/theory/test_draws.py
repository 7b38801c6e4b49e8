"""What draws from a survey's uncertainty promise, whatever the seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.theory.situations import BUSY, ZSTD
from whimbrel.model.memory import Survey, WireRatio
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.theory.draws import draw

COMPRESSED = tuning_for(Method.COMPRESSED, Settings(compression=ZSTD))


def with_ratio(ratio: WireRatio) -> Survey:
    return replace(BUSY, memory=replace(BUSY.memory, ratios={ZSTD: ratio}))


@given(st.integers(0, 1000), st.sampled_from([20, 200]))
def test_the_median_of_the_draws_is_the_best_estimate(seed: int, count: int) -> None:
    survey = with_ratio(WireRatio(0.5, 0.2, 0.3))
    found = draw(survey, COMPRESSED, np.random.default_rng(seed), count)
    best = draw(survey, COMPRESSED)
    assert np.median(found.first_ratio) == pytest.approx(best.first_ratio[0], rel=0.03)
    assert np.median(found.goodput) == pytest.approx(best.goodput[0], rel=0.03)


@given(st.integers(0, 1000))
def test_few_written_pages_leave_nothing_open_of_all_the_others(seed: int) -> None:
    survey = with_ratio(WireRatio(0.5, 0.2, error=0.01, dirty_error=0.3))
    found = draw(survey, COMPRESSED, np.random.default_rng(seed), 200)
    first, later = (np.log(each).std() for each in (found.first_ratio, found.later_ratio))
    assert first == pytest.approx(0.01, rel=0.05)
    assert later == pytest.approx(0.3, rel=0.05)

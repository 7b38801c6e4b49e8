from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import ConfigError
from whimbrel.model.memory import DirtyCurve
from whimbrel.model.scenario import Access, Load
from whimbrel.model.units import MIB
from whimbrel.theory.dirtying import (
    DirtySample,
    curve_of,
    fit,
    sampling_error,
    sequential,
    skewed,
    throttled,
    uniform,
)

WINDOWS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
curves = st.builds(
    lambda law, pages, rate: law(pages, rate),
    st.sampled_from([uniform, sequential, skewed]),
    st.floats(1, 1e6),
    st.floats(0.1, 1e6),
)


@given(curve=curves, windows=st.lists(st.floats(0, 100), min_size=3, max_size=8))
def test_a_dirty_curve_increases_ever_more_slowly(curve: DirtyCurve, windows: list[float]) -> None:
    times = sorted({0.0, *windows})
    values = [curve.distinct(t) for t in times]
    slack = 1e-9 * (1 + curve.working_set)
    assert all(a <= b + slack for a, b in pairwise(values))
    for (t0, w0), (t1, w1), (t2, w2) in zip(
        zip(times, values, strict=True),
        list(zip(times, values, strict=True))[1:],
        list(zip(times, values, strict=True))[2:],
        strict=False,
    ):
        assert (w1 - w0) * (t2 - t1) + slack * (t2 - t0) >= (w2 - w1) * (t1 - t0)


@given(curve=curves, first=st.floats(0, 50), second=st.floats(0, 50))
def test_two_windows_together_never_dirty_more_than_each_alone(
    curve: DirtyCurve, first: float, second: float
) -> None:
    apart = curve.distinct(first) + curve.distinct(second)
    assert curve.distinct(first + second) <= apart * (1 + 1e-9) + 1e-9


@given(curve=curves)
def test_no_window_dirties_more_than_the_working_set_or_than_was_written(
    curve: DirtyCurve,
) -> None:
    for window in WINDOWS:
        assert curve.distinct(window) <= curve.working_set * (1 + 1e-9)
        assert curve.distinct(window) <= curve.write_rate * window * (1 + 1e-9)


@given(curve=curves, throttle=st.floats(0, 0.99), busy=st.floats(0.01, 1))
def test_throttling_never_raises_a_dirty_rate(
    curve: DirtyCurve, throttle: float, busy: float
) -> None:
    slowed = throttled(curve, throttle, busy)
    assert all(slowed.distinct(t) <= curve.distinct(t) * (1 + 1e-9) for t in WINDOWS)
    if 1 - throttle >= busy:
        assert slowed == curve


@pytest.mark.parametrize("law", [uniform, skewed])
def test_a_fit_finds_back_a_law_it_was_shown(law: type) -> None:
    truth = law(100_000, 50_000)
    curve = fit([DirtySample(t, truth.distinct(t), 0.02 * truth.distinct(t)) for t in WINDOWS])
    for window in (0.05, 0.3, 1.0, 5.0):
        assert curve.distinct(window) == pytest.approx(truth.distinct(window), rel=0.03)


def test_a_fit_believes_exact_samples_more_than_vague_ones() -> None:
    truth = uniform(10_000, 5_000)
    samples = [DirtySample(t, truth.distinct(t), 1.0) for t in WINDOWS]
    misled = [*samples, DirtySample(0.8, 3 * truth.distinct(0.8), 1e6)]
    assert fit(misled).distinct(0.8) == pytest.approx(fit(samples).distinct(0.8), rel=1e-3)


def test_a_fit_is_as_uncertain_as_its_samples() -> None:
    truth = uniform(10_000, 5_000)
    vague, exact = (
        fit([DirtySample(t, truth.distinct(t), share * truth.distinct(t)) for t in WINDOWS])
        for share in (0.2, 0.02)
    )
    assert vague.rate_error == pytest.approx(10 * exact.rate_error)
    assert 0.05 < vague.rate_error < 0.2


@pytest.mark.parametrize(
    "samples", [[], [DirtySample(0.0, 1.0, 1.0)], [DirtySample(1.0, 1.0, 0.0)]]
)
def test_a_fit_of_nothing_is_refused(samples: list[DirtySample]) -> None:
    with pytest.raises(ConfigError):
        fit(samples)


def test_the_error_of_a_sample_is_that_of_the_table_in_theory() -> None:
    # Relative error at a dirty share of 1 % and 16384 pages looked at: 7.8 %.
    error = sampling_error(pages=1e6, dirty=1e4, sampled=16384)
    assert error / 1e4 == pytest.approx(0.078, abs=0.001)


def test_a_uniform_writer_follows_the_law_of_qemus_own_documentation() -> None:
    # W(t) = N (1 - (1 - 1/N)^(t r)), commit 34a68001f1.
    pages, rate, window = 262_144, 300_000, 0.3
    exact = pages * -np.expm1(window * rate * np.log1p(-1 / pages))
    assert uniform(pages, rate).distinct(window) == pytest.approx(exact, rel=1e-5)


def test_the_labs_writers_have_their_own_laws() -> None:
    load = Load(hot=512 * MIB, dirty_rate=100 * MIB)
    in_turn = curve_of(Load(hot=load.hot, dirty_rate=load.dirty_rate, access=Access.SEQUENTIAL))
    assert in_turn.distinct(1.0) == pytest.approx(25_600)
    assert curve_of(load).distinct(1.0) < in_turn.distinct(1.0)
    assert curve_of(load).write_rate == pytest.approx(25_600)
    assert curve_of(Load()).distinct(1.0) == 0

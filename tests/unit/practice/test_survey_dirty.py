import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel.model.memory import DirtyCurve
from whimbrel.model.scenario import Access, Load
from whimbrel.model.survey import Depth
from whimbrel.model.units import PAGE
from whimbrel.practice.survey_dirty import (
    Floats,
    Marks,
    changes,
    curve,
    curve_from_counts,
    growing,
    unsteadiness,
    windows,
)
from whimbrel.practice.survey_plan import EFFORTS
from whimbrel.theory.dirtying import DirtySample, curve_of

EFFORT = EFFORTS[Depth.DEFAULT]
TIMES = np.array(EFFORT.schedule)
PAGES = 180_000


def marks(load: Load, times: Floats, generator: np.random.Generator) -> Marks:
    """Play the lab's writer to a systematic sample, as marks that change with every write."""
    count, hot = EFFORT.pages, load.hot // PAGE
    pages = ((np.arange(count) + generator.random(count)) * PAGES / count).astype(int)
    rate = np.zeros(count)
    law = curve_of(load)
    if law.classes and law.classes[0].cyclic:
        turns = law.classes[0].rate * times[:, None] + pages / hot
        return np.where(pages < hot, np.floor(turns), 0).astype(np.uint64)
    first = 0.0
    for each in law.classes:
        rate[(pages >= first) & (pages < first + each.pages)] = each.rate
        first += each.pages
    drawn = generator.poisson(rate * np.diff(times)[:, None])
    return np.cumsum(np.vstack([np.zeros(count), drawn]), axis=0).astype(np.uint64)


def surveyed(load: Load, seed: int = 0) -> DirtyCurve:
    changed = changes(marks(load, TIMES, np.random.default_rng(seed)))
    return curve(windows(TIMES, changed), PAGES)


@pytest.mark.parametrize("access", Access)
@settings(max_examples=12)
@given(hot=st.integers(8_000, 120_000), rate=st.floats(4_000, 60_000), seed=st.integers(0, 99))
def test_the_curve_is_right_within_four_of_its_errors(
    access: Access, hot: int, rate: float, seed: int
) -> None:
    load = Load(hot=hot * PAGE, dirty_rate=rate * PAGE, access=access)
    found, truth = surveyed(load, seed), curve_of(load)
    error = np.hypot(found.rate_error, found.size_error)
    for window in (0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
        # A kink between two rates of the fit is rounded off by a few per cent.
        bound = 4 * error + 0.05
        assert found.distinct(window) == pytest.approx(truth.distinct(window), rel=bound)


@given(st.data())
@settings(max_examples=20)
def test_a_curve_never_falls_and_never_exceeds_the_pages(data: st.DataObject) -> None:
    shape = (len(TIMES) - 1, 256)
    seed, share = data.draw(st.integers(0, 1000)), data.draw(st.floats(0, 1))
    changed = np.random.default_rng(seed).random(shape) < share
    found = curve(windows(TIMES, changed), PAGES)
    values = [found.distinct(window) for window in (0.01, 0.1, 1, 10, 100, 10_000)]
    assert values == sorted(values)
    assert found.working_set <= PAGES * 1.001


def test_a_still_guest_has_no_curve_to_speak_of() -> None:
    changed = np.zeros((len(TIMES) - 1, EFFORT.pages), dtype=np.bool_)
    assert curve(windows(TIMES, changed), PAGES).distinct(10.0) < 1


def test_longer_windows_change_more_pages() -> None:
    load = Load(hot=40_000 * PAGE, dirty_rate=20_000 * PAGE)
    found = windows(TIMES, changes(marks(load, TIMES, np.random.default_rng(1))))
    assert (np.diff(found.lengths) > 0).all()
    assert (np.diff(found.shares.mean(axis=1)) > -1e-3).all()
    assert found.lengths[-1] == pytest.approx(TIMES[-1])


def test_the_curve_knows_its_horizon() -> None:
    assert surveyed(Load(hot=PAGE * 10_000, dirty_rate=4e7)).horizon == pytest.approx(TIMES[-1])


@given(rate=st.floats(5_000, 50_000), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_a_steady_writer_is_called_steady(rate: float, seed: int) -> None:
    load = Load(hot=50_000 * PAGE, dirty_rate=rate * PAGE)
    changed = changes(marks(load, TIMES, np.random.default_rng(seed)))
    fitted = curve(windows(TIMES, changed), PAGES)
    assert unsteadiness(TIMES, changed, fitted, PAGES) == 0.0


def test_a_writer_that_pauses_is_called_unsteady() -> None:
    load = Load(hot=50_000 * PAGE, dirty_rate=20_000 * PAGE)
    changed = changes(marks(load, TIMES, np.random.default_rng(3)))
    changed[len(changed) // 2 :] = False
    fitted = curve(windows(TIMES, changed), PAGES)
    assert unsteadiness(TIMES, changed, fitted, PAGES) > 0.3


def test_pages_provided_meanwhile_count_as_written() -> None:
    found = growing(DirtyCurve(), fresh=1000, untouched=50_000, seconds=4.0)
    assert found.distinct(2.0) == pytest.approx(500)
    assert found.distinct(1e6) == pytest.approx(51_000)
    assert growing(DirtyCurve(), 0, 50_000, 4.0) == DirtyCurve()


def test_counts_of_the_hypervisor_give_a_curve_too() -> None:
    truth = curve_of(Load(hot=40_000 * PAGE, dirty_rate=20_000 * PAGE))
    samples = [
        DirtySample(window, truth.distinct(window), truth.distinct(window) * 0.05)
        for window in (0.1, 0.2, 0.4, 0.8, 1.6)
    ]
    found = curve_from_counts(samples, PAGES)
    assert found.distinct(0.6) == pytest.approx(truth.distinct(0.6), rel=0.05)
    assert 0 < found.rate_error < 0.1

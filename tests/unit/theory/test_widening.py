from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.records import moved, seen
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Interval, Prediction, Widening
from whimbrel.model.record import MoveRecord
from whimbrel.theory.widening import FEWEST, NARROWEST, widened, widening_for

BASE = moved()
assert BASE.prediction is not None
SAID: Prediction = replace(
    BASE.prediction,
    total_time=Interval(9.8, 10.0, 10.2),
    downtime=Interval(0.03, 0.04, 0.06),
    wire_bytes=Interval(0.99e9, 1.0e9, 1.01e9),
)
PLAIN = BASE.tuning


def happened(seconds: float, said: Prediction = SAID, method: Method = Method.TCP) -> MoveRecord:
    record = replace(BASE, prediction=said, method=method, tuning=tuning_for(method, Settings()))
    return seen(record, total_time=seconds, downtime=0.04, wire_bytes=1.0e9)


def test_few_moves_change_nothing() -> None:
    assert widening_for([happened(13.0)] * (FEWEST - 1), PLAIN) == Widening()
    assert widened(SAID, Widening()) == SAID


def test_moves_outside_of_their_bands_widen_the_next_one_and_leave_its_middle() -> None:
    wider = widened(SAID, widening_for([happened(12.0)] * 8, PLAIN))
    assert wider.total_time.p50 == SAID.total_time.p50
    assert wider.total_time.holds(12.0)
    assert not SAID.total_time.holds(12.0)


def test_moves_in_the_middle_of_their_bands_narrow_the_next_one() -> None:
    narrower = widened(SAID, widening_for([happened(10.001)] * 8, PLAIN)).total_time
    assert SAID.total_time.p10 < narrower.p10 < narrower.p90 < SAID.total_time.p90


def test_a_wide_band_is_hardly_widened_by_what_narrow_ones_missed() -> None:
    # Off by 5 % from bands of 0.5 %: ten half-widths, which would make nonsense of a wide band.
    narrow = replace(SAID, total_time=Interval(9.95, 10.0, 10.05))
    wide = replace(SAID, total_time=Interval(7.0, 10.0, 14.0))
    found = widened(wide, widening_for([happened(10.5, narrow)] * 8, PLAIN)).total_time
    assert 6.8 < found.p10 < 7.0
    assert 14.0 < found.p90 < 14.4


def test_a_few_moves_promise_no_more_than_the_worst_of_them_kept() -> None:
    """Of four moves the next is as likely to be the worst of five as any of them."""
    past = [happened(10.0 + each) for each in (0.5, 1.0, 1.5, 2.0)]
    assert widened(SAID, widening_for(past, PLAIN)).total_time.holds(12.0)


def test_moves_that_did_not_complete_say_nothing() -> None:
    cancelled = replace(happened(13.0), ending=Ending.CANCELLED)
    assert widening_for([cancelled] * 8, PLAIN) == Widening()


def test_moves_of_the_same_kind_count_more() -> None:
    good, bad = happened(10.0), happened(14.0, method=Method.MULTICHANNEL)
    mixed = [good] * 10 + [bad] * 5
    several = tuning_for(Method.MULTICHANNEL, Settings())
    own, other = (widening_for(mixed, each).total_time for each in (several, PLAIN))
    assert own is not None
    assert other is not None
    assert own > other


def test_what_was_widened_before_is_learnt_from_as_it_was_drawn() -> None:
    # Else each would build on the last, and shrink with each move that it made right.
    first = widening_for([happened(12.0)] * 8, PLAIN)
    again = widening_for([happened(12.0, widened(SAID, first))] * 8, PLAIN)
    assert again.total_time == pytest.approx(first.total_time)


def test_bands_learnt_from_errors_hold_four_of_five_moves() -> None:
    generator = np.random.default_rng(7)
    past: list[MoveRecord] = []
    held = []
    for _ in range(400):
        seconds = 10.0 * float(np.exp(0.08 * generator.standard_normal()))
        said = widened(SAID, widening_for(past[-40:], PLAIN))
        held.append(said.total_time.holds(seconds))
        past.append(happened(seconds, said))
    assert 0.75 < np.mean(held[20:]) < 0.9


@given(
    st.lists(st.floats(0.1, 100.0), min_size=FEWEST, max_size=40),
    st.floats(0.5, 1.0),
    st.floats(1.0, 2.0),
)
def test_intervals_stay_in_order_and_within_limits(
    seconds: list[float], low: float, high: float
) -> None:
    said = replace(SAID, total_time=Interval(10 * low, 10.0, 10 * high))
    found = widening_for([happened(each, said) for each in seconds], PLAIN)
    assert found.total_time is not None
    assert found.total_time >= NARROWEST
    for interval in (widened(said, found).total_time, widened(said, found).downtime):
        assert 0 <= interval.p10 <= interval.p50 <= interval.p90

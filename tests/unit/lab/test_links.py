from hypothesis import given
from hypothesis import strategies as st

from whimbrel.lab.links import addresses, interfaces, shape_of

RATES = st.floats(125e3, 12.5e9)  # 1 Mbit/s to 100 Gbit/s, bytes per second


@given(RATES)
def test_a_shape_keeps_the_rate(rate: float) -> None:
    assert abs(shape_of(rate).rate - rate) <= 0.5


@given(RATES)
def test_a_full_segment_fits_into_half_the_burst(rate: float) -> None:
    shape = shape_of(rate)
    assert 2 * 1514 <= shape.segment <= 65536
    assert shape.burst >= 2 * shape.segment


@given(st.floats(25e6, 12.5e9))
def test_from_200_megabits_on_what_waits_or_bursts_takes_at_most_ten_milliseconds(
    rate: float,
) -> None:
    shape = shape_of(rate)
    assert shape.burst / rate <= 0.010
    assert shape.queue * shape.segment / rate <= 0.010


@given(RATES, RATES)
def test_a_faster_link_never_has_a_smaller_burst_or_segment(one: float, other: float) -> None:
    slow, fast = sorted((shape_of(one), shape_of(other)), key=lambda shape: shape.rate)
    assert slow.burst <= fast.burst
    assert slow.segment <= fast.segment


def test_each_link_has_its_own_network() -> None:
    assert addresses(1, 2) == ("10.99.0.1", "10.99.1.1")
    assert addresses(2, 2) == ("10.99.0.2", "10.99.1.2")
    assert interfaces(2) == ("w0", "w1")

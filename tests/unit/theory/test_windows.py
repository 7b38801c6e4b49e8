"""A move keeps to its limit from its first second, whatever its hypervisor makes of it."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.theory.guests import KVM, lcg_guest
from whimbrel.model.method import Tuning
from whimbrel.theory.rates import WINDOW
from whimbrel.theory.simulate import simulate
from whimbrel.theory.windows import (
    CREDIT,
    STEP,
    Exact,
    least_sent,
    most_sent,
    piece,
    to_tell,
    too_low,
)

LIMITS = st.floats(3e6, 1e9)
CHANNELS = st.one_of(st.none(), st.integers(1, 16))


def sends(exact: Exact, rate: Callable[[float], float], steps: int = 300) -> list[float]:
    """Return what is sent in each `STEP` at the rate that a hypervisor makes of what it is told."""
    sent, rates = 0.0, []
    for step in range(steps):
        exact.hear(step * STEP, round(sent))
        rates.append(rate(exact.told))
        sent += rates[-1] * STEP
    return rates


def seconds(rates: list[float]) -> list[float]:
    """Return the rates over whole seconds, one from each step on."""
    each = round(1 / STEP)
    return [sum(rates[begin : begin + each]) / each for begin in range(len(rates) - each + 1)]


@pytest.mark.parametrize(
    ("told", "channels", "packets"),
    [(0.1e6, 2, 3), (5e6, 2, 3), (6e6, 2, 4), (12e6, 2, 5), (0.1e6, 1, 2), (12e6, 1, 4)],
)
def test_channels_send_a_packet_each_beside_those_that_fill_the_window(
    told: float, channels: int, packets: int
) -> None:
    """As QEMU 10.0 was seen to do in its worst second."""
    assert most_sent(told, channels) == packets * piece(channels) / WINDOW


@pytest.mark.parametrize(("told", "seen"), [(5e6, 5.25e6), (6e6, 6.57e6), (9e6, 9.19e6)])
def test_a_plain_stream_sends_whole_buffers(told: float, seen: float) -> None:
    """As QEMU 10.0 was seen to do."""
    assert most_sent(told) == pytest.approx(seen, rel=0.01)


@given(LIMITS, CHANNELS)
def test_what_is_told_first_keeps_the_limit_wherever_one_can_be_kept(
    limit: float, channels: int | None
) -> None:
    told = to_tell(limit, channels)
    assert 0 < told <= limit
    least = least_sent(channels) * 1.01
    assert most_sent(told, channels) <= max(limit, least)
    assert most_sent(told, channels) + 2 * piece(channels) / WINDOW > min(limit, least)


@given(LIMITS, CHANNELS)
def test_a_qemu_that_sends_all_it_can_keeps_the_limit_in_every_second(
    limit: float, channels: int | None
) -> None:
    if too_low(limit / 1.01, channels):
        return
    rates = sends(Exact(limit, channels), lambda told: most_sent(told, channels))
    credit = max(CREDIT * limit, 2 * STEP * piece(channels) / WINDOW)
    assert max(seconds(rates)) <= limit + credit + STEP * piece(channels) / WINDOW
    assert sum(rates) <= len(rates) * limit
    assert sum(rates) >= len(rates) * min(0.85 * limit, limit - piece(channels) / WINDOW)


@given(LIMITS, CHANNELS)
def test_a_hypervisor_that_keeps_what_it_is_told_comes_to_send_the_limit_and_never_more(
    limit: float, channels: int | None
) -> None:
    rates = sends(Exact(limit, channels), lambda told: told)
    assert max(rates) <= limit
    if not too_low(limit / 1.5, channels):
        assert sum(seconds(rates)[-50:]) / 50 >= 0.85 * limit


@given(LIMITS, st.floats(1.0, 1.8))
def test_a_hypervisor_that_sends_too_much_comes_to_send_the_limit_without_swinging(
    limit: float, factor: float
) -> None:
    exact = Exact(limit)
    rates = sends(exact, lambda told: told * factor)
    assert max(seconds(rates)[5:]) <= 1.12 * limit
    late = seconds(rates)[25:]
    assert max(late) <= 1.05 * limit
    assert min(late) >= 0.85 * limit
    assert max(late) - min(late) <= 0.1 * limit


@given(LIMITS, CHANNELS, st.lists(st.floats(0.0, 3.0), min_size=1, max_size=50))
def test_it_is_never_told_less_than_half_unless_it_began_with_less_nor_more_than_the_limit(
    limit: float, channels: int | None, factors: list[float]
) -> None:
    exact = Exact(limit, channels)
    least, turns = min(exact.told, 0.5 * limit), iter(factors * 300)

    def erratic(told: float) -> float:
        assert least <= told <= limit
        return told * next(turns)

    sends(exact, erratic)


@given(LIMITS, CHANNELS, st.floats(0.05, 0.85))
def test_a_link_that_was_slower_for_a_while_is_made_up_for_by_no_more_than_a_moment(
    limit: float, channels: int | None, link: float
) -> None:
    if too_low(limit / 1.01, channels):
        return
    exact = Exact(limit, channels)
    turn = iter(range(300))

    def freed(told: float) -> float:
        sent = most_sent(told, channels)
        return min(sent, link * limit) if next(turn) < 100 else sent

    rates = sends(exact, freed)[100:]
    credit = max(CREDIT * limit, 2 * STEP * piece(channels) / WINDOW)
    for begin, end in pairwise(range(0, len(rates), 10)):
        seconds_ = (end - begin) * STEP
        over = sum(rates[begin:end]) * STEP - limit * seconds_
        assert over <= 2 * credit + STEP * piece(channels) / WINDOW


@pytest.mark.parametrize("channels", [None, 2])
def test_a_forecast_counts_what_is_sent_under_a_limit_that_cannot_be_held(
    channels: int | None,
) -> None:
    survey, least = lcg_guest(0), least_sent(channels)
    below, at, above = (
        simulate(
            survey, Tuning(channels=channels, bandwidth_limit=factor * least), KVM, deadline=1e5
        )
        for factor in (0.5, 1.0, 1.5)
    )
    assert below.total_time == at.total_time > above.total_time

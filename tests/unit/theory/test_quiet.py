"""When a guest is quiet enough for its move to begin."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.units import MIB
from whimbrel.theory.quiet import AGREEING, STEADY_LOOKS, RateLook, Readiness, readiness

RATES = st.lists(st.floats(0, 1e9), max_size=40)


def seen(*rates: float) -> list[RateLook]:
    return [RateLook(30.0 * number, rate) for number, rate in enumerate(rates)]


def judged(*rates: float, negligible: float = 0.0, deadline: float | None = None) -> Readiness:
    looks = seen(*rates)
    now = looks[-1].at if looks else 0.0
    return readiness(looks, now, negligible=negligible, deadline=deadline)


def test_a_rate_that_is_low_for_this_guest_begins() -> None:
    found = judged(90 * MIB, 100 * MIB, 80 * MIB, 15 * MIB, 10 * MIB)
    assert found.begin
    assert "15 MiB/s, which is low for it: 10 MiB/s to 100 MiB/s in 2 min" in found.reason


def test_one_low_look_is_not_enough() -> None:
    assert not judged(90 * MIB, 100 * MIB, 80 * MIB, 90 * MIB, 10 * MIB).begin


def test_a_guest_that_writes_next_to_nothing_begins_at_once() -> None:
    assert judged(0.5 * MIB, 0.5 * MIB, negligible=MIB).begin
    assert not judged(0.5 * MIB, negligible=MIB).begin


def test_a_guest_that_never_changes_is_not_waited_for_for_ever() -> None:
    steady = [100 * MIB, 110 * MIB] * (STEADY_LOOKS // 2)
    assert not judged(*steady[:-1]).begin
    found = judged(*steady)
    assert found.begin
    assert "waiting wins nothing" in found.reason


@pytest.mark.parametrize("rates", [(), (100 * MIB,), (100 * MIB, 5 * MIB, 100 * MIB)])
def test_the_deadline_begins_in_any_case(rates: tuple[float, ...]) -> None:
    found = judged(*rates, deadline=0.0)
    assert found.begin
    assert "over" in found.reason


@given(RATES)
def test_every_answer_has_a_reason(rates: list[float]) -> None:
    assert judged(*rates).reason


@given(RATES, st.floats(0, 1e9))
def test_whoever_begins_at_some_rate_begins_at_any_lower_one(
    rates: list[float], lower: float
) -> None:
    looks = rates
    if len(looks) >= AGREEING and judged(*looks, negligible=1e6).begin:
        last = min(looks[-AGREEING:])
        quieter = [*looks[:-AGREEING], *[min(lower, last)] * AGREEING]
        found = judged(*quieter, negligible=1e6)
        # Unless it was begun because nothing changes.
        assert found.begin or max(looks) <= 1.5 * min(looks)


@given(st.lists(st.floats(1e7, 1e9), min_size=2, max_size=40), st.floats(1e-3, 1e3))
def test_what_is_low_does_not_depend_on_the_unit(rates: list[float], factor: float) -> None:
    scaled = [rate * factor for rate in rates]
    lowest, highest = min(rates), max(rates)
    edge = lowest + 0.25 * (highest - lowest)
    near = any(math.isclose(rate, edge, rel_tol=1e-6) for rate in rates)
    if not near and not math.isclose(highest, 1.5 * lowest, rel_tol=1e-6):
        assert judged(*rates).begin == judged(*scaled).begin

"""The control of a shared NIC, held against a simulated link with others on it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from whimbrel.errors import ConfigError
from whimbrel.model.migration import Decision, SetBandwidthLimit
from whimbrel.theory.sharing import HEADERS, Counted, Sharing, Traffic, parse_share, portion

LINK = 125e6
TICK = 0.05
EVERY = 5
"""Ticks from one look at the counters to the next."""


@dataclass(frozen=True)
class Shares:
    """What both got of the link at each tick, and what was decided."""

    own: list[float]
    others: list[float]
    decisions: list[Decision]


def share_link(
    left: float,
    demand: Callable[[int], float],
    *,
    flows: float = 1.0,
    seconds: float = 20.0,
    idle: range = range(0),
    overshoot: float = 1.0,
) -> Shares:
    """Let a move share a link with others who demand so much, as `flows` TCP flows."""
    sharing = Sharing(left, [LINK, LINK])
    found = Shares([], [], [sharing.begin(0.0)])
    own_bytes = all_bytes = 0.0
    for tick in range(round(seconds / TICK)):
        wanted = 0.0 if tick in idle else sharing.told * overshoot * HEADERS
        # TCP: each flow its fair share; who wants less leaves it to the other.
        fair = LINK / (1 + flows)
        own = min(wanted, max(fair, LINK - demand(tick)))
        others = min(demand(tick), LINK - own)
        own_bytes += own / HEADERS * TICK
        all_bytes += (own + others) * TICK
        found.own.append(own / LINK)
        found.others.append(others / LINK)
        if tick % EVERY == 0:
            at = tick * TICK
            ends = (Counted(at, round(all_bytes)), Counted(1e5 + at, round(all_bytes)))
            decision = sharing.hear(Traffic(at, Counted(at, round(own_bytes)), ends))
            if decision is not None:
                found.decisions.append(decision)
    return found


def mean(figures: list[float]) -> float:
    return sum(figures) / len(figures)


@given(left=st.floats(0.05, 0.9))
def test_a_greedy_flow_gets_what_is_left_for_it_within_five_points(left: float) -> None:
    found = share_link(left, lambda _: LINK)
    assert mean(found.others) >= left - 0.05
    assert mean(found.others[100:]) >= left - 0.001


@given(left=st.floats(0.05, 0.45))
def test_a_single_greedy_flow_does_not_starve_the_move(left: float) -> None:
    found = share_link(left, lambda _: LINK)
    assert mean(found.own[100:]) >= min(1 - left, 0.5) - 0.05


@given(left=st.floats(0.05, 0.9), demand=st.floats(0.0, 1.0), flows=st.floats(0.5, 8.0))
def test_others_always_get_their_share_or_all_they_want(
    left: float, demand: float, flows: float
) -> None:
    found = share_link(left, lambda _: demand * LINK, flows=flows)
    assert mean(found.others) >= min(left, demand) - 0.05


@given(left=st.floats(0.05, 0.9), demand=st.floats(0.0, 0.9), flows=st.floats(0.5, 8.0))
def test_the_limit_comes_to_rest_where_the_load_is_steady(
    left: float, demand: float, flows: float
) -> None:
    found = share_link(left, lambda _: demand * LINK, flows=flows, seconds=120.0)
    # One try in a while, whether others make room by now.
    assert len([d for d in found.decisions if d.at > 60.0]) <= 4


@given(left=st.floats(0.05, 0.6), demand=st.floats(0.0, 1.0))
def test_what_others_do_not_use_of_their_share_stays_free(left: float, demand: float) -> None:
    assume(demand < left)
    found = share_link(left, lambda _: demand * LINK)
    assert max(found.own) <= 1 - left + 1e-9
    assert len(found.decisions) == 1


@given(left=st.floats(0.05, 0.9), burst=st.floats(0.1, 1.0), period=st.integers(2, 200))
def test_never_below_the_floor_and_never_above_what_is_not_left(
    left: float, burst: float, period: int
) -> None:
    found = share_link(left, lambda t: burst * LINK * (t // period % 2), flows=4)
    sharing = Sharing(left, [LINK])
    for decision in found.decisions:
        assert isinstance(decision.action, SetBandwidthLimit)
        assert decision.action.rate is not None
        assert sharing.floor <= decision.action.rate * (1 + 1e-9)
        assert decision.action.rate * HEADERS <= (1 - left) * LINK * (1 + 1e-9)


def test_the_move_gives_way_to_a_steady_load_and_comes_back_after_it() -> None:
    found = share_link(0.3, lambda t: (0.55 if 100 <= t < 300 else 0.0) * LINK, flows=4)
    assert mean(found.own[200:290]) == pytest.approx(0.45, abs=0.05)
    assert found.own[-1] == pytest.approx(0.7, abs=0.03)
    assert any("gives way" in decision.reason for decision in found.decisions)


def test_greedy_flows_that_took_what_the_move_did_not_use_make_room_again() -> None:
    found = share_link(0.5, lambda _: LINK, idle=range(100))
    assert found.own[110] == pytest.approx(0.25)
    assert found.own[-1] == pytest.approx(0.5, abs=0.03)


def test_at_its_floor_it_says_so() -> None:
    found = share_link(0.3, lambda _: 0.9 * LINK, flows=9)
    assert "keeps to its floor" in found.decisions[-1].reason
    assert "more than the 30% that is theirs" in found.decisions[-1].reason


@given(left=st.floats(0.1, 0.9), overshoot=st.floats(1.0, 1.3))
def test_a_hypervisor_that_sends_more_than_it_is_told_is_told_less(
    left: float, overshoot: float
) -> None:
    found = share_link(left, lambda _: LINK, overshoot=overshoot)
    assert mean(found.own[100:]) <= (1 - left) * 1.04
    assert mean(found.others) >= left - 0.05


def test_a_limit_that_a_person_set_is_never_exceeded() -> None:
    assert Sharing(0.3, [LINK], most=1e6).limit == 1e6


def test_the_slower_end_decides() -> None:
    assert Sharing(0.5, [LINK, LINK / 10]).limit == pytest.approx(LINK / 20 / HEADERS)


def test_nothing_is_concluded_before_enough_was_seen() -> None:
    sharing = Sharing(0.3, [LINK])
    sharing.begin(0.0)
    for at in (0.6, 0.8, 0.9):
        full = Counted(at, round(LINK * at))
        assert sharing.hear(Traffic(at, Counted(at, 0), (full,))) is None


@given(st.integers(1, 95))
def test_a_share_is_read_as_a_percentage_or_a_fraction(percent: int) -> None:
    assert parse_share(f"{percent}%") == pytest.approx(percent / 100)
    assert parse_share(f"{percent / 100}") == pytest.approx(percent / 100)


@pytest.mark.parametrize("text", ["", "30", "0%", "96%", "much", "nan", "-5%", "inf"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no share"):
        parse_share(text)


@pytest.mark.parametrize("links", [[], [0.0]])
def test_a_link_without_a_rate_is_refused(links: list[float]) -> None:
    with pytest.raises(ConfigError):
        Sharing(0.3, links)


@given(st.floats(1e5, 1e11), st.floats(0.0, 0.95), st.integers(0, 20))
def test_moves_that_share_a_link_never_promise_more_than_is_left(
    rate: float, left: float, others: int
) -> None:
    each = portion(rate, left, others)
    assert (others + 1) * each * HEADERS == pytest.approx((1 - left) * rate)

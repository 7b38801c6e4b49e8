from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.inventory import Capability
from whimbrel.model.method import Method, Postcopy, Settings, Tuning, tuning_for
from whimbrel.model.plan import Candidate, Forecast, Goal, Wish
from whimbrel.model.prediction import Interval, Prediction, Verdict, verdict_for
from whimbrel.theory.candidates import NAMED, candidates
from whimbrel.theory.choose import busy_cores, choose

ALL = frozenset(Capability)
WISH = Wish(total_time=60.0, downtime=0.5)


def band(value: float) -> Interval:
    return Interval(value * 0.9, value, value * 1.1)


def forecast(
    method: Method,
    *,
    time: float = 10.0,
    downtime: float = 0.1,
    sent: float = 1e9,
    cpu: float = 0.0,
    probability: float = 1.0,
    preparation: float = 0.0,
    throttle: float = 0.0,
) -> Forecast:
    tuning = tuning_for(method, Settings())
    nothing = band(0.0)
    prediction = Prediction(
        tuning=tuning,
        deadline=120.0,
        completion_probability=probability,
        verdict=verdict_for(probability),
        total_time=band(time),
        downtime=band(downtime),
        wire_bytes=band(sent),
        passes=band(3),
        throttle=band(throttle),
        source_cpu_seconds=band(cpu),
        destination_cpu_seconds=nothing,
        preparation_time=band(preparation),
        fault_seconds=nothing,
    )
    return Forecast(Candidate(method, tuning), prediction)


def order(*forecasts: Forecast, wish: Wish = WISH) -> list[Method]:
    return [each.candidate.method for each in choose(forecasts, wish).ranking]


def test_hosts_that_can_do_everything_leave_every_method() -> None:
    possible, rejected = candidates(Settings(), ALL, ALL)
    assert [each.method for each in possible] == list(NAMED)
    assert rejected == ()


def test_a_method_is_rejected_by_the_side_that_lacks_it() -> None:
    _, rejected = candidates(Settings(), ALL, ALL - {Capability.RDMA})
    assert [each.method for each in rejected] == [Method.RDMA]
    assert rejected[0].reason == "the destination lacks rdma"


def test_what_merely_helps_rules_nothing_out() -> None:
    bare = ALL - {Capability.PREPARED_MEMORY, Capability.FREE_PAGE_HINTS}
    possible, rejected = candidates(Settings(), bare, ALL)
    assert rejected == ()
    assert not any(each.tuning.prepared_memory for each in possible)
    assert not any(each.tuning.free_page_hints for each in possible)


def test_the_fastest_comes_first_unless_something_else_matters() -> None:
    fast = forecast(Method.MULTICHANNEL, time=5, downtime=0.3, sent=3e9, cpu=4)
    gentle = forecast(Method.TCP, time=20, downtime=0.05, sent=2e9, cpu=3)
    small = forecast(Method.COMPRESSED, time=10, downtime=0.2, sent=1e9, cpu=9)
    modest = forecast(Method.RDMA, time=30, downtime=0.4, sent=4e9, cpu=1)
    for goal, first in (
        (Goal.FASTEST, Method.MULTICHANNEL),
        (Goal.LEAST_DOWNTIME, Method.TCP),
        (Goal.LEAST_TRAFFIC, Method.COMPRESSED),
        (Goal.LEAST_CPU, Method.RDMA),
    ):
        ranked = order(fast, gentle, small, modest, wish=replace(WISH, goal=goal))
        assert ranked[0] is first


def test_where_it_is_close_the_simpler_method_wins() -> None:
    simple, intricate = forecast(Method.TCP, time=10.3), forecast(Method.COMPRESSED, time=10.0)
    assert order(intricate, simple) == [Method.TCP, Method.COMPRESSED]


def test_preparation_counts_as_time() -> None:
    prepared = forecast(Method.TCP, time=5, preparation=20)
    assert order(prepared, forecast(Method.XBZRLE, time=15))[0] is Method.XBZRLE


def test_what_may_not_complete_never_comes_before_what_will() -> None:
    risky = forecast(Method.TCP, time=1, probability=0.7)
    assert order(risky, forecast(Method.POSTCOPY, time=50)) == [Method.POSTCOPY, Method.TCP]


def test_what_breaks_the_wish_is_rejected_with_the_reason() -> None:
    choice = choose(
        [
            forecast(Method.TCP, probability=0.2),
            forecast(Method.MULTICHANNEL, downtime=0.6),
            forecast(Method.COMPRESSED, time=70),
            forecast(Method.POSTCOPY),
        ],
        replace(WISH, postcopy=False),
    )
    assert choice.best is None
    words = {each.method: each.reason for each in choice.rejected}
    assert "probability 0.20" in words[Method.TCP]
    assert "660 ms" in words[Method.MULTICHANNEL]
    assert "77 s" in words[Method.COMPRESSED]
    assert "lose the guest" in words[Method.POSTCOPY]


def test_a_candidate_that_is_rejected_keeps_its_forecast() -> None:
    slow = forecast(Method.TCP, time=70)
    [no] = choose([slow], WISH).rejected
    assert no.forecast is slow


def test_a_cpu_budget_holds_for_each_host_and_for_preparing_memory() -> None:
    busy = forecast(Method.TCP, time=10, cpu=25)
    assert busy_cores(busy)[0] == pytest.approx(2.5)
    [no] = choose([busy], replace(WISH, cpu_budget=2.0)).rejected
    assert no.reason == "keeps 2.5 cores of the source busy, more than 2"
    assert choose([busy], replace(WISH, cpu_budget=2.5)).best is busy
    prepared = forecast(Method.TCP, preparation=1.0)
    [no] = choose([prepared], replace(WISH, cpu_budget=1.0)).rejected
    assert no.reason == "keeps 2.0 cores of the destination busy, more than 1"


def test_channels_are_rejected_where_they_would_not_hold_the_limit() -> None:
    for limit, held in ((2e6, False), (50e6, True)):
        several = forecast(Method.MULTICHANNEL)
        tuning = replace(several.candidate.tuning, channels=2, bandwidth_limit=limit)
        way = replace(several, candidate=Candidate(Method.MULTICHANNEL, tuning))
        found = choose([way], replace(WISH, bandwidth_limit=limit))
        assert bool(found.ranking) is held


def test_a_bandwidth_limit_rejects_what_may_send_more() -> None:
    [no] = choose([forecast(Method.TCP)], replace(WISH, bandwidth_limit=125e6)).rejected
    assert no.reason == "may send as much as the link carries, more than 1 Gbit/s"
    default = forecast(Method.QEMU_DEFAULT)
    assert choose([default], replace(WISH, bandwidth_limit=2e8)).best is default
    assert choose([default], replace(WISH, bandwidth_limit=1e8)).best is None


def test_of_the_same_method_what_can_still_fall_back_wins_where_it_is_close() -> None:
    plain = forecast(Method.TCP, time=10)
    ready = Forecast(Candidate(Method.TCP, Tuning(postcopy=Postcopy.IF_STALLED)), plain.prediction)
    assert choose([plain, ready], WISH).best is ready


forecasts = st.builds(
    forecast,
    st.sampled_from(NAMED),
    time=st.floats(1, 80),
    downtime=st.floats(0.01, 0.6),
    sent=st.floats(1e8, 1e10),
    cpu=st.floats(0, 100),
    probability=st.floats(0, 1),
    preparation=st.floats(0, 20),
)
wishes = st.builds(
    Wish,
    total_time=st.floats(5, 100),
    downtime=st.floats(0.02, 1),
    goal=st.sampled_from(Goal),
    postcopy=st.booleans(),
    cpu_budget=st.none() | st.floats(0.5, 5),
    bandwidth_limit=st.none() | st.floats(1e8, 1e9),
)


@given(st.lists(forecasts, max_size=8), wishes)
def test_everything_is_ranked_or_rejected_with_a_reason_and_never_both(
    some: list[Forecast], wish: Wish
) -> None:
    choice = choose(some, wish)
    ranked = [id(each) for each in choice.ranking]
    refused = [id(each.forecast) for each in choice.rejected]
    assert sorted(ranked + refused) == sorted(map(id, some))
    assert all(each.reason for each in choice.rejected)


@given(st.lists(forecasts, max_size=8), wishes)
def test_what_may_not_complete_never_ranks_above_what_will(
    some: list[Forecast], wish: Wish
) -> None:
    sure = [e.prediction.verdict is Verdict.GO for e in choose(some, wish).ranking]
    assert sure == sorted(sure, reverse=True)


@given(st.lists(forecasts, max_size=8), wishes, st.floats(0.1, 1))
def test_tighter_constraints_never_add_a_candidate(
    some: list[Forecast], wish: Wish, share: float
) -> None:
    kept = {id(each) for each in choose(some, wish).ranking}
    tighter = Wish(
        total_time=wish.total_time * share,
        downtime=wish.downtime * share,
        goal=wish.goal,
        postcopy=False,
        cpu_budget=(wish.cpu_budget or 5.0) * share,
        bandwidth_limit=(wish.bandwidth_limit or 1e9) * share,
    )
    assert {id(each) for each in choose(some, tighter).ranking} <= kept

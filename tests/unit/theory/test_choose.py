from dataclasses import replace

from whimbrel.model.inventory import Capability
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.model.plan import Candidate, Forecast, Goal, Wish
from whimbrel.model.prediction import Interval, Prediction, verdict_for
from whimbrel.theory.candidates import NAMED, candidates
from whimbrel.theory.choose import choose
from whimbrel.theory.explain import explain

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


def test_an_explanation_names_the_choice_its_figures_and_every_rejection() -> None:
    best = forecast(Method.AUTO_CONVERGE, throttle=0.3, preparation=1.0, probability=0.8)
    lines = explain(choose([best, forecast(Method.TCP, probability=0.1)], WISH))
    assert lines[0].startswith("Move with auto-converge: 10 s (9 s to 11 s) in all")
    text = " ".join(lines)
    for words in ("probability 0.80 only", "throttled, by 30%", "memory takes 1 s", "Not tcp:"):
        assert words in text


def test_an_explanation_of_nothing_says_so_first() -> None:
    lines = explain(choose([forecast(Method.TCP, probability=0.1)], WISH))
    assert lines[0] == "No way to move this guest keeps the wish."
    assert len(lines) == 2

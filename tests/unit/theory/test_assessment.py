from dataclasses import replace

import pytest

from unit.records import moved
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import Chosen, Observed, Run, Scenario
from whimbrel.theory.assessment import EXPECTED_DOWNTIME, Case, assess
from whimbrel.theory.rivals import GEOMETRIC, INTERPOLATION, VOLUME

TCP = moved()
POSTCOPY = moved(method=Method.POSTCOPY)


def case(
    name: str,
    method: Method,
    seconds: float | None = None,
    *,
    record: MoveRecord | None = None,
    ending: Ending = Ending.COMPLETED,
) -> Case:
    seen = Observed(wall_time=seconds, total_time=seconds, wire_bytes=1000, downtime_observed=0.05)
    chosen = Chosen(Method.TCP, ()) if method is Method.AUTO else None
    run = Run(method, None, 1, ending, observed=seen, chosen=chosen)
    return Case(Scenario(name=name), run, record)


def test_a_suite_without_moves_says_nothing() -> None:
    found = assess([])
    assert found.runs == 0
    assert found.promised.moves == 0
    assert found.noise is None
    assert found.regret is None
    assert found.speedup is None
    assert found.borderline_share == 0


def test_what_was_not_available_is_no_move() -> None:
    assert assess([case("one", Method.RDMA, ending=Ending.NOT_AVAILABLE)]).runs == 0


def test_only_the_promised_methods_are_held_to_the_promise() -> None:
    other = moved(method=Method.XBZRLE)
    cases = [case("one", each.method, 1.0, record=each) for each in (TCP, POSTCOPY, other)]
    found = assess(cases)
    assert found.promised.moves == 2
    assert set(found.methods) == {Method.TCP, Method.POSTCOPY, Method.XBZRLE}


def test_every_simple_model_is_asked_about_the_same_moves() -> None:
    found = assess([case("one", each.method, 1.0, record=each) for each in (TCP, POSTCOPY)])
    names = [each.name for each in found.rivals]
    assert names == [VOLUME, GEOMETRIC, INTERPOLATION, EXPECTED_DOWNTIME]
    for each in found.rivals[:3]:
        assert each.total_time is not None
        assert each.total_time.count == 2
        assert each.verdicts is not None
        assert each.verdicts.right == 2


def test_the_hypervisors_own_expectation_is_held_against_what_came() -> None:
    seen = replace(TCP.observed, downtime=0.2, downtime_expected=0.5)
    record = replace(TCP, observed=seen)
    found = assess([case("one", Method.TCP, 1.0, record=record)])
    own = found.rivals[-1]
    assert own.name == EXPECTED_DOWNTIME
    assert own.downtime is not None
    assert own.downtime.worst == pytest.approx(0.3)


def test_the_noise_floor_is_how_far_repeats_lie_from_their_median() -> None:
    cases = [case("one", Method.TCP, seconds) for seconds in (9.0, 10.0, 12.0)]
    cases += [case("two", Method.TCP, 50.0)]
    found = assess(cases)
    assert found.noise is not None
    assert found.noise.groups == 1
    assert found.noise.total_time.count == 3
    assert found.noise.total_time.worst == pytest.approx(2 / 12)


def test_auto_is_held_against_the_fastest_that_completed() -> None:
    cases = [
        case("one", Method.AUTO, 11.0),
        case("one", Method.TCP, 10.0),
        case("one", Method.POSTCOPY, 20.0),
        case("one", Method.MULTICHANNEL, 5.0, ending=Ending.TIMEOUT),
        case("one", Method.QEMU_DEFAULT, 44.0, ending=Ending.TIMEOUT),
    ]
    (regret,) = assess(cases).regrets
    assert regret.best is Method.TCP
    assert regret.ratio == pytest.approx(1.1)
    assert not regret.default_completed
    assert assess(cases).speedup == pytest.approx(4.0)


def test_auto_that_does_not_complete_is_infinitely_late() -> None:
    cases = [
        case("one", Method.AUTO, 11.0, ending=Ending.CANCELLED),
        case("one", Method.TCP, 10.0),
    ]
    assert assess(cases).regret == float("inf")


def test_a_scenario_without_auto_or_without_others_has_no_regret() -> None:
    assert assess([case("one", Method.AUTO, 11.0)]).regrets == ()
    assert assess([case("one", Method.TCP, 11.0)]).regrets == ()


def test_regret_is_a_geometric_mean_over_scenarios() -> None:
    cases = []
    for name, seconds in (("one", 5.0), ("two", 20.0)):
        cases += [case(name, Method.AUTO, seconds), case(name, Method.TCP, 10.0)]
    assert assess(cases).regret == pytest.approx(1.0)

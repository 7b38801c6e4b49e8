from dataclasses import replace

import pytest

from whimbrel.lab.bench import changed_course
from whimbrel.lab.forecast import reasons, rules_of, weighed
from whimbrel.model.inventory import Capability
from whimbrel.model.method import Method, Postcopy, Settings, Tuning
from whimbrel.model.migration import Cancel, Decision
from whimbrel.model.outcome import Ending
from whimbrel.model.plan import Candidate, Forecast, Plan, Rejection, Wish
from whimbrel.model.prediction import Interval, Prediction, Verdict
from whimbrel.model.scenario import Chosen, Observed, Run

ALL = frozenset(Capability)


def test_the_rules_follow_the_version_that_qemu_prints() -> None:
    assert rules_of("10.0.2 (Debian 1:10.0.2+ds-2)", "tcg").chunk_pages is None
    assert rules_of("8.2.2", "kvm").chunk_pages is not None
    assert rules_of("10.2.0", "kvm").completes_at_threshold
    assert not rules_of("10.0.2", "kvm").completes_at_threshold


def test_auto_weighs_each_tuning_once_and_never_qemus_own_cap() -> None:
    possible, rejected = weighed(Settings(), Tuning(free_page_hints=True), ALL)
    tunings = [each.tuning for each in possible]
    assert len(tunings) == len(set(tunings))
    assert not any(tuning.as_qemu_comes for tuning in tunings)
    assert {each.method for each in possible} == set(Method) - {Method.AUTO, Method.QEMU_DEFAULT}
    assert rejected == []


def test_auto_weighs_memory_prepared_and_as_it_comes() -> None:
    possible, _ = weighed(Settings(), Tuning(), ALL)
    prepared = {each.tuning.prepared_memory for each in possible if each.method is Method.TCP}
    assert len(prepared) == 2
    assert None in prepared


def test_hints_are_as_the_guest_was_built() -> None:
    for hints in (False, True):
        possible, _ = weighed(Settings(), Tuning(free_page_hints=hints), ALL)
        precopy = [e.tuning for e in possible if e.tuning.postcopy is Postcopy.NEVER]
        assert {tuning.free_page_hints for tuning in precopy} == {hints}


def test_what_a_host_lacks_is_ruled_out_with_its_reason() -> None:
    possible, rejected = weighed(Settings(), Tuning(), ALL - {Capability.RDMA})
    assert Method.RDMA not in {each.method for each in possible}
    [refusal] = rejected
    assert "rdma" in refusal.reason


def forecast(method: Method, seconds: float) -> Forecast:
    about = Interval(seconds, seconds, seconds)
    none = Interval(0.0, 0.0, 0.0)
    prediction = Prediction(
        tuning=Tuning(),
        deadline=60.0,
        completion_probability=1.0,
        verdict=Verdict.GO,
        total_time=about,
        downtime=none,
        wire_bytes=none,
        passes=none,
        throttle=none,
        source_cpu_seconds=none,
        destination_cpu_seconds=none,
        preparation_time=none,
        fault_seconds=none,
    )
    return Forecast(Candidate(method, Tuning()), prediction)


def test_the_reasons_name_the_best_first_and_every_other_method_once() -> None:
    ranking = (forecast(Method.TCP, 5.0), forecast(Method.TCP, 6.0), forecast(Method.XBZRLE, 7.0))
    told = reasons(Plan(Wish(60.0, 1.0), ranking, (Rejection(Method.RDMA, "no device"),)))
    assert told[0].startswith("tcp: 5 s")
    assert [line.split(":")[0] for line in told] == ["tcp", "xbzrle", "not rdma"]


def run(ending: Ending, wall: float | None) -> Run:
    observed = Observed(wall_time=wall, wire_bytes=100)
    return Run(Method.AUTO, Tuning(), 1, ending, reason="stuck", observed=observed)


def test_a_move_begun_anew_counts_the_time_of_both() -> None:
    first = replace(
        run(Ending.CANCELLED, 9.0),
        chosen=Chosen(Method.TCP, ("tcp: 5 s",)),
        decisions=(Decision(Cancel(), "stuck", 9.0),),
    )
    both = changed_course(first, run(Ending.COMPLETED, 4.0))
    assert both.ending is Ending.COMPLETED
    assert both.observed.wall_time == pytest.approx(13.0)
    assert both.observed.wire_bytes == 200
    assert both.chosen is not None
    assert both.chosen.method is Method.POSTCOPY
    assert "stuck" in both.chosen.reasons[-1]
    assert both.decisions == first.decisions


def test_an_unknown_time_stays_unknown() -> None:
    both = changed_course(run(Ending.CANCELLED, None), run(Ending.COMPLETED, 4.0))
    assert both.observed.wall_time is None

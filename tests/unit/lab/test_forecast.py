from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unit.theory.guests import KVM, lcg_guest
from whimbrel.lab.bench import changed_course, refused
from whimbrel.lab.forecast import _Job, wish_of
from whimbrel.lab.plan import Planned
from whimbrel.model.inventory import Capability
from whimbrel.model.memory import Survey
from whimbrel.model.method import Method, Policy, Settings, Tuning
from whimbrel.model.migration import Cancel, Decision
from whimbrel.model.outcome import Ending
from whimbrel.model.plan import Candidate, Goal, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.model.scenario import AutoSpec, Chosen, Observed, Run, Scenario
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.model.units import MIB
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.situation import Situation

ALL = frozenset(Capability)


def test_the_rules_follow_the_version_that_qemu_prints() -> None:
    assert QemuRules.named("10.0.2 (Debian 1:10.0.2+ds-2)", "tcg").chunk_pages is None
    assert QemuRules.named("8.2.2", "kvm").chunk_pages is not None
    assert QemuRules.named("10.2.0", "kvm").completes_at_threshold
    assert not QemuRules.named("10.0.2", "kvm").completes_at_threshold


GUEST = lcg_guest(30_000, link=125e6)
FRANTIC = lcg_guest(400_000, link=200.0 * MIB)


def job(survey: Survey, common: frozenset[Capability] = ALL, **auto: Any) -> _Job:
    """A lab's move of a surveyed guest, with what is told to `auto`."""
    surveyed = Surveyed(survey, Depth.QUICK, duration=2.0, cpu_seconds=0.1)
    situation = Situation(survey, common, common, KVM, headroom=0.5)
    scenario = Scenario(auto=AutoSpec(**auto))
    return _Job(surveyed, situation, scenario, np.random.default_rng(3))


def test_the_wish_is_what_the_scenario_says() -> None:
    assert wish_of(Scenario()) == Wish(total_time=120.0, downtime=1.0)
    slow = Settings(downtime_limit=0.8, bandwidth_limit=1e7)
    told = AutoSpec(Goal.LEAST_CPU, deadline=60.0, cpu_budget=1.5, postcopy=False)
    wish = wish_of(Scenario(settings=slow, auto=told))
    assert wish == Wish(60.0, 1.6, Goal.LEAST_CPU, False, 1.5, 1e7)
    late = AutoSpec(max_downtime=0.1, deadline=999.0)
    assert wish_of(Scenario(auto=late)) == Wish(total_time=120.0, downtime=0.1)


def test_a_static_method_is_predicted_alone_whatever_comes_of_it() -> None:
    said = job(FRANTIC).said(Candidate(Method.TCP, Tuning()))
    assert said.prediction.verdict is Verdict.REFUSE
    assert said.refused == ""
    assert (said.chosen, said.policy, said.certificate, said.fallback) == (None, None, None, None)
    assert said.timeout == 120.0


def test_auto_says_its_ladder_and_the_verdict_of_its_plan() -> None:
    said = job(GUEST).decided()
    assert said.certificate is not None
    assert said.certificate.guaranteed
    assert said.prediction.verdict is Verdict.GO
    assert said.chosen is not None
    assert len(said.chosen.ladder) == len(said.certificate.rungs)
    assert said.chosen.reasons[-1] == "surveyed for 2 s"
    assert said.policy == Policy(downtime=1.0, postcopy=True)
    assert said.fallback == said.certificate.anew


def test_without_a_guarantee_auto_is_not_go_though_it_is_likely_to_complete() -> None:
    said = job(GUEST, postcopy=False).decided()
    assert said.prediction.completion_probability >= 0.9
    assert said.prediction.verdict is Verdict.BORDERLINE
    assert said.policy == Policy(downtime=1.0, postcopy=False)
    assert said.fallback is None
    assert said.chosen is not None
    assert any("post-copy" in line for line in said.chosen.advice)


def test_auto_begins_nothing_where_nothing_keeps_the_wish() -> None:
    said = job(FRANTIC, ALL - {Capability.THROTTLING}, postcopy=False, deadline=60.0).decided()
    assert said.refused.startswith("nothing keeps the wish (tcp: completes within 60 s with ")
    assert "Post-copy would finish in" in said.refused
    assert said.prediction.verdict is Verdict.REFUSE
    assert said.policy is None
    assert said.timeout == 60.0
    run = refused(Planned(Method.AUTO, Tuning(), 1, 1, 1), said)
    assert run.ending is Ending.NOT_AVAILABLE
    assert run.reason == said.refused
    assert run.predicted is not None


def test_hosts_that_can_do_nothing_are_refused_with_a_reason() -> None:
    said = job(GUEST, frozenset()).decided()
    assert "both hosts lack what is needed" in said.refused


def run(ending: Ending, wall: float | None) -> Run:
    observed = Observed(wall_time=wall, wire_bytes=100)
    return Run(Method.AUTO, Tuning(), 1, ending, reason="stuck", observed=observed)


def test_a_move_begun_anew_counts_the_time_of_both() -> None:
    first = replace(
        run(Ending.CANCELLED, 9.0),
        chosen=Chosen(Method.TCP, ("tcp: 5 s",), ladder=("post-copy",)),
        decisions=(Decision(Cancel(), "stuck", 9.0),),
    )
    both = changed_course(first, run(Ending.COMPLETED, 4.0))
    assert both.ending is Ending.COMPLETED
    assert both.observed.wall_time == pytest.approx(13.0)
    assert both.observed.wire_bytes == 200
    assert both.chosen is not None
    assert both.chosen.method is Method.POSTCOPY
    assert "stuck" in both.chosen.reasons[-1]
    assert both.chosen.ladder == ("post-copy",)
    assert both.decisions == first.decisions


def test_an_unknown_time_stays_unknown() -> None:
    both = changed_course(run(Ending.CANCELLED, None), run(Ending.COMPLETED, 4.0))
    assert both.observed.wall_time is None

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.theory.guests import Guest, guests
from unit.theory.situations import ALL, BUSY, FRANTIC, WISH, measured, situation
from whimbrel.model.inventory import Capability
from whimbrel.model.method import Method, Postcopy, Settings
from whimbrel.model.plan import Goal, Plan, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.theory.candidates import aids, variants
from whimbrel.theory.choose import against, busy_cores
from whimbrel.theory.explain import ladder, reasons
from whimbrel.theory.planning import FINE, plan_move
from whimbrel.theory.situation import Situation

SETTINGS = Settings()
WISHES = st.builds(
    Wish,
    total_time=st.sampled_from([5.0, 30.0, 120.0]),
    downtime=st.sampled_from([0.05, 0.3, 1.0]),
    goal=st.sampled_from(Goal),
    postcopy=st.booleans(),
    cpu_budget=st.none() | st.sampled_from([0.5, 2.0]),
    bandwidth_limit=st.none() | st.sampled_from([2e7, 2e8]),
)
THOROUGH = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


NOT_WEIGHED = {Method.QEMU_DEFAULT, Method.AUTO, Method.ENCRYPTED}
"""What only slows a move down, what chooses, and what is decided before anything is weighed."""


def plan(of: Situation, wish: Wish = WISH, seed: int = 5) -> Plan:
    return plan_move(of, SETTINGS, wish, generator=np.random.default_rng(seed))


@given(guests(), WISHES)
@THOROUGH
def test_every_candidate_is_ranked_or_rejected_with_a_reason_and_never_both(
    guest: Guest, wish: Wish
) -> None:
    of = situation(measured(guest.survey()), hints=True)
    made = plan(of, wish)
    ranked = [each.candidate.tuning for each in made.ranking]
    refused = [no.forecast.candidate.tuning for no in made.rejected if no.forecast]
    assert len(ranked + refused) == len(set(ranked + refused))
    assert {each.tuning for each in variants(of, SETTINGS, wish)[0]} <= {*ranked, *refused}
    assert all(no.reason for no in made.rejected)
    told = {each.candidate.method for each in made.ranking} | {no.method for no in made.rejected}
    assert told >= set(Method) - NOT_WEIGHED


@given(guests(), WISHES)
@THOROUGH
def test_whatever_is_chosen_keeps_the_wish(guest: Guest, wish: Wish) -> None:
    made = plan(situation(measured(guest.survey()), hints=True), wish)
    assert not any(against(each, wish) for each in made.ranking)
    sure = [each.prediction.verdict is Verdict.GO for each in made.ranking]
    assert sure == sorted(sure, reverse=True)
    assert (made.verdict is Verdict.REFUSE) == (made.chosen is None)
    if made.chosen is not None:
        assert made.certificate is not None
        assert made.certificate.tuning == made.chosen.candidate.tuning
        assert made.pucker is not None
        assert max(busy_cores(made.chosen)) <= (wish.cpu_budget or np.inf)
    if made.verdict is Verdict.GO:
        assert made.certificate is not None
        assert made.certificate.guaranteed


def test_where_both_hosts_are_one_machine_either_end_has_half_of_its_budget() -> None:
    apart = measured(BUSY)
    wish = replace(WISH, cpu_budget=1.0)
    for survey, most in ((apart, 1.0), (replace(apart, shared_cores=2.0), 0.5)):
        made = plan(situation(survey), wish)
        assert made.wish.cpu_budget == most
        assert made.chosen is not None
        assert max(busy_cores(made.chosen)) <= most


def test_the_same_seed_makes_the_same_plan() -> None:
    of = situation(BUSY, hints=True)
    assert plan(of) == plan(of)


def test_a_guest_that_never_converges_is_moved_by_post_copy() -> None:
    made = plan(situation(FRANTIC))
    assert made.verdict is Verdict.GO
    assert made.chosen is not None
    assert made.chosen.candidate.tuning.postcopy not in {Postcopy.NEVER, Postcopy.IF_STALLED}
    words = {no.method: no.reason for no in made.rejected}
    assert words[Method.TCP] == "completes within 2 min with probability 0.00"


def test_a_guest_that_never_converges_is_refused_where_nothing_helps() -> None:
    common = ALL - {Capability.POSTCOPY, Capability.POSTCOPY_PREEMPT, Capability.THROTTLING}
    made = plan(situation(FRANTIC, common))
    assert made.chosen is None
    assert made.certificate is None
    assert made.verdict is Verdict.REFUSE
    assert made.advice


def test_throttling_completes_what_nothing_else_may() -> None:
    made = plan(situation(FRANTIC), replace(WISH, postcopy=False))
    assert made.chosen is not None
    assert made.chosen.candidate.tuning.throttling
    assert made.verdict is Verdict.BORDERLINE


def test_a_longer_stop_within_the_wish_completes_what_would_not_without_it() -> None:
    wish = Wish(total_time=120.0, downtime=20.0, postcopy=False)
    common = ALL - {Capability.THROTTLING}
    made = plan(situation(FRANTIC, common), wish)
    assert made.chosen is not None
    assert made.chosen.candidate.tuning.downtime_limit > SETTINGS.downtime_limit
    assert made.chosen.prediction.downtime.p90 <= wish.downtime


def test_the_quickest_is_taken_and_called_go_only_where_it_is_sure_to_complete() -> None:
    """Compression is much quicker, but may leave no time to begin anew by post-copy."""
    at_leisure = plan(situation(BUSY))
    assert at_leisure.chosen is not None
    assert at_leisure.chosen.candidate.method is Method.COMPRESSED
    hurried = plan(situation(BUSY), replace(WISH, total_time=60.0))
    assert hurried.chosen is not None
    assert hurried.chosen.candidate.method is Method.COMPRESSED
    assert (at_leisure.verdict, hurried.verdict) == (Verdict.GO, Verdict.BORDERLINE)


@pytest.mark.parametrize(
    ("goal", "methods"),
    [
        (Goal.LEAST_TRAFFIC, {Method.COMPRESSED}),
        (Goal.LEAST_CPU, {Method.POSTCOPY, Method.TCP}),  # as good as each other, to 5 %
    ],
)
def test_the_goal_decides(goal: Goal, methods: set[Method]) -> None:
    chosen = plan(situation(BUSY, ALL - {Capability.RDMA}), replace(WISH, goal=goal)).chosen
    assert chosen is not None
    assert chosen.candidate.method in methods


def test_what_was_beaten_says_by_what() -> None:
    made = plan(situation(BUSY, hints=True))
    beaten = [no for no in made.rejected if no.forecast and not against(no.forecast, WISH)]
    assert beaten
    assert all(" against " in no.reason for no in beaten)


def test_the_leaders_are_predicted_with_many_draws() -> None:
    made = plan(situation(measured(BUSY)))
    shares = {each.prediction.completion_probability * FINE for each in made.ranking}
    assert all(share == pytest.approx(round(share)) for share in shares)


def test_a_plan_in_words_names_the_best_first_and_every_other_method_once() -> None:
    made = plan(situation(BUSY, ALL - {Capability.RDMA}))
    told = reasons(made)
    assert told[0].startswith("compressed, 2 channels, zstd:1")
    names = [line.removeprefix("not ").split(":")[0].split(",")[0] for line in told]
    assert len(names) == len(set(names)) == len(Method) - len(NOT_WEIGHED)
    assert any(line.startswith("not rdma: the source lacks rdma") for line in told)
    assert reasons(plan(situation(FRANTIC), replace(WISH, total_time=1.0)))[0] == (
        "nothing keeps the wish"
    )


def test_a_ladder_in_words_has_a_line_for_every_rung() -> None:
    made = plan(situation(BUSY))
    assert made.certificate is not None
    told = ladder(made.certificate)
    assert len(told) == len(made.certificate.rungs)
    assert "guaranteed, at most" in told[-1]
    assert ladder(None) == ()


def test_aids_are_weighed_with_everything_else() -> None:
    of = situation(FRANTIC)
    made = plan(of, replace(WISH, postcopy=False))
    everything = [*made.ranking, *(no.forecast for no in made.rejected if no.forecast)]
    helped, _ = aids(of, made.wish, everything)
    weighed = {each.candidate.tuning for each in everything}
    assert {each.tuning.throttling for each in helped} == {True, False}
    assert any(tuning.throttling for tuning in weighed)

"""Advice: at most three sentences, and each of them true when it is tried."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.theory.guests import KVM, Guest, guests
from unit.theory.situations import ALL, BUSY, FRANTIC, WISH, measured, situation
from whimbrel.model.inventory import Capability
from whimbrel.model.method import Settings
from whimbrel.model.plan import Goal, Plan, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.theory.advice import MOST, Remedy, remedies
from whimbrel.theory.planning import plan_move
from whimbrel.theory.simulate import simulate
from whimbrel.theory.situation import Earlier, Situation
from whimbrel.theory.trial import round_up

SETTINGS = Settings()
PRECOPY_ONLY = ALL - {Capability.POSTCOPY, Capability.POSTCOPY_PREEMPT, Capability.THROTTLING}


def planned(of: Situation, wish: Wish = WISH) -> Plan:
    return plan_move(of, SETTINGS, wish, generator=np.random.default_rng(5))


def found(of: Situation, wish: Wish = WISH, told: Settings = SETTINGS) -> Sequence[Remedy]:
    made = plan_move(of, told, wish, generator=np.random.default_rng(5))
    return remedies(of, told, made, seed=1)


def one(words: str, some: Sequence[Remedy]) -> Remedy:
    [match] = [each for each in some if words in each.sentence]
    return match


def holds(remedy: Remedy) -> bool:
    """Try a piece of advice with the survey and under the limits it speaks of."""
    course = simulate(remedy.survey, remedy.candidate.tuning, KVM, deadline=remedy.wish.total_time)
    in_time = course.preparation_time + course.total_time <= remedy.wish.total_time
    return course.completed and in_time and course.downtime <= remedy.wish.downtime


@given(
    guests(),
    st.builds(
        Wish,
        total_time=st.sampled_from([5.0, 30.0, 120.0]),
        downtime=st.sampled_from([0.1, 0.3, 1.0]),
        postcopy=st.booleans(),
        cpu_budget=st.none() | st.just(0.5),
        bandwidth_limit=st.none() | st.sampled_from([2e7, 2e8]),
    ),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_piece_of_advice_holds_when_it_is_tried(guest: Guest, wish: Wish) -> None:
    some = found(situation(measured(guest.survey()), earlier=(Earlier(40.0, 10.0),)), wish)
    assert len(some) <= MOST
    for remedy in some:
        assert holds(remedy), remedy.sentence


def test_the_plan_carries_the_sentences() -> None:
    of = situation(FRANTIC, PRECOPY_ONLY)
    made = planned(of)
    assert made.advice
    assert all(each.endswith(".") for each in made.advice)


def test_a_plan_that_is_go_and_hindered_by_nothing_needs_no_advice() -> None:
    assert planned(situation(BUSY)).verdict is Verdict.GO
    assert planned(situation(BUSY)).advice == ()


def test_post_copy_that_is_not_allowed_is_told_with_its_time() -> None:
    of = situation(FRANTIC, ALL - {Capability.THROTTLING})
    remedy = one("Post-copy would finish in", found(of, replace(WISH, postcopy=False)))
    assert remedy.sentence.endswith("it is not allowed.")
    assert remedy.wish.postcopy
    assert holds(remedy)


def test_a_plan_that_lacks_only_a_guarantee_is_told_how_to_get_one() -> None:
    wish = replace(WISH, postcopy=False)
    one("With post-copy allowed it would be sure to complete, within", found(situation(BUSY), wish))
    short = replace(WISH, total_time=41.0, cpu_budget=0.1)
    later = found(situation(measured(BUSY)), short)
    assert all("allowed it would" not in each.sentence for each in later)


def test_the_least_bandwidth_that_does_is_told() -> None:
    remedy = one("At ", found(situation(FRANTIC, PRECOPY_ONLY)))
    assert holds(remedy)
    now, then = FRANTIC.link.goodput_for(1), remedy.survey.link.goodput_for(1)
    assert then > now
    narrower = {count: rate * 0.7 for count, rate in remedy.survey.link.goodput.items()}
    survey = replace(remedy.survey, link=replace(remedy.survey.link, goodput=narrower))
    assert not holds(replace(remedy, survey=survey))


def test_a_bandwidth_limit_that_hinders_is_told() -> None:
    told = replace(SETTINGS, bandwidth_limit=1e7)
    wish = replace(WISH, bandwidth_limit=1e7)
    remedy = one("With a bandwidth limit of", found(situation(BUSY, PRECOPY_ONLY), wish, told))
    assert holds(remedy)
    assert remedy.candidate.tuning.bandwidth_limit is not None
    assert remedy.candidate.tuning.bandwidth_limit > 1e7


def test_a_deadline_that_would_do_is_told() -> None:
    remedy = one(
        "With a deadline of", found(situation(BUSY, PRECOPY_ONLY), replace(WISH, total_time=5.0))
    )
    assert remedy.wish.total_time > 5.0
    assert holds(remedy)


def test_a_longer_stop_that_would_do_is_told_with_the_downtime() -> None:
    remedy = one("With a downtime limit of", found(situation(FRANTIC, PRECOPY_ONLY)))
    assert "frozen for up to" in remedy.sentence
    assert holds(remedy)
    assert remedy.candidate.tuning.downtime_limit > SETTINGS.downtime_limit


def test_a_quieter_moment_that_was_seen_is_told_and_a_busier_one_is_not() -> None:
    rate = FRANTIC.memory.dirty.write_rate
    quiet = situation(FRANTIC, PRECOPY_ONLY, earlier=(Earlier(40.0, rate / 50),))
    remedy = one("Wait: 40 s ago the dirty rate was 2% of what it is now; then", found(quiet))
    assert holds(remedy)
    busier = situation(FRANTIC, PRECOPY_ONLY, earlier=(Earlier(40.0, 2 * rate),))
    assert not any(each.sentence.startswith("Wait") for each in found(busier))


def test_of_several_earlier_moments_the_latest_that_helps_is_told() -> None:
    rate = FRANTIC.memory.dirty.write_rate
    seen = (Earlier(90.0, rate / 100), Earlier(40.0, rate / 50), Earlier(5.0, rate * 0.9))
    one("Wait: 40 s ago", found(situation(FRANTIC, PRECOPY_ONLY, earlier=seen)))


def test_an_unsteady_guest_may_be_waited_for() -> None:
    dirty = replace(FRANTIC.memory.dirty, unsteadiness=0.9)
    swings = replace(FRANTIC, memory=replace(FRANTIC.memory, dirty=dirty))
    remedy = one(
        "varies by 90%; when it is that much lower", found(situation(swings, PRECOPY_ONLY))
    )
    assert holds(remedy)


def test_a_limit_that_rules_out_something_better_is_told_even_of_a_plan_that_is_go() -> None:
    wish = replace(WISH, goal=Goal.LEAST_TRAFFIC, cpu_budget=0.5)
    made = planned(situation(BUSY), wish)
    assert made.verdict is Verdict.GO
    [sentence] = made.advice
    assert sentence.startswith("Compressed, ")
    assert "cores of the source busy, more than 0.5." in sentence


@pytest.mark.parametrize(
    ("value", "expected"), [(0.281, 0.29), (2.5e9, 2.5e9), (101.0, 110.0), (99.0, 99.0)]
)
def test_what_is_advised_is_said_in_two_digits_and_never_less(
    value: float, expected: float
) -> None:
    assert round_up(value) == pytest.approx(expected)

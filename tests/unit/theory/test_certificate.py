import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.theory.guests import KVM, Guest, guests, lcg_guest, still_guest
from whimbrel.model.inventory import Capability
from whimbrel.model.memory import HostProfile, LinkProfile, Survey
from whimbrel.model.method import (
    Method,
    Postcopy,
    PreparedMemory,
    Settings,
    Tuning,
    tuning_for,
)
from whimbrel.model.migration import Cancel, SetDowntimeLimit, StartPostcopy
from whimbrel.model.plan import Certificate, Rung, Step, Wish
from whimbrel.model.units import MIB
from whimbrel.theory.bounds import Z90, bounds
from whimbrel.theory.certificate import CALLING_BACK, certify, highest_limit
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import Change, simulate

ALL = frozenset(Capability)
WISH = Wish(total_time=120.0, downtime=1.0)
TCP = Tuning()
MULTICHANNEL = Tuning(channels=2)
POSTCOPY = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS)
FRANTIC = lcg_guest(400_000, link=200.0 * MIB)


def ladder(
    survey: Survey,
    tuning: Tuning = TCP,
    wish: Wish = WISH,
    common: frozenset[Capability] = ALL,
    rules: QemuRules = KVM,
) -> Certificate:
    generator = np.random.default_rng(7)
    return certify(survey, tuning, wish, common, rules, generator=generator, draws=20)


def rung(certificate: Certificate, step: Step) -> Rung:
    [found] = [each for each in certificate.rungs if each.step is step]
    return found


def uncertain(survey: Survey) -> Survey:
    return replace(
        survey,
        link=replace(survey.link, error=0.1),
        source=replace(survey.source, error=0.2),
        destination=replace(survey.destination, error=0.2),
    )


def at_worst(survey: Survey) -> Survey:
    """Return a survey whose best estimate is what the bounds take for the worst."""
    slow = math.exp(Z90 * survey.source.error)

    def slower(host: HostProfile) -> HostProfile:
        seconds = {
            name: value * slow
            for name, value in vars(host).items()
            if name.endswith("_seconds") and value is not None
        }
        return replace(host, error=0.0, **seconds)

    link = survey.link
    low = {count: rate * math.exp(-Z90 * link.error) for count, rate in link.goodput.items()}
    return replace(
        survey,
        link=replace(link, goodput=low, error=0.0),
        source=slower(survey.source),
        destination=slower(survey.destination),
    )


@given(guests())
@settings(max_examples=40)
def test_no_guest_breaks_the_bounds_of_post_copy(guest: Guest) -> None:
    survey = uncertain(guest.survey())
    most = bounds(survey, POSTCOPY, KVM)
    course = simulate(at_worst(survey), POSTCOPY, KVM, deadline=1e6)
    assert course.completed
    assert course.total_time <= most.postcopy_total(most.first_pass)
    assert course.downtime <= max(most.postcopy_downtime(most.first_pass), most.whole)


@given(guests(), st.floats(0.05, 1.5))
@settings(max_examples=40)
def test_post_copy_begun_at_any_moment_keeps_its_bounds(guest: Guest, when: float) -> None:
    survey = guest.survey()
    most = bounds(survey, TCP, KVM)
    at = max(most.begun, when * most.first_pass)
    course = simulate(survey, TCP, KVM, deadline=1e6, changes=[Change(at, StartPostcopy())])
    if any(each.phase == "postcopy" for each in course.phases):
        assert course.total_time <= most.postcopy_total(at)
        assert course.downtime <= most.postcopy_downtime(at)


@given(guests())
@settings(max_examples=25)
def test_a_slower_link_never_lowers_a_bound(guest: Guest) -> None:
    fast = bounds(guest.survey(), POSTCOPY, KVM)
    slow = bounds(guest.survey(faster_link=0.5), POSTCOPY, KVM)
    assert slow.first_pass >= fast.first_pass
    assert slow.whole >= fast.whole
    assert slow.postcopy_total(10.0) >= fast.postcopy_total(10.0)


def test_a_guest_that_never_converges_is_sure_to_move_by_post_copy() -> None:
    certificate = ladder(FRANTIC)
    precopy, last = certificate.rungs[0], certificate.rungs[-1]
    assert precopy.step is Step.PRECOPY
    assert not precopy.guaranteed
    assert precopy.total_time == math.inf
    assert last.step is Step.POSTCOPY
    assert last.guaranteed
    assert last.action == StartPostcopy()
    assert certificate.guarantee is last
    assert last.total_time <= WISH.total_time
    assert last.downtime <= WISH.downtime


def test_the_last_moment_for_post_copy_leaves_time_for_all_of_memory() -> None:
    wish = replace(WISH, total_time=20.0)
    last = rung(ladder(FRANTIC, wish=wish), Step.POSTCOPY)
    assert not last.guaranteed
    assert "more than 20 s" in last.reason
    roomy = rung(ladder(FRANTIC, wish=replace(WISH, total_time=40.0)), Step.POSTCOPY)
    assert roomy.guaranteed
    assert roomy.latest < 40
    assert roomy.total_time <= 40


def test_post_copy_that_guarantees_nothing_hurries_no_move_that_is_likely() -> None:
    survey = lcg_guest(2_000, link=25.0 * MIB)
    likely = ladder(survey, wish=replace(WISH, total_time=1000.0)).rungs[0]
    assert likely.probability == 1.0
    # Too little time for both, so that it would have to begin early, and too short a stop.
    tight = replace(WISH, total_time=1.5 * likely.total_time)
    sound = rung(ladder(survey, wish=tight), Step.POSTCOPY)
    assert sound.guaranteed
    assert sound.latest < likely.total_time
    hasty = replace(tight, downtime=sound.downtime / 2)
    last = rung(ladder(survey, wish=hasty), Step.POSTCOPY)
    assert not last.guaranteed
    assert "may stand still" in last.reason
    assert last.latest >= likely.total_time


@pytest.mark.parametrize(
    ("tuning", "wish", "common", "words"),
    [
        (TCP, replace(WISH, postcopy=False), ALL, "not allowed"),
        (TCP, WISH, ALL - {Capability.POSTCOPY}, "cannot do it"),
        (MULTICHANNEL, replace(WISH, postcopy=False), ALL, "not allowed"),
    ],
)
def test_without_post_copy_nothing_is_guaranteed_and_the_rung_says_why(
    tuning: Tuning, wish: Wish, common: frozenset[Capability], words: str
) -> None:
    certificate = ladder(still_guest(), tuning, wish, common)
    assert not certificate.guaranteed
    assert words in certificate.rungs[-1].reason


def test_from_qemu_10_1_several_channels_can_fall_back_on_post_copy() -> None:
    certificate = ladder(still_guest(), MULTICHANNEL, rules=QemuRules.of((10, 1), "kvm"))
    assert certificate.rungs[-1].step is Step.POSTCOPY
    assert certificate.guaranteed


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (tuning_for(Method.RDMA, Settings()), "RDMA"),
        (MULTICHANNEL, "several channels"),
        (Tuning(prepared_memory=PreparedMemory()), "prepared memory away"),
        (Tuning(free_page_hints=True), "free page hints"),
    ],
)
def test_what_cannot_go_over_to_post_copy_is_called_back_and_begun_anew_by_it(
    tuning: Tuning, words: str
) -> None:
    certificate = ladder(still_guest(), tuning)
    hindered, anew = certificate.rungs[-2:]
    assert hindered.step is Step.POSTCOPY
    assert not hindered.guaranteed
    assert words in hindered.reason
    assert anew.step is Step.ANEW
    assert anew.action == Cancel()
    assert certificate.guarantee is anew
    assert certificate.tuning == tuning
    assert certificate.anew == anew.tuning
    assert "called back" in " ".join(certificate.assumptions)


@given(guests(), st.floats(0, 2))
@settings(max_examples=30)
def test_a_move_that_is_begun_anew_in_time_keeps_its_bounds(guest: Guest, when: float) -> None:
    survey = guest.survey()
    wish = replace(WISH, total_time=3000.0, downtime=100.0)
    anew = rung(ladder(survey, MULTICHANNEL, wish), Step.ANEW)
    assert anew.guaranteed
    at = min(anew.latest, when * bounds(survey, MULTICHANNEL, KVM).first_pass)
    second = simulate(survey, anew.tuning, KVM, deadline=1e6)
    assert second.completed
    assert at + CALLING_BACK + second.total_time <= anew.total_time
    if any(each.phase == "postcopy" for each in second.phases):
        assert second.downtime <= anew.downtime


def test_what_begins_anew_too_late_is_not_guaranteed() -> None:
    survey = lcg_guest(1000, link=125e6)
    tight = ladder(survey, MULTICHANNEL, replace(WISH, total_time=40.0))
    assert not rung(tight, Step.ANEW).guaranteed
    assert "more than 40 s" in rung(tight, Step.ANEW).reason


def test_a_guest_that_converges_is_still_not_guaranteed_by_its_dirty_rate() -> None:
    precopy = rung(ladder(still_guest()), Step.PRECOPY)
    assert precopy.probability == 1.0
    assert not precopy.guaranteed


def test_all_of_memory_within_the_downtime_limit_is_a_guarantee_without_post_copy() -> None:
    link = 1.25e9
    survey = replace(lcg_guest(400_000), link=LinkProfile({1: link}))
    tuning = Tuning(downtime_limit=6.0, switchover_bandwidth=link)
    wish = Wish(total_time=60.0, downtime=8.0, postcopy=False)
    precopy = rung(ladder(survey, tuning, wish), Step.PRECOPY)
    assert precopy.guaranteed
    course = simulate(survey, tuning, KVM, deadline=60.0)
    assert course.completed
    assert course.total_time <= precopy.total_time
    assert course.downtime <= precopy.downtime
    believed = replace(tuning, switchover_bandwidth=None)
    assert not rung(ladder(survey, believed, wish), Step.PRECOPY).guaranteed
    boasted = replace(tuning, switchover_bandwidth=2 * link)
    assert not rung(ladder(survey, boasted, wish), Step.PRECOPY).guaranteed


@given(guests(), st.floats(0.2, 5))
@settings(max_examples=40)
def test_the_raised_limit_keeps_the_wished_downtime(guest: Guest, downtime: float) -> None:
    survey, wish = guest.survey(), replace(WISH, downtime=downtime)
    limit = highest_limit(survey, TCP, wish, bounds(survey, TCP, KVM))
    assert 0 <= limit <= downtime
    raised = replace(TCP, downtime_limit=limit)
    course = simulate(survey, raised, KVM, deadline=60.0)
    if course.completed and len(course.passes) > 2:
        assert course.downtime <= downtime


def test_a_raised_limit_is_a_rung_only_where_the_wish_leaves_room() -> None:
    steps = [each.step for each in ladder(FRANTIC).rungs]
    assert steps == [Step.PRECOPY, Step.RAISED_DOWNTIME_LIMIT, Step.POSTCOPY]
    raised = rung(ladder(FRANTIC), Step.RAISED_DOWNTIME_LIMIT)
    assert isinstance(raised.action, SetDowntimeLimit)
    assert 0.3 < raised.action.seconds < 1.0
    tight = ladder(FRANTIC, wish=replace(WISH, downtime=0.3))
    assert [each.step for each in tight.rungs] == [Step.PRECOPY, Step.POSTCOPY]


def test_throttling_is_a_rung_only_where_it_was_asked_for_and_never_guaranteed() -> None:
    certificate = ladder(FRANTIC, Tuning(throttling=True))
    throttled = rung(certificate, Step.THROTTLING)
    assert throttled.tuning.throttling
    assert not rung(certificate, Step.PRECOPY).tuning.throttling
    assert not throttled.guaranteed


def test_rungs_are_climbed_in_order_of_time() -> None:
    for tuning in (TCP, Tuning(throttling=True)):
        moments = [each.latest for each in ladder(FRANTIC, tuning).rungs]
        assert moments == sorted(moments)


def test_a_move_by_post_copy_has_one_rung_after_its_first_pass() -> None:
    certificate = ladder(FRANTIC, POSTCOPY)
    [only] = certificate.rungs
    assert only.guaranteed
    most = bounds(FRANTIC, POSTCOPY, KVM)
    assert only.latest == pytest.approx(most.gone_over)
    assert most.gone_over == most.first_pass + POSTCOPY.downtime_limit


def test_a_promised_link_replaces_the_surveyed_one() -> None:
    own = certify(FRANTIC, TCP, WISH, ALL, KVM, generator=np.random.default_rng(1), draws=20)
    promised = certify(
        FRANTIC, TCP, WISH, ALL, KVM, generator=np.random.default_rng(1), draws=20, floor=20e6
    )
    assert own.guaranteed
    assert not promised.guaranteed
    assert "160 Mbit/s" in promised.assumptions[0]


def test_what_a_guarantee_rests_on_is_said() -> None:
    text = " ".join(ladder(FRANTIC).assumptions)
    for words in ("link carries at least", "p90", "fails", "climbed no later", "dirty curve"):
        assert words in text


def test_a_sound_move_that_is_a_little_late_is_left_alone() -> None:
    first, second = ladder(still_guest()).rungs[:2]
    assert second.latest >= 1.9 * first.total_time

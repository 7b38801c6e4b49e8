import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.theory.guests import KVM, TCG, Guest, guests, still_guest
from whimbrel.model.memory import Survey
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import (
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
)
from whimbrel.model.prediction import Course, Prediction
from whimbrel.model.units import GIB, MIB, PAGE
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.outlook import Lookout, Outlook
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import predict, simulate
from whimbrel.theory.trace import observe

DEADLINE = 120.0
HYBRID = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS)
tunings = st.sampled_from((Tuning(), Tuning(bandwidth_limit=100e6), HYBRID))
rules = st.sampled_from((KVM, TCG))


def stream(course: Course, *, offset: float = 0.0) -> list[Event]:
    """A course as a watcher hears it: its events, and a look about every 100 ms."""
    step = max(0.1, course.total_time / 300)
    times = np.arange(1, int(course.total_time / step) + 1) * step
    begun = next(each.at for each in course.phases if each.phase is Phase.PRECOPY)
    looks = [observe(course.trace, float(at)) for at in times if at > begun]
    events: list[Event] = sorted([*course.phases, *course.passes, *looks], key=_order)
    return [replace(event, at=event.at + offset) for event in events]


def _order(event: Event) -> tuple[float, bool]:
    return event.at, isinstance(event, Observation)


def outlooks(
    events: Sequence[Event], tuning: Tuning, prediction: Prediction | None
) -> list[Outlook]:
    lookout = Lookout(tuning, prediction, DEADLINE)
    return [lookout.hear(event) for event in events]


def foreseen(survey: Survey, tuning: Tuning, rule: QemuRules) -> Prediction:
    generator = np.random.default_rng(3)
    return predict(survey, tuning, rule, generator=generator, deadline=DEADLINE, draws=40)


def uncertain(survey: Survey) -> Survey:
    return replace(survey, link=replace(survey.link, error=0.03))


def inside(course: Course, seen: Sequence[Outlook]) -> float:
    """Return the share of moments at which the band held the true time left."""
    told = [each for each in seen if each.left is not None and each.at < course.total_time]
    held = [each.left.holds(course.total_time - each.at) for each in told if each.left]
    return sum(held) / max(len(held), 1)


@settings(max_examples=40)
@given(guest=guests(), tuning=tunings, rule=rules)
def test_with_a_true_forecast_the_band_holds_the_truth_in_most_moments(
    guest: Guest, tuning: Tuning, rule: QemuRules
) -> None:
    survey = uncertain(guest.survey())
    course = simulate(survey, tuning, rule, deadline=DEADLINE, patient=True)
    if course.completed:
        told = outlooks(stream(course), tuning, foreseen(survey, tuning, rule))
        assert inside(course, told) > 0.5


@settings(max_examples=40)
@given(
    guest=guests(),
    tuning=tunings,
    rule=rules,
    link=st.floats(0.3, 3),
    blind=st.booleans(),
)
def test_whatever_happens_what_is_told_is_sane(
    guest: Guest, tuning: Tuning, rule: QemuRules, link: float, blind: bool
) -> None:
    course = simulate(guest.survey(faster_link=link), tuning, rule, deadline=DEADLINE)
    said = None if blind else foreseen(uncertain(guest.survey()), tuning, rule)
    told = outlooks(stream(course, offset=7.0), tuning, said)
    for each in told:
        assert 0 <= each.completion_probability <= 1
        if each.left is not None:
            assert 0 <= each.left.p10 <= each.left.p50 <= each.left.p90 < math.inf
    if course.completed:
        assert told[-1].left is not None
        assert (told[-1].left.p90, told[-1].completion_probability) == (0.0, 1.0)


def test_a_link_half_as_fast_as_foreseen_is_noticed_within_the_first_pass() -> None:
    fast, slow = still_guest(0.2, link=200e6), still_guest(0.2, link=100e6)
    course = simulate(slow, Tuning(), TCG)
    told = outlooks(stream(course), Tuning(), foreseen(uncertain(fast), Tuning(), TCG))
    for share in (0.5, 0.7, 0.9):
        moment = next(each for each in told if each.at > share * course.total_time)
        assert moment.left is not None
        assert moment.left.p50 == pytest.approx(course.total_time - moment.at, rel=0.3)


def test_without_a_forecast_the_rest_is_told_from_what_is_seen() -> None:
    course = simulate(still_guest(0.0, link=100e6), Tuning(), TCG)
    told = outlooks(stream(course), Tuning(), None)
    for each in told:
        if each.at > 1.0 and each.left is not None:
            assert each.left.p50 == pytest.approx(course.total_time - each.at, rel=0.2, abs=0.5)


def frantic(excess: float, spread: float, link: float = 100e6) -> Survey:
    """A guest that dirties its memory faster than the link carries it, in any window."""
    pages = spread * GIB / PAGE
    survey = still_guest(0.0, link=link)
    curve = uniform(pages, 40 * pages + excess * link / PAGE)
    return replace(survey, memory=replace(survey.memory, dirty=curve))


@settings(max_examples=20)
@given(st.floats(1.5, 10), st.floats(0.3, 1), st.sampled_from(["true", "calm", "none"]))
def test_a_course_that_never_converges_loses_its_chance_within_two_passes(
    excess: float, spread: float, said: str
) -> None:
    survey = frantic(excess, spread)
    course = simulate(survey, Tuning(), TCG, deadline=DEADLINE, patient=True)
    assert not course.completed
    predictions = {
        "true": foreseen(uncertain(survey), Tuning(), TCG),
        "calm": foreseen(uncertain(still_guest(0.0, link=100e6)), Tuning(), TCG),
        "none": None,
    }
    events = stream(course)
    told = outlooks(events, Tuning(), predictions[said])
    # The second pass is the first that can be compared with another.
    fourth = next(n for n, e in enumerate(events) if isinstance(e, Pass) and e.number == 4)
    assert all(each.completion_probability < 0.5 for each in told[fourth:])


def test_a_move_that_comes_closer_is_believed_in() -> None:
    survey = replace(still_guest(0.0, link=100e6))
    curve = uniform(0.3 * GIB / PAGE, 0.2 * 100e6 / PAGE)
    survey = replace(survey, memory=replace(survey.memory, dirty=curve))
    course = simulate(survey, Tuning(), TCG)
    assert course.completed
    for said in (None, foreseen(uncertain(survey), Tuning(), TCG)):
        told = outlooks(stream(course), Tuning(), said)
        assert min(each.completion_probability for each in told) > 0.6
        assert told[-2].completion_probability >= told[0].completion_probability


def test_what_cannot_end_before_the_deadline_has_no_chance() -> None:
    survey = still_guest(0.0, link=5e6)
    course = simulate(survey, Tuning(), TCG, deadline=1000.0)
    told = outlooks(stream(course), Tuning(), None)
    late = next(each for each in told if each.at > 60)
    assert late.completion_probability < 0.05


def test_before_the_first_event_the_forecast_is_all_there_is() -> None:
    said = foreseen(uncertain(still_guest()), Tuning(), TCG)
    told = Lookout(Tuning(), said).before()
    assert told.left is not None
    assert told.left.p50 == said.total_time.p50 + said.preparation_time.p50
    assert Lookout(Tuning()).before().left is None


def test_post_copy_takes_what_is_missing_over_the_bandwidth() -> None:
    lookout = Lookout(HYBRID)
    lookout.hear(PhaseChange(Phase.POSTCOPY, 5.0))
    seen = Observation(6.0, Phase.POSTCOPY, remaining=200 * MIB, bandwidth=50.0 * MIB)
    told = lookout.hear(seen)
    assert told.left is not None
    assert told.left.p50 == 4.0
    assert told.completion_probability == 1.0


def test_once_the_guest_stands_still_it_is_nearly_over() -> None:
    lookout = Lookout(Tuning(downtime_limit=0.3))
    lookout.hear(PhaseChange(Phase.PRECOPY, 0.1))
    stopped = lookout.hear(PhaseChange(Phase.SWITCHOVER, 9.0))
    later = lookout.hear(Observation(9.2, Phase.SWITCHOVER))
    assert stopped.left is not None
    assert later.left is not None
    assert later.left.p50 < stopped.left.p50 <= 0.3


def test_a_move_that_is_called_back_completes_no_more() -> None:
    lookout = Lookout(Tuning())
    lookout.hear(PhaseChange(Phase.PRECOPY, 0.1))
    told = lookout.hear(PhaseChange(Phase.CANCELLING, 3.0))
    assert told.completion_probability == 0.0
    assert told.left is not None
    assert told.left.p90 == 0.0


def test_a_longer_stop_gives_a_stalled_move_a_new_chance() -> None:
    lookout = Lookout(Tuning())
    lookout.hear(PhaseChange(Phase.PRECOPY, 0.0))
    told = [lookout.hear(Pass(n, float(n), n * GIB, 200 * MIB)) for n in range(1, 6)]
    lookout.decided(SetDowntimeLimit(2.0))
    after = lookout.hear(Observation(5.1, Phase.PRECOPY, remaining=200 * MIB, bandwidth=100e6))
    assert after.completion_probability > told[-1].completion_probability

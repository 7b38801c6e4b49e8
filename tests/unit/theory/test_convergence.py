from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from unit.theory.guests import KVM, TCG, Guest, guests, still_guest
from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import (
    Action,
    Cancel,
    Decision,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.plan import Certificate, Rung, Step
from whimbrel.model.prediction import Interval, PassBand, Prediction, Verdict
from whimbrel.model.units import GIB, MIB, PAGE
from whimbrel.theory.convergence import Convergence
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate

HYBRID = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS)


def hear(control: Convergence, *events: Event) -> list[Decision]:
    return [decision for event in events if (decision := control.hear(event)) is not None]


def test_post_copy_starts_after_the_first_pass_and_once() -> None:
    control = Convergence(HYBRID, deadline=60.0)
    decisions = hear(
        control,
        PhaseChange(Phase.PRECOPY, 0.1),
        Pass(1, 0.1, 0, 1 << 30),
        Pass(2, 9.0, 1 << 30, 1 << 20),
        Pass(3, 9.5, 1 << 30, 1 << 20),
    )
    assert [decision.action for decision in decisions] == [StartPostcopy()]
    assert "1 MiB" in decisions[0].reason


def test_the_end_of_memory_is_sent_before_the_guest_goes_over() -> None:
    control = Convergence(replace(HYBRID, downtime_limit=0.5), deadline=60.0)
    begun = PhaseChange(Phase.PRECOPY, 0.1)
    assert hear(control, begun, Observation(5.0, Phase.PRECOPY)) == []
    assert control.pulls_at == float("inf")
    assert hear(control, Pass(2, 9.0, 1 << 30, 1 << 20), Observation(9.4, Phase.PRECOPY)) == []
    assert control.pulls_at == 9.5
    [decision] = hear(control, Observation(9.6, Phase.PRECOPY), Observation(9.7, Phase.PRECOPY))
    assert decision == Decision(StartPostcopy(), decision.reason, 9.6)


def test_a_move_that_ends_by_itself_meanwhile_does_not_go_over() -> None:
    control = Convergence(HYBRID, deadline=60.0)
    over = PhaseChange(Phase.SWITCHOVER, 9.1), PhaseChange(Phase.COMPLETED, 9.6)
    begun = PhaseChange(Phase.PRECOPY, 0.1), Pass(2, 9.0, 1 << 30, 1 << 20)
    assert hear(control, *begun, *over, Observation(9.7, Phase.COMPLETED)) == []


def test_a_tuning_without_post_copy_never_starts_it() -> None:
    control = Convergence(Tuning(), deadline=60.0)
    assert hear(control, PhaseChange(Phase.PRECOPY, 0.1), Pass(2, 1.0, 1, 1)) == []


def test_post_copy_is_not_started_once_the_switchover_began() -> None:
    control = Convergence(HYBRID, deadline=60.0)
    assert hear(control, PhaseChange(Phase.SWITCHOVER, 0.1), Pass(2, 1.0, 1, 1)) == []


@given(st.floats(0.1, 1e4), st.lists(st.floats(0, 1e5), max_size=20))
def test_a_move_is_given_up_once_and_only_after_its_deadline(
    deadline: float, times: list[float]
) -> None:
    control = Convergence(Tuning(), deadline)
    decisions = hear(control, *[Observation(at, Phase.PRECOPY) for at in sorted(times)])
    late = [at for at in times if at > deadline]
    assert [d.action for d in decisions] == ([Cancel()] if late else [])
    assert control.gave_up is bool(late)
    assert all(decision.at > deadline for decision in decisions)


def test_past_the_point_of_no_return_nothing_is_given_up() -> None:
    control = Convergence(HYBRID, deadline=1.0)
    assert hear(control, PhaseChange(Phase.POSTCOPY, 0.9), Observation(5.0, Phase.POSTCOPY)) == []


def passes(*remaining: int, rate: int = 100 * MIB) -> list[Event]:
    """Passes a second apart, each beginning with so many bytes."""
    events: list[Event] = [PhaseChange(Phase.PRECOPY, 0.0)]
    events += [
        Pass(number, float(number), number * rate, left)
        for number, left in enumerate(remaining, start=1)
    ]
    return events


STUCK = passes(1024 * MIB, *[200 * MIB] * 6)
POSSIBLE = Tuning(postcopy=Postcopy.IF_STALLED)


def test_without_a_policy_a_stalled_move_is_left_alone() -> None:
    assert hear(Convergence(Tuning(), 600.0), *STUCK) == []


def test_a_stalled_move_gets_the_longer_stop_it_needs_and_policy_allows() -> None:
    [first, *_] = hear(Convergence(Tuning(), 600.0, Policy(downtime=5.0)), *STUCK)
    assert isinstance(first.action, SetDowntimeLimit)
    assert 2.0 < first.action.seconds <= 5.0
    assert first.at <= 4.0, "noticed within two passes after the first that could be compared"


def test_where_no_stop_will_do_it_goes_to_post_copy() -> None:
    decisions = hear(Convergence(POSSIBLE, 600.0, Policy(downtime=0.5)), *STUCK)
    assert isinstance(decisions[0].action, StartPostcopy)


def test_where_nothing_is_allowed_it_gives_up_long_before_its_deadline() -> None:
    control = Convergence(POSSIBLE, 600.0, Policy(downtime=0.5, postcopy=False))
    decisions = hear(control, *STUCK)
    assert [decision.action for decision in decisions] == [Cancel()]
    assert not control.too_late
    assert "converge" in control.reason


def test_a_move_that_comes_closer_is_left_alone() -> None:
    shrinking = passes(1024 * MIB, *[int(200 * MIB * 0.9**n) for n in range(20)])
    assert hear(Convergence(POSSIBLE, 600.0, Policy()), *shrinking) == []


@given(
    st.lists(st.integers(0, 1 << 32), min_size=1, max_size=30),
    st.floats(0.01, 10),
    st.booleans(),
    st.floats(0.01, 10),
)
def test_no_limit_of_policy_is_ever_exceeded(
    remaining: list[int], downtime: float, postcopy: bool, limit: float
) -> None:
    control = Convergence(
        Tuning(postcopy=Postcopy.IF_STALLED, downtime_limit=limit),
        600.0,
        Policy(downtime, postcopy),
    )
    decisions = hear(control, *passes(*remaining))
    for decision in decisions:
        assert decision.reason
        if isinstance(decision.action, SetDowntimeLimit):
            assert limit < decision.action.seconds <= downtime
        assert postcopy or not isinstance(decision.action, StartPostcopy)
    kinds = [type(decision.action) for decision in decisions]
    assert kinds.count(StartPostcopy) <= 1
    assert kinds.count(Cancel) <= 1


def certificate(*rungs: Rung) -> Certificate:
    return Certificate(rungs, ())


def rung(step: Step, action: Action | None, latest: float, reason: str = "sure") -> Rung:
    bounds = (1.0, latest + 10.0, 0.5)
    return Rung(step, POSSIBLE, action, latest, *bounds, guaranteed=True, reason=reason)


POLICY = Policy()
LADDER = certificate(
    rung(Step.PRECOPY, None, 1.0),
    rung(Step.RAISED_DOWNTIME_LIMIT, SetDowntimeLimit(0.8), 20.0),
    rung(Step.POSTCOPY, StartPostcopy(), 40.0),
)


def polls(until: float, every: float = 0.1) -> list[Event]:
    """A first pass that takes forever, looked at again and again."""
    count = int(until / every)
    seen: list[Event] = [Observation(n * every, Phase.PRECOPY) for n in range(1, count)]
    return [PhaseChange(Phase.PRECOPY, 0.0), Pass(1, 0.0, 0, 1 << 30), *seen]


def guarded(
    policy: Policy = POLICY,
    ladder: Certificate | None = LADDER,
    tuning: Tuning = POSSIBLE,
    prediction: Prediction | None = None,
) -> Convergence:
    return Convergence(tuning, 600.0, policy, certificate=ladder, prediction=prediction)


def test_each_rung_is_climbed_no_later_than_the_certificate_says() -> None:
    decisions = hear(guarded(), *polls(60.0))
    assert [d.action for d in decisions] == [SetDowntimeLimit(0.8), StartPostcopy()]
    for decision, climbed in zip(decisions, LADDER.rungs[1:], strict=True):
        assert climbed.latest - 0.5 < decision.at <= climbed.latest
        assert climbed.step in decision.reason


@given(
    st.floats(0.05, 30), st.floats(0.05, 30), st.floats(0.1, 3), st.booleans(), st.floats(0.1, 3)
)
def test_by_the_clock_no_limit_of_policy_is_exceeded(
    first: float, then: float, stop: float, postcopy: bool, allowed: float
) -> None:
    ladder = certificate(
        rung(Step.RAISED_DOWNTIME_LIMIT, SetDowntimeLimit(stop), first),
        rung(Step.POSTCOPY, StartPostcopy(), first + then),
    )
    decisions = hear(guarded(Policy(allowed, postcopy), ladder), *polls(62.0))
    for decision in decisions:
        if isinstance(decision.action, SetDowntimeLimit):
            assert decision.action.seconds <= min(allowed, stop)
    pulls = [d for d in decisions if isinstance(d.action, StartPostcopy)]
    assert len(pulls) == postcopy
    assert all(d.at <= max(first + then, 0.1) for d in pulls)


def test_a_stop_that_policy_cuts_short_says_so() -> None:
    [raised, *_] = hear(guarded(Policy(downtime=0.5)), *polls(30.0))
    assert raised.action == SetDowntimeLimit(0.5)
    assert "800 ms" in raised.reason
    assert "policy allows 500 ms" in raised.reason


def test_of_rungs_due_at_once_the_surest_is_climbed() -> None:
    late: list[Event] = [PhaseChange(Phase.PRECOPY, 50.0), Observation(50.1, Phase.PRECOPY)]
    assert [d.action for d in hear(guarded(), *late)] == [StartPostcopy()]


def test_where_the_next_rung_is_a_second_attempt_the_first_is_called_back_in_time() -> None:
    refused = rung(Step.POSTCOPY, None, float("inf"), "QEMU before 10.1 refuses it")
    ladder = certificate(refused, rung(Step.ANEW, Cancel(), 20.0))
    control = guarded(POLICY, ladder, Tuning(channels=2))
    [decision] = hear(control, *polls(60.0))
    assert decision.action == Cancel()
    assert decision.at <= 20.0
    assert control.gave_up
    assert not control.too_late
    assert "begun anew" in control.reason
    assert hear(guarded(Policy(postcopy=False), ladder, Tuning(channels=2)), *polls(60.0)) == []


def test_a_stall_is_not_left_to_the_clock() -> None:
    [first, *_] = hear(guarded(Policy(downtime=0.5)), *STUCK)
    assert first.action == StartPostcopy()
    assert first.at <= 4.0
    assert "500 ms" in first.reason, "what stood in the way of a longer stop"


def test_a_stall_gets_no_longer_stop_than_the_certificate_has() -> None:
    short = certificate(rung(Step.RAISED_DOWNTIME_LIMIT, SetDowntimeLimit(0.8), 20.0))
    for ladder in (short, certificate(rung(Step.POSTCOPY, StartPostcopy(), 40.0))):
        decisions = hear(guarded(Policy(downtime=5.0), ladder), *STUCK)
        assert [d.action for d in decisions] == [StartPostcopy()]


def test_one_long_pass_without_progress_is_enough() -> None:
    slow: list[Event] = [PhaseChange(Phase.PRECOPY, 0.0)]
    slow += [Pass(1, 0.0, 0, 1 << 30), Pass(2, 60.0, 1 << 30, 500 * MIB)]
    slow += [Pass(3, 90.0, 3 << 29, 500 * MIB)]
    [decision] = hear(guarded(ladder=None), *slow)
    assert (decision.action, decision.at) == (StartPostcopy(), 90.0)


def foreseen(*remaining: int) -> Prediction:
    """A prediction of passes a second apart, which begin with so many bytes."""
    none = Interval(0.0, 0.0, 0.0)
    nine = (none, none, none, none, none, none, none, none, none)
    band = tuple(
        PassBand(number, 1.0, Interval(*[float(number)] * 3), Interval(*[float(left)] * 3))
        for number, left in enumerate(remaining, start=1)
    )
    return Prediction(Tuning(), 60.0, 0.99, Verdict.GO, *nine, band)


def test_a_pass_beyond_the_forecast_is_noticed_at_once() -> None:
    better = foreseen(1024 * MIB, 200 * MIB, 50 * MIB, 10 * MIB)
    as_said = foreseen(1024 * MIB, 200 * MIB, 200 * MIB, 200 * MIB)
    [first] = hear(guarded(ladder=None, prediction=better), *STUCK)
    [second] = hear(guarded(ladder=None, prediction=as_said), *STUCK)
    assert (first.at, second.at) == (3.0, 4.0)


def test_a_burst_of_passes_near_the_threshold_is_no_stall() -> None:
    burst = [Pass(n, 9.0 + 0.02 * n, n << 30, 40 * MIB) for n in range(2, 9)]
    assert hear(guarded(ladder=None), *passes(1024 * MIB), *burst) == []


def test_a_guest_that_is_still_being_slowed_has_its_chance() -> None:
    control = guarded(ladder=None, tuning=replace(POSSIBLE, throttling=True))
    slowed = [Observation(n + 0.5, Phase.PRECOPY, throttle=0.1 * n) for n in range(1, 9)]
    together = sorted([*STUCK, *slowed], key=lambda event: event.at)
    assert hear(control, *together) == []
    [decision] = hear(control, *[replace(p, at=p.at + 9) for p in STUCK[3:]])
    assert decision.action == StartPostcopy()


def test_after_a_longer_stop_a_move_gets_two_more_passes() -> None:
    raised, pulled = hear(guarded(Policy(downtime=3.0), None), *STUCK)[:2]
    assert isinstance(raised.action, SetDowntimeLimit)
    assert pulled.action == StartPostcopy()
    assert pulled.at - raised.at == 2.0


def test_a_move_on_its_way_to_post_copy_is_not_called_back() -> None:
    control = Convergence(POSSIBLE, 6.0, Policy(downtime=0.5))
    assert [d.action for d in hear(control, *STUCK)] == [StartPostcopy()]


def test_a_refused_post_copy_does_not_leave_a_move_without_an_end() -> None:
    decisions = hear(guarded(Policy(downtime=0.5), None), *passes(1 << 30, *[200 * MIB] * 20))
    assert [d.action for d in decisions] == [StartPostcopy(), Cancel()]


def test_what_hindered_is_said_when_it_is_given_up() -> None:
    refused = rung(Step.POSTCOPY, None, float("inf"), "QEMU before 10.1 refuses it")
    cases = {
        "forbids post-copy": guarded(Policy(0.5, postcopy=False)),
        "not set up for post-copy": guarded(Policy(0.5), None, Tuning()),
        "QEMU before 10.1": guarded(Policy(0.5), certificate(refused), Tuning(channels=2)),
    }
    for words, control in cases.items():
        assert [d.action for d in hear(control, *STUCK)] == [Cancel()]
        assert words in control.reason
        assert "too much for the longest stop allowed" in control.reason


def test_a_forbidding_policy_outweighs_a_tuning_that_wants_post_copy() -> None:
    control = Convergence(HYBRID, 600.0, Policy(postcopy=False))
    assert hear(control, *passes(1024 * MIB, 100 * MIB, 50 * MIB)) == []


@given(guests(), st.sampled_from([KVM, TCG]))
@settings(max_examples=40)
def test_a_move_that_completes_by_itself_is_left_alone(guest: Guest, rules: QemuRules) -> None:
    course = simulate(guest.survey(), Tuning(), rules, deadline=120.0, patient=True)
    if course.completed:
        begins = [p for p in course.phases if p.phase is Phase.PRECOPY]
        control = Convergence(POSSIBLE, 120.0, Policy(downtime=0.3))
        assert hear(control, *begins, *course.passes[:-1]) == []


@given(st.floats(1.2, 20), st.floats(0.2, 1.0))
@settings(max_examples=25)
def test_a_guest_that_never_converges_is_taken_to_the_next_rung(
    excess: float, spread: float
) -> None:
    # Uniform writes faster than the link, over more memory than any stop allows.
    link = 100e6
    pages = spread * GIB / PAGE
    survey = still_guest(0.0, link=link)
    curve = uniform(pages, 4 * pages + excess * link / PAGE)
    survey = replace(survey, memory=replace(survey.memory, dirty=curve))
    course = simulate(survey, Tuning(), TCG, deadline=120.0, patient=True)
    assert not course.completed
    begins = [p for p in course.phases if p.phase is Phase.PRECOPY]
    control = Convergence(POSSIBLE, 120.0, Policy(downtime=0.3))
    [decision, *_] = hear(control, *begins, *course.passes)
    assert decision.action == StartPostcopy()
    heard = [each.remaining for each in course.passes[1:] if each.at <= decision.at]
    stuck = sum(later >= earlier * 0.96 for earlier, later in pairwise(heard))
    assert 1 <= stuck <= 2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.by_hand import ByHand
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase, Side
from whimbrel.practice.cases import Case, Facts, Repair, Seen, SideFacts, case_of

GONE, SILENT = SideFacts(Seen.GONE), SideFacts(Seen.SILENT)


def answers(phase: Phase, *, running: bool = False) -> SideFacts:
    return SideFacts(Seen.ANSWERS, running, phase)


def runs(phase: Phase = Phase.IDLE) -> SideFacts:
    return answers(phase, running=True)


def waits(phase: Phase = Phase.SETUP) -> SideFacts:
    return answers(phase)


def judged(
    here: SideFacts, there: SideFacts, last: Step | None = Step.SENDING, *, exact: bool = True
) -> Case:
    return case_of(Facts(here, there, last, exact))


CASES = [
    # whimbrel died before anything was sent
    (runs(), GONE, Step.OPENED, Repair.NOTHING, Side.SOURCE),
    (runs(), waits(), Step.PREPARED, Repair.STOP_THERE, Side.SOURCE),
    # ... while memory was sent
    (runs(Phase.PRECOPY), waits(Phase.PRECOPY), Step.SENDING, Repair.CALL_BACK, Side.SOURCE),
    (runs(Phase.SETUP), SILENT, Step.SENDING, Repair.CALL_BACK, Side.SOURCE),
    (runs(Phase.FAILED), waits(Phase.FAILED), Step.SENDING, Repair.STOP_THERE, Side.SOURCE),
    (runs(Phase.CANCELLED), SILENT, Step.SENDING, Repair.NOTHING, Side.SOURCE),
    (waits(Phase.CANCELLED), GONE, Step.SENDING, Repair.RESUME_HERE, None),
    # ... while the guest was handed over
    (waits(Phase.SWITCHOVER), waits(Phase.PRECOPY), Step.SENDING, Repair.CALL_BACK, None),
    (waits(Phase.CANCELLING), waits(Phase.PRECOPY), Step.SENDING, Repair.WAIT, None),
    (waits(Phase.COMPLETED), waits(Phase.COMPLETED), Step.SENDING, Repair.RUN_THERE, None),
    (waits(Phase.COMPLETED), GONE, Step.SENDING, Repair.RESUME_HERE, None),
    (waits(Phase.COMPLETED), GONE, Step.RUNNING_THERE, Repair.LEAVE, None),
    (waits(Phase.COMPLETED), SILENT, Step.SENDING, Repair.LEAVE, None),
    (waits(Phase.COMPLETED), waits(Phase.FAILED), Step.SENDING, Repair.RESUME_HERE, None),
    (
        waits(Phase.COMPLETED),
        runs(Phase.COMPLETED),
        Step.RUNNING_THERE,
        Repair.STOP_HERE,
        Side.DESTINATION,
    ),
    # ... in post-copy
    (waits(Phase.POSTCOPY), waits(Phase.POSTCOPY), Step.POSTCOPY, Repair.RUN_THERE, None),
    (
        waits(Phase.POSTCOPY),
        runs(Phase.POSTCOPY),
        Step.RUNNING_THERE,
        Repair.FOLLOW,
        Side.DESTINATION,
    ),
    (
        waits(Phase.POSTCOPY_PAUSED),
        runs(Phase.POSTCOPY),
        Step.RUNNING_THERE,
        Repair.TAKE_UP,
        Side.DESTINATION,
    ),
    (waits(Phase.POSTCOPY_PAUSED), SILENT, Step.RUNNING_THERE, Repair.TAKE_UP, None),
    (waits(Phase.POSTCOPY_PAUSED), GONE, Step.RUNNING_THERE, Repair.LEAVE, None),
    (waits(Phase.FAILED), GONE, Step.RUNNING_THERE, Repair.LEAVE, None),
    # a side is gone, or does not answer
    (GONE, GONE, Step.SENDING, Repair.NOTHING, None),
    (GONE, waits(Phase.COMPLETED), Step.SENDING, Repair.RUN_THERE, None),
    (GONE, waits(Phase.PRECOPY), Step.SENDING, Repair.STOP_THERE, None),
    (GONE, runs(Phase.COMPLETED), Step.STOPPING_HERE, Repair.NOTHING, Side.DESTINATION),
    (GONE, runs(Phase.POSTCOPY), Step.RUNNING_THERE, Repair.LEAVE, None),
    (SILENT, waits(Phase.COMPLETED), Step.SENDING, Repair.LEAVE, None),
    (SILENT, runs(Phase.COMPLETED), Step.RUNNING_THERE, Repair.LEAVE, Side.DESTINATION),
    (SILENT, SILENT, Step.SENDING, Repair.LEAVE, None),
    (runs(), runs(), Step.SENDING, Repair.LEAVE, None),
]


@pytest.mark.parametrize(("here", "there", "last", "repair", "runs_on"), CASES)
def test_each_case_has_its_repair(
    here: SideFacts, there: SideFacts, last: Step, repair: Repair, runs_on: Side | None
) -> None:
    case = judged(here, there, last)
    assert (case.repair, case.runs_on) == (repair, runs_on)


def test_a_mark_that_may_lag_does_not_vouch_that_the_guest_never_ran_there() -> None:
    completed = waits(Phase.COMPLETED)
    assert judged(completed, GONE, Step.SENDING, exact=False).repair is Repair.LEAVE
    failed = waits(Phase.FAILED)
    assert judged(failed, GONE, Step.SENDING, exact=False).repair is Repair.RESUME_HERE
    assert judged(failed, GONE, Step.POSTCOPY, exact=False).repair is Repair.LEAVE
    assert judged(failed, GONE, None, exact=False).repair is Repair.LEAVE


sides = st.one_of(
    st.just(GONE),
    st.just(SILENT),
    st.builds(answers, st.sampled_from(Phase), running=st.booleans()),
)
all_facts = st.builds(Facts, sides, sides, st.none() | st.sampled_from(Step), st.booleans())


@given(all_facts)
def test_no_repair_runs_a_guest_that_may_run_elsewhere(facts: Facts) -> None:
    case = case_of(facts)
    here, there = facts.source, facts.destination
    if case.repair is Repair.RUN_THERE:
        assert here.seen is not Seen.SILENT
        assert not here.running
        assert here.seen is Seen.GONE or here.phase in {Phase.COMPLETED, Phase.POSTCOPY}
    if case.repair is Repair.RESUME_HERE:
        assert here.seen is Seen.ANSWERS
        assert there.seen is not Seen.SILENT
        assert not there.running
        assert here.phase not in {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}


@given(all_facts)
def test_nothing_that_may_be_the_only_guest_is_ended(facts: Facts) -> None:
    case = case_of(facts)
    here, there = facts.source, facts.destination
    if case.repair is Repair.STOP_HERE:
        assert there.running
        assert not here.running
    if case.repair in {Repair.STOP_THERE, Repair.RESUME_HERE}:
        assert not there.running
        assert there.phase is not Phase.COMPLETED or here.seen is Seen.ANSWERS


@given(all_facts)
def test_every_case_says_what_it_is_and_what_a_person_has_to_do(facts: Facts) -> None:
    case = case_of(facts)
    assert case.sentence.endswith(".")
    assert bool(case.hint) or case.repair is not Repair.LEAVE
    if facts.source.running and not facts.destination.running:
        assert case.runs_on is Side.SOURCE


def test_a_guest_that_is_lost_leaves_nothing_to_find_out_and_may_be_ended() -> None:
    half = SideFacts(Seen.ANSWERS, running=True, phase=Phase.POSTCOPY_PAUSED)
    case = case_of(Facts(SideFacts(Seen.GONE), half, Step.RUNNING_THERE))
    assert case.over
    assert case.lost
    assert case.runs_on is None
    assert "whimbrel down" in case.hint
    assert "whimbrel up" in case.hint


@pytest.mark.parametrize(
    ("last", "start"), [(Step.SENDING, "start it at a"), (Step.STOPPING_HERE, "start it at b")]
)
def test_a_lost_guest_is_started_anew_where_it_ran_by_what_runs_that_host(
    last: Step, start: str
) -> None:
    words = ByHand("end it at a", "start it at a"), ByHand("end it at b", "start it at b")
    case = case_of(Facts(GONE, GONE, last, True, False, *words))
    assert start in case.hint
    half = SideFacts(Seen.ANSWERS, running=True, phase=Phase.POSTCOPY)
    assert "end it at b" in case_of(Facts(GONE, half, last, True, False, *words)).hint
    both = case_of(Facts(runs(), runs(), last, True, False, *words))
    assert "end it at a, or: end it at b" in both.hint

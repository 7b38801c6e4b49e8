from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import (
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
from whimbrel.model.units import MIB
from whimbrel.theory.convergence import Convergence

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


STUCK = passes(1024 * MIB, *[200 * MIB] * 8)
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

"""Others' conduct, as their sources describe it: when each acts, and how."""

import pytest

from whimbrel.lab.habits import Conducted, Doubling, Habit, Stalling, Stepping, Timing, Waiting
from whimbrel.model.migration import (
    Action,
    Cancel,
    Decision,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.units import GIB, MIB


def seen(at: float, remaining: int = 50 * MIB, transferred: int | None = None) -> Observation:
    sent = round(at * 100 * MIB) if transferred is None else transferred
    return Observation(at, Phase.PRECOPY, transferred=sent, remaining=remaining)


def begun(habit: Habit, deadline: float = 1e9) -> Conducted:
    control = Conducted(habit, deadline)
    assert control.hear(PhaseChange(Phase.SETUP, 0.0)) is None
    assert control.hear(PhaseChange(Phase.PRECOPY, 0.0)) is None
    return control


def decisions(
    control: Conducted, upto: float, remaining: list[int] | None = None
) -> list[Decision]:
    """What is decided when somebody asks ten times a second, as QEMU is asked."""
    found = []
    for tick in range(1, round(upto * 10) + 1):
        left = 50 * MIB if remaining is None else remaining[tick % len(remaining)]
        decision = control.hear(seen(tick / 10, left))
        if decision is not None:
            found.append(decision)
    return found


def actions(found: list[Decision]) -> list[Action]:
    return [each.action for each in found]


def test_who_waits_does_nothing_until_the_lab_gives_the_move_up() -> None:
    control = begun(Waiting(), deadline=30.0)
    [end] = decisions(control, 60.0)
    assert end.action == Cancel()
    assert end.at == pytest.approx(30.1)
    assert control.too_late
    assert "30 s" in control.reason


def test_nobody_calls_back_a_guest_that_runs_at_the_destination() -> None:
    control = begun(Waiting(), deadline=1.0)
    control.hear(PhaseChange(Phase.POSTCOPY, 0.5))
    assert control.hear(seen(2.0)) is None
    assert not control.too_late


def test_proxmox_doubles_the_limit_when_the_rest_has_grown_six_times() -> None:
    saw_tooth = [400 * MIB, 300 * MIB, 200 * MIB, 100 * MIB] * 3
    control = begun(Doubling(0.1))
    # It looks once a second: every third of these is seen, and grows three times in four.
    found = decisions(control, 30.0, saw_tooth)
    limits = [each.action for each in found]
    assert limits[0] == SetDowntimeLimit(0.2)
    assert limits[1] == SetDowntimeLimit(0.4)
    assert all("grown 6 times" in each.reason for each in found)


def test_proxmox_looks_faster_when_little_is_left_and_never_asks_for_more_than_qemu_takes() -> None:
    habit = Doubling(1500.0)
    for tick in range(1, 40):
        habit.look(seen(float(tick), remaining=(tick % 2) * MIB), float(tick))
    assert habit.every == 0.1
    assert habit._limit == 2000.0


def test_kubevirt_gives_up_after_150_s_for_each_begun_gigabyte() -> None:
    [end] = decisions(begun(Timing(GIB, postcopy=False)), 320.0, [60 * MIB, 50 * MIB])
    assert end.action == Cancel()
    assert 300.0 < end.at < 301.0
    assert "5 min" in end.reason or "300 s" in end.reason


def test_kubevirt_goes_over_to_post_copy_where_it_may() -> None:
    found = decisions(begun(Timing(900 * MIB, postcopy=True)), 151.0, [60 * MIB, 50 * MIB])
    assert found[0].action == StartPostcopy()
    assert 150.0 < found[0].at < 151.0


def test_kubevirt_cancels_what_makes_no_progress_for_150_s() -> None:
    found = decisions(begun(Timing(8 * GIB, postcopy=True)), 160.0)
    assert actions(found) == [Cancel()]
    assert "stuck" in found[0].reason


def test_nova_begins_with_50_ms_and_takes_ten_steps_by_the_clock() -> None:
    found = decisions(begun(Stepping(512 * MIB)), 1590.0)
    limits = [a.seconds for a in actions(found) if isinstance(a, SetDowntimeLimit)]
    assert limits == [0.05, 0.095, 0.14, 0.185, 0.23, 0.275, 0.32, 0.365, 0.41, 0.455, 0.5]
    assert 150.0 <= found[1].at < 151.0  # 75 s per GiB, two at least


def test_nova_aborts_after_800_s_per_gib() -> None:
    control = begun(Stepping(3 * GIB))
    assert control.hear(seen(2400.0)) is not None
    end = control.hear(seen(2401.0))
    assert end is not None
    assert end.action == Cancel()


def test_ovirt_acts_when_more_remains_than_ten_seconds_before() -> None:
    steps: tuple[tuple[int, Action], ...] = (
        (1, SetDowntimeLimit(0.15)),
        (2, SetDowntimeLimit(0.2)),
        (-1, Cancel()),
    )
    habit = Stalling(steps)
    found = [habit.look(seen(10.0 * n, n * MIB), 10.0 * n) for n in range(1, 6)]
    taken = [each and each[0] for each in found]
    # The first look only compares; a limit of 1 is passed by the second look that stalls.
    assert taken == [None, None, SetDowntimeLimit(0.15), SetDowntimeLimit(0.2), Cancel()]
    assert habit.look(seen(60.0, 9 * MIB), 60.0) is None


def test_ovirt_leaves_a_move_alone_that_comes_closer() -> None:
    habit = Stalling(((1, Cancel()),))
    assert all(habit.look(seen(n, (9 - n) * MIB), n) is None for n in range(8))


def test_passes_move_nobody_who_only_polls() -> None:
    control = begun(Stepping(GIB))
    assert control.hear(Pass(2, 5.0, MIB, MIB)) is None

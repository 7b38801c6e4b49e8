"""What libvirt tells of a VM, in words of ours; phases it leaves out are filled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.hypervisors.libvirt.inspect import address, counted, gap_below_4_gib, marks_of
from whimbrel.hypervisors.libvirt.phases import way_between
from whimbrel.hypervisors.libvirt.states import Happening, State
from whimbrel.model.migration import TRANSITIONS, Phase
from whimbrel.model.units import GIB, MIB, PAGE


@given(st.sampled_from(Phase), st.sampled_from(Phase))
def test_a_way_between_phases_follows_the_table(first: Phase, last: Phase) -> None:
    at = first
    for phase in way_between(first, last):
        assert phase in TRANSITIONS[at]
        at = phase


def test_a_cancelled_move_was_being_cancelled_first() -> None:
    assert way_between(Phase.PRECOPY, Phase.CANCELLED) == [Phase.CANCELLING, Phase.CANCELLED]
    assert way_between(Phase.SETUP, Phase.COMPLETED) == [Phase.PRECOPY, Phase.COMPLETED]
    assert way_between(Phase.COMPLETED, Phase.PRECOPY) == []


@pytest.mark.parametrize(
    ("number", "reason", "state", "runs"),
    [
        (1, 1, State.RUNNING, True),
        (1, 10, State.RUNNING_IN_POSTCOPY, True),
        (1, 11, State.RUNNING_IN_LOST_POSTCOPY, True),
        (3, 1, State.PAUSED, False),
        (3, 2, State.HANDED_OVER, False),
        (3, 11, State.ARRIVING, False),
        (3, 12, State.POSTCOPY, False),
        (3, 13, State.LOST_POSTCOPY, False),
        (5, 4, State.OFF, False),
        (6, 1, State.OFF, False),
    ],
)
def test_each_state_has_one_meaning(number: int, reason: int, state: State, *, runs: bool) -> None:
    told = State.told(number, reason)
    assert told is state
    assert told.runs is runs
    assert told.lives is (state is not State.OFF)


def test_libvirt_tells_little_of_a_guest_whose_memory_is_still_coming() -> None:
    busy = {each for each in State if each.busy}
    assert busy == {State.ARRIVING, State.RUNNING_IN_POSTCOPY, State.RUNNING_IN_LOST_POSTCOPY}


@pytest.mark.parametrize(
    ("kind", "detail", "word"),
    [
        (2, 1, "started"),
        (3, 0, "paused"),
        (3, 1, "handed-over"),
        (3, 7, "postcopy"),
        (3, 8, "lost-postcopy"),
        (4, 1, "resumed"),
        (5, 3, "left"),
        (5, 5, "stopped"),
        (0, 0, "other"),
    ],
)
def test_each_event_has_one_meaning(kind: int, detail: int, word: str) -> None:
    assert Happening.lifecycle(kind, detail).kind == word


def test_only_zero_pages_have_the_mark_zero() -> None:
    page = bytes(PAGE - 1) + b"x"
    marks = marks_of(bytes(PAGE) + page + page)
    assert marks[:8] == bytes(8)
    assert marks[8:16] == marks[16:24] != bytes(8)


def test_pages_beyond_the_gap_lie_above_4_gib() -> None:
    gap = gap_below_4_gib(4 * GIB)
    assert gap == 2 * GIB
    assert address(0, gap) == 0
    assert address(2 * GIB // PAGE, gap) == 4 * GIB
    assert gap_below_4_gib(512 * MIB) == 512 * MIB


@given(st.integers(0, 10_000), st.integers(1, 1 << 20))
def test_a_count_never_exceeds_the_guest(rate: int, pages: int) -> None:
    found = counted(1.0, rate, pages)
    assert 0 <= found.pages <= pages
    assert found.error > 0

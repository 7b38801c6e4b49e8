"""Past copies teach the next one, a little each, and nothing that they cannot know."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.records import SURVEY, copied
from whimbrel.model.outcome import Ending
from whimbrel.model.record import MoveRecord
from whimbrel.theory.copy_pace import TELLING, copy_pace, pace_of
from whimbrel.theory.corrections import DOUBT, WIDEST

LINK = SURVEY.link
ratios = st.floats(0.05, 20.0)
times = st.floats(TELLING, 1e5)


def learnt(
    records: Sequence[MoveRecord], *, before: float = math.inf, believed: float = 1
) -> float:
    return copy_pace(records, "a", "b", LINK, before=before, believed=believed)


@given(believed=ratios)
def test_without_past_copies_that_is_taken_which_is_believed(believed: float) -> None:
    assert learnt([], believed=believed) == pytest.approx(believed)


@given(st.lists(st.tuples(times, ratios), max_size=12), ratios)
def test_what_is_learnt_lies_among_what_was_seen_and_what_is_believed(
    past: list[tuple[float, float]], believed: float
) -> None:
    records = [copied(took * ratio, took) for took, ratio in past]
    seen = [factor for each in records if (factor := pace_of(each)) is not None]
    found = learnt(records, believed=believed)
    assert min([*seen, believed]) * (1 - 1e-9) <= found <= max([*seen, believed]) * (1 + 1e-9)
    assert learnt(records[::-1], believed=believed) == pytest.approx(found)


@given(ratios, times)
def test_as_many_copies_as_are_doubted_and_more_are_believed(ratio: float, took: float) -> None:
    records = [copied(took * ratio, took)] * (2 * DOUBT + 1)
    assert learnt(records) == pytest.approx(min(max(ratio, 1 / WIDEST), WIDEST))
    # One alone is never believed.
    assert abs(math.log(learnt(records[:1]))) <= abs(math.log(ratio)) / 2 + 1e-9


@given(st.floats(0.2, 5.0), st.integers(6, 20))
def test_corrections_never_build_on_corrections(truth: float, moves: int) -> None:
    """Each copy is said with what the earlier ones taught; none of that is counted twice."""
    took = 10.0
    records: list[MoveRecord] = []
    for number in range(moves):
        pace = learnt(records)
        said = took * truth / pace  # at the surveyed goodput alone it would be took * truth
        records.append(copied(said, took, at=1000.0 + number, pace=pace))
    assert [pace_of(each) for each in records] == pytest.approx([truth] * moves)
    assert learnt(records) == pytest.approx(truth)


@given(st.lists(st.tuples(ratios, st.floats(0, 2000)), max_size=8), st.floats(0, 2000))
def test_no_move_learns_from_what_was_not_over(
    past: list[tuple[float, float]], before: float
) -> None:
    records = [copied(10 * ratio, 10, at=at) for ratio, at in past]
    over = [each for each in records if each.ended < before]
    assert learnt(records, before=before) == learnt(over)


def slow(**changes: object) -> list[MoveRecord]:
    record = replace(copied(5.0, 10.0), **changes)  # type: ignore[arg-type]
    return [record] * 9


def test_what_cannot_know_teaches_nothing() -> None:
    assert learnt(slow()) == pytest.approx(0.5)
    strange = replace(SURVEY, link=replace(LINK, goodput={1: LINK.goodput_for(1) * 4}))
    silent: dict[str, list[MoveRecord]] = {
        "a limit": [copied(5.0, 10.0, limited=True)] * 9,
        "its beginning": [copied(TELLING / 4, TELLING / 2)] * 9,
        "nobody told": [copied(5.0, None)] * 9,
        "no disks": slow(copied=None),
        "another link": slow(survey=strange),
        "other hosts": slow(source="c"),
        "no arrival": slow(ending=Ending.FAILED),
    }
    for why, records in silent.items():
        assert learnt(records) == pytest.approx(1.0), why

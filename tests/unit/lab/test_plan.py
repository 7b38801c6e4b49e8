from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from whimbrel.lab.plan import plan
from whimbrel.model.method import Method, Settings
from whimbrel.model.scenario import Scenario

METHODS = st.lists(st.sampled_from(list(Method)), min_size=1, unique=True).map(tuple)


@given(METHODS, st.integers(1, 4), st.booleans())
def test_every_method_runs_as_often_as_asked(
    methods: tuple[Method, ...], repeats: int, hints: bool
) -> None:
    settings = Settings(free_page_hints=hints)
    moves = plan(Scenario(methods=methods, repeats=repeats, settings=settings))
    asked = [(method, repeat) for method in methods for repeat in range(1, repeats + 1)]
    assert sorted((move.method, move.repeat) for move in moves) == sorted(asked)
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))


@given(METHODS, st.integers(1, 3))
def test_a_guest_is_booted_anew_once_at_most(methods: tuple[Method, ...], repeats: int) -> None:
    moves = plan(Scenario(methods=methods, repeats=repeats))
    hints = [move.tuning.free_page_hints for move in moves]
    assert hints == sorted(hints)


def test_repeats_go_round_all_methods() -> None:
    settings = Settings(free_page_hints=False)
    scenario = Scenario(methods=(Method.TCP, Method.MULTICHANNEL), repeats=2, settings=settings)
    order = [(move.method, move.repeat) for move in plan(scenario)]
    assert order == [
        (Method.TCP, 1),
        (Method.MULTICHANNEL, 1),
        (Method.TCP, 2),
        (Method.MULTICHANNEL, 2),
    ]


def test_without_hints_one_guest_serves_all() -> None:
    scenario = replace(Scenario(), settings=Settings(free_page_hints=False))
    assert not any(move.tuning.free_page_hints for move in plan(scenario))

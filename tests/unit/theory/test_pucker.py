from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.theory.guests import KVM, lcg_guest
from whimbrel.errors import ConfigError
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.theory.pucker import Risk, exposed_seconds, headroom_left, meaning, pucker
from whimbrel.theory.simulate import simulate

WELL = Risk(not_completing=0.0, exposed=0.0, downtime=0.4, tolerance=1.0, headroom=0.3)

risks = st.builds(
    Risk,
    not_completing=st.floats(0, 1),
    exposed=st.floats(0, 1e6),
    downtime=st.floats(0, 1e4),
    tolerance=st.floats(1e-3, 1e3),
    headroom=st.floats(-10, 1),
)
WORSE = {
    "completion": lambda risk, by: replace(risk, not_completing=min(1, risk.not_completing + by)),
    "exposure": lambda risk, by: replace(risk, exposed=risk.exposed + by),
    "downtime": lambda risk, by: replace(risk, downtime=risk.downtime + by),
    "headroom": lambda risk, by: replace(risk, headroom=risk.headroom - by),
}


def test_it_is_zero_when_all_is_well() -> None:
    assert pucker(WELL).figure == 0
    assert meaning(0) == "nobody notices"


@given(risks)
def test_the_terms_sum_to_the_figure_and_none_is_negative(risk: Risk) -> None:
    found = pucker(risk)
    assert [term.name for term in found.terms] == list(WORSE)
    assert all(term.value >= 0 and term.sentence.endswith(".") for term in found.terms)
    assert found.figure == pytest.approx(sum(term.value for term in found.terms))


@pytest.mark.parametrize("cause", WORSE)
@given(risk=risks, by=st.floats(0, 100))
def test_each_term_rises_with_its_cause_and_no_other(cause: str, risk: Risk, by: float) -> None:
    before = {term.name: term.value for term in pucker(risk).terms}
    after = {term.name: term.value for term in pucker(WORSE[cause](risk, by)).terms}
    assert after.pop(cause) >= before.pop(cause)
    assert after == before


@given(risk=risks, factor=st.floats(1, 100))
def test_clients_that_tolerate_more_never_raise_it(risk: Risk, factor: float) -> None:
    patient = replace(risk, tolerance=risk.tolerance * factor)
    assert pucker(patient).figure <= pucker(risk).figure


@pytest.mark.parametrize(
    ("risk", "figure"),
    [
        (replace(WELL, not_completing=0.1), 2),
        (replace(WELL, not_completing=0.5), 10),
        (replace(WELL, exposed=60), 5),
        (replace(WELL, exposed=660), 10),
        (replace(WELL, downtime=1.0), 5),
        (replace(WELL, downtime=1.5), 10),
        (replace(WELL, headroom=0.0), 5),
        (replace(WELL, headroom=-0.1), 10),
    ],
)
def test_the_marks_of_the_scale_are_where_the_page_puts_them(risk: Risk, figure: float) -> None:
    assert pucker(risk).figure == pytest.approx(figure)


def test_the_scale_says_what_it_means() -> None:
    said = [meaning(figure) for figure in (0, 5, 10, 10.1)]
    assert said == ["nobody notices", "tell the users", "do it at night", "don't"]


def test_only_post_copy_passes_the_point_of_no_return() -> None:
    survey = lcg_guest(400_000, link=2e8)
    for method, exposed in ((Method.TCP, False), (Method.POSTCOPY, True)):
        course = simulate(survey, tuning_for(method, Settings()), KVM)
        assert (exposed_seconds(course) > 0) is exposed
        assert exposed_seconds(course) < course.total_time


def test_headroom_is_what_is_left_of_the_host() -> None:
    assert headroom_left(free=30, needed=20, total=100) == pytest.approx(0.1)
    assert headroom_left(free=10, needed=20, total=100) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"not_completing": 1.1},
        {"not_completing": float("nan")},
        {"exposed": -1.0},
        {"downtime": float("nan")},
        {"tolerance": 0.0},
        {"headroom": 2.0},
    ],
)
def test_facts_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        pucker(replace(WELL, **change))


def test_what_is_not_known_to_end_is_past_the_scale() -> None:
    assert pucker(replace(WELL, downtime=float("inf"))).figure > 10

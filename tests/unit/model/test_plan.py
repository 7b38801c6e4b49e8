from dataclasses import replace

import pytest

from whimbrel.model.method import Method, Tuning
from whimbrel.model.plan import (
    Candidate,
    Certificate,
    Forecast,
    Plan,
    Pucker,
    PuckerTerm,
    Rung,
    Step,
    Wish,
)
from whimbrel.model.prediction import Interval, Prediction, Verdict, verdict_for

NONE = Interval(0.0, 0.0, 0.0)
SURE = Rung(Step.POSTCOPY, Tuning(), None, 5.0, 1.0, 20.0, 0.1, guaranteed=True, reason="sure")
UNSURE = replace(SURE, step=Step.PRECOPY, guaranteed=False)


def forecast(probability: float) -> Forecast:
    tuning, verdict = Tuning(), verdict_for(probability)
    nine = (NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE)
    prediction = Prediction(tuning, 60.0, probability, verdict, *nine)
    return Forecast(Candidate(Method.TCP, tuning), prediction)


def plan(probability: float, *rungs: Rung) -> Plan:
    certificate = Certificate(rungs, ()) if rungs else None
    return Plan(Wish(60.0, 1.0), (forecast(probability),), (), certificate)


def test_a_plan_without_a_guaranteed_rung_is_not_go() -> None:
    assert plan(1.0, UNSURE, SURE).verdict is Verdict.GO
    assert plan(1.0, UNSURE).verdict is Verdict.BORDERLINE
    assert plan(1.0).verdict is Verdict.BORDERLINE


def test_a_guarantee_makes_no_prediction_better() -> None:
    assert plan(0.7, SURE).verdict is Verdict.BORDERLINE
    assert plan(0.2, SURE).verdict is Verdict.REFUSE


def test_a_plan_of_nothing_is_refused() -> None:
    empty = Plan(Wish(60.0, 1.0), (), ())
    assert empty.chosen is None
    assert empty.completion_probability == 0
    assert empty.verdict is Verdict.REFUSE


@pytest.mark.parametrize("figure", [0.0, 5.0, 100.0])
def test_the_pucker_factor_decides_nothing(figure: float) -> None:
    risky = replace(plan(1.0, SURE), pucker=Pucker((PuckerTerm("downtime", figure, "."),)))
    assert risky.verdict is plan(1.0, SURE).verdict
    assert risky.chosen == plan(1.0, SURE).chosen


def test_the_first_guaranteed_rung_is_the_guarantee() -> None:
    later = replace(SURE, latest=9.0)
    assert Certificate((UNSURE, SURE, later), ()).guarantee is SURE
    assert Certificate((UNSURE,), ()).guarantee is None
    assert Certificate((UNSURE, later), ()).tuning is later.tuning


def test_a_move_is_begun_with_what_the_last_rung_needs_that_it_can_climb_on_its_way() -> None:
    ready, second = Tuning(downtime_limit=0.1), Tuning(downtime_limit=0.2)
    last = replace(SURE, tuning=ready)
    anew = replace(SURE, step=Step.ANEW, tuning=second)
    assert Certificate((UNSURE, last, anew), ()).tuning is ready
    assert Certificate((UNSURE, last, anew), ()).anew is second
    assert Certificate((UNSURE, last), ()).anew is None

import json

import numpy as np
import pytest

from unit.theory.situations import BUSY, FRANTIC, WISH, situation
from whimbrel.errors import ConfigError
from whimbrel.model.check import failed, passed, warned
from whimbrel.model.method import Method, Settings
from whimbrel.model.plan import Plan
from whimbrel.model.prediction import Verdict
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.report.document import json_text
from whimbrel.report.plan import (
    PLAN_SCHEMA,
    Planned,
    candidate_rows,
    check_rows,
    plan_document,
    saved_plan,
)
from whimbrel.theory.planning import plan_move

FINE = passed("migration address", "10.0.0.2 answers")
ODD = warned("clock", "the hosts' clocks differ by 2 s", "chronyc makestep")
BAD = failed("name", "there is a VM of that name at the destination", "whimbrel down db --on b")
KEYS = {
    "schema",
    "vm",
    "source",
    "destination",
    "verdict",
    "completion_probability",
    "pucker",
    "chosen",
    "candidates",
    "checks",
    "certificate",
    "survey",
}
"""What the issue of the plan promises its readers."""


def made(method: Method | None = None, *, frantic: bool = False) -> Plan:
    of = situation(FRANTIC if frantic else BUSY)
    return plan_move(of, Settings(), WISH, generator=np.random.default_rng(3), method=method)


def planned(*checks: object, plan: Plan | None = None) -> Planned:
    surveyed = Surveyed(BUSY, Depth.QUICK, 1.0, 0.5)
    return Planned("db", "a", "b", checks or (FINE,), plan or made(), surveyed)  # type: ignore[arg-type]


def test_a_document_holds_everything_that_is_promised_and_json_can_say_it() -> None:
    document = json.loads(json_text(plan_document(planned(FINE, ODD))))
    assert document["schema"] == PLAN_SCHEMA
    assert document.keys() >= KEYS
    assert document["verdict"] == "go"
    assert document["chosen"]["total_time"]["p10"] <= document["chosen"]["total_time"]["p90"]
    assert {each["result"] for each in document["checks"]} == {"pass", "warn"}
    assert any(rung["guaranteed"] for rung in document["certificate"])
    assert any(each["rejected"] for each in document["candidates"])


def test_a_saved_plan_is_the_plan_that_was_saved() -> None:
    said = planned(plan=made(frantic=True))
    assert said.plan is not None
    again = saved_plan(json.loads(json_text(plan_document(said))))
    chosen = said.plan.chosen
    assert chosen is not None
    assert again.tuning == chosen.candidate.tuning
    assert again.method is chosen.candidate.method
    assert again.prediction == chosen.prediction
    assert again.certificate == said.plan.certificate
    assert again.wish == said.plan.wish
    assert (again.vm, again.source, again.destination) == ("db", "a", "b")


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": "whimbrel.lab/1"},
        {"saved": None},
        {"saved": {"method": "tcp"}},
        {"verdict": "perhaps"},
    ],
)
def test_what_is_no_plan_is_refused(damage: dict[str, object]) -> None:
    document = json.loads(json_text(plan_document(planned()))) | damage
    with pytest.raises(ConfigError):
        saved_plan(document)


def test_a_check_that_fails_refuses_whatever_theory_says() -> None:
    assert planned(FINE, ODD).verdict is Verdict.GO
    assert planned(FINE, BAD).verdict is Verdict.REFUSE
    assert Planned("db", "a", "b", (FINE,)).verdict is Verdict.BORDERLINE


def test_failures_stand_first_with_what_mends_them() -> None:
    rows = check_rows((FINE, ODD, BAD))
    assert [row[1] for row in rows] == ["fail", "warn", "pass"]
    assert rows[0][3] == BAD.remedy


def test_the_table_begins_with_what_is_chosen() -> None:
    plan = made()
    rows = candidate_rows(plan, 5)
    assert plan.chosen is not None
    assert rows[0][0].startswith(plan.chosen.candidate.method)
    assert rows[0][-1] == ""
    assert len(rows) <= 5


def test_a_method_that_was_named_is_planned_alone() -> None:
    plan = made(Method.TCP)
    ways = {each.candidate.method for each in plan.ranking}
    ways |= {each.method for each in plan.rejected}
    assert ways == {Method.TCP}
    assert plan.chosen is not None
    assert plan.certificate is not None

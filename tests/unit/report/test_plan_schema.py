"""What plans and moves as JSON promise, held against the published schemas."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from unit.theory.situations import ALL, BUSY, FRANTIC, WISH, situation
from whimbrel.model.check import failed, passed, warned
from whimbrel.model.inventory import Capability
from whimbrel.model.method import Method, Settings, Tuning
from whimbrel.model.migration import (
    Cancel,
    Decision,
    Observation,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    Side,
    StartPostcopy,
)
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plan import Plan, Step, Wish
from whimbrel.model.prediction import Interval, Verdict
from whimbrel.model.storage import CopyMode, DiskCopied, StorageCopied, StoragePrediction
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.model.units import MIB, format_size, format_time
from whimbrel.report.document import json_text
from whimbrel.report.move import MoveSaid, compared_rows, disk_lines, move_document
from whimbrel.report.plan import Planned, plan_document, saved_plan
from whimbrel.theory.planning import plan_move

DOCS = Path(__file__).parents[3] / "docs"
NAMES = ("lab", "plan", "move")
SCHEMAS: dict[str, Any] = {
    name: json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8")) for name in NAMES
}
REGISTRY: Registry[Any] = Registry().with_resources(
    [(f"{name}.schema.json", Resource.from_contents(each)) for name, each in SCHEMAS.items()]
)
CHECKS = (
    passed("migration address", "10.0.0.2 answers"),
    warned("clock", "the hosts' clocks differ by 2 s", "chronyc makestep"),
    failed("name", "there is a VM of that name at the destination", "whimbrel down db --on b"),
)
SPREAD = Interval(1.0, 2.0, 3.0)
DISKS = StoragePrediction(CopyMode.BACKGROUND, "", 1.0, SPREAD, SPREAD, SPREAD, SPREAD)
COPIED = StorageCopied(
    (
        DiskCopied("vda", "/a/vda", "/b/vda", 200 * MIB, 4.0, note="/a/vda on a was removed."),
        DiskCopied("vdb", "/a/vdb", "/b/vdb", 100 * MIB, 2.0, writes_waited=True),
    ),
    DISKS,
)

Change = Callable[[dict[str, Any]], object]


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[name], registry=REGISTRY)


@cache
def made(wish: Wish = WISH, common: frozenset[Capability] = ALL, *, frantic: bool = False) -> Plan:
    of = situation(FRANTIC if frantic else BUSY, common)
    return plan_move(of, Settings(), wish, generator=np.random.default_rng(3))


def planned(plan: Plan | None, **more: Any) -> Planned:
    surveyed = None if plan is None else Surveyed(BUSY, Depth.QUICK, 1.0, 0.5)
    return Planned("db", "a", "b", CHECKS, plan, surveyed, **more)


def moved(**of_outcome: Any) -> MoveSaid:
    phases = (PhaseChange(Phase.PRECOPY, 0.1), PhaseChange(Phase.COMPLETED, 2.0))
    seen = Observation(1.0, Phase.PRECOPY, 10, 20, 30, 1e6, 0.1, 2, 0.2)
    outcome = Outcome(
        Ending.COMPLETED,
        "",
        Side.DESTINATION,
        wall_time=2.1,
        arrival_time=2.05,
        preparation_time=0.1,
        total_time=1.9,
        hypervisor_bytes=1000,
        phases=phases,
        observations=(seen,),
        decisions=(Decision(SetDowntimeLimit(0.5), "it stalls", 1.0),),
    )
    prediction = made().ranking[0].prediction
    return MoveSaid("db", "a", "b", Tuning(), replace(outcome, **of_outcome), 1, prediction, CHECKS)


def read(document: dict[str, object]) -> dict[str, Any]:
    """What a reader of the file would see."""
    told: dict[str, Any] = json.loads(json_text(document))
    return told


IMPOSSIBLE = replace(WISH, total_time=0.2, downtime=0.001, postcopy=False)


def test_a_plan_that_was_kept_keeps_what_was_said_of_disks() -> None:
    said = replace(DISKS, pace=0.8)
    assert saved_plan(read(plan_document(planned(made(), storage=said)))).storage == said
    assert saved_plan(read(plan_document(planned(made())))).storage is None


def test_a_guest_that_is_lost_is_told_from_one_whose_place_is_not_known() -> None:
    unknown = moved(ending=Ending.FAILED, runs_on=None)
    for said in (unknown, replace(unknown, over=True)):
        document = read(move_document(said))
        assert document["runs_on"] is None
        assert document["runs_nowhere"] is said.over


def test_a_move_with_disks_tells_of_each_and_what_was_said_beside_what_was_seen() -> None:
    said = replace(moved(), copied=COPIED)
    told = read(move_document(said))["storage"]
    assert (told["time"], told["bytes"]) == (4.0, 300 * MIB)
    assert told["predicted"]["time"]["p50"] == SPREAD.p50
    assert [each["rate"] for each in told["disks"]] == [50 * MIB, 50 * MIB]
    rows = {row[0]: row for row in compared_rows(said)}
    assert rows["disks"][2] == format_time(4.0)
    assert rows["copied"][2] == format_size(300 * MIB)
    first, second = disk_lines(COPIED)
    assert first.startswith("disk vda: 200 MiB in ")
    assert "50 MiB/s" in first
    assert first.endswith("/a/vda on a was removed.")
    assert "writes had to wait" in second
    assert "disks" not in {row[0] for row in compared_rows(moved())}


@pytest.mark.parametrize("name", NAMES)
def test_each_schema_is_itself_valid(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(
    "said",
    [
        lambda: planned(made()),
        lambda: planned(made(frantic=True), storage=DISKS),
        lambda: planned(made(IMPOSSIBLE, frantic=True)),
        lambda: planned(made(common=frozenset())),
        lambda: planned(None),
    ],
    ids=["busy", "frantic, with disks", "refused", "nothing can be done", "not surveyed"],
)
def test_plans_follow_their_schema(said: Callable[[], Planned]) -> None:
    validator("plan").validate(read(plan_document(said())))


@pytest.mark.parametrize(
    "said",
    [
        moved(),
        replace(moved(), prediction=None, missed=("It was late.",), number=7),
        moved(ending=Ending.FAILED, reason="the link", runs_on=None, arrival_time=None),
        MoveSaid("db", "a", "b", Tuning(), Outcome(Ending.TIMEOUT, "late", Side.SOURCE)),
        moved(decisions=(Decision(Cancel(), "x", 1.0), Decision(StartPostcopy(), "y", 1.0))),
        replace(moved(), copied=COPIED),
        replace(moved(), copied=StorageCopied((DiskCopied("vda", "/a", "/b"),))),
        replace(moved(ending=Ending.FAILED, runs_on=None), over=True),
    ],
)
def test_moves_follow_their_schema(said: MoveSaid) -> None:
    validator("move").validate(read(move_document(said)))


WRONG: dict[str, tuple[str, Change]] = {
    "another schema": ("plan", lambda d: d.update(schema="whimbrel.plan/2")),
    "a key nobody knows": ("plan", lambda d: d.update(more=1)),
    "a missing verdict": ("plan", lambda d: d.pop("verdict")),
    "a verdict nobody knows": ("plan", lambda d: d.update(verdict="perhaps")),
    "a check without a remedy": ("plan", lambda d: d["checks"][2].update(remedy="")),
    "a candidate without a method": ("plan", lambda d: d["candidates"][0].pop("method")),
    "a negative time": ("move", lambda d: d["observed"].update(total_time=-1.0)),
    "a place nobody knows": ("move", lambda d: d.update(runs_on="elsewhere")),
    "a move that does not say whether it lost its guest": ("move", lambda d: d.pop("runs_nowhere")),
    "an ending nobody knows": ("move", lambda d: d.update(ending="perhaps")),
}


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_rejected(name: str, change: Change) -> None:
    told = read(plan_document(planned(made())) if name == "plan" else move_document(moved()))
    change(told)
    assert not validator(name).is_valid(told)


def test_every_word_of_the_model_is_in_the_schemas() -> None:
    plan = SCHEMAS["plan"]["$defs"]
    assert set(plan["verdict"]["enum"]) == set(Verdict)
    assert set(plan["rung"]["properties"]["step"]["enum"]) == set(Step)
    assert set(plan["storage"]["properties"]) == {f.name for f in fields(StoragePrediction)}
    assert set(plan["storage"]["properties"]["mode"]["enum"]) == set(CopyMode)
    assert set(plan["survey"]["properties"]["depth"]["enum"]) == set(Depth)
    assert set(SCHEMAS["lab"]["$defs"]["method"]["enum"]) == set(Method)

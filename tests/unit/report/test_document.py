"""What lab.json and series.json promise, held against the published schema."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from unit.report.samples import completed, every_method, failed, result, timed_out
from whimbrel.model.method import Method, Settings, Tuning
from whimbrel.model.migration import Cancel, Decision, SetBandwidthLimit
from whimbrel.model.plan import Goal
from whimbrel.model.scenario import (
    AutoSpec,
    Chosen,
    GuestCheck,
    LabResult,
    LinkSpec,
    Load,
    Measure,
    Observed,
    Run,
    Scenario,
    ScenarioResult,
)
from whimbrel.report.document import (
    UNITS,
    json_text,
    lab_document,
    scenario_document,
    series_document,
)

ROOT = Path(__file__).parents[3]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/lab.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

Change = Callable[[dict[str, Any]], object]


def document(of: LabResult) -> dict[str, Any]:
    """What a reader of the file would see."""
    read: dict[str, Any] = json.loads(json_text(lab_document(of)))
    return read


def test_the_schema_is_itself_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("of", [result(), every_method(2), LabResult(result().machine, ())])
def test_documents_follow_the_schema(of: LabResult) -> None:
    VALIDATOR.validate(document(of))


seconds = st.none() | st.floats(0, 1e6)
count = st.none() | st.integers(0, 2**50)


def observations() -> st.SearchStrategy[Observed]:
    by_class = st.dictionaries(st.text(max_size=8), st.floats(0, 1e6), max_size=3)
    whole = {"wire_bytes", "qemu_bytes", "passes"}
    figures: dict[str, st.SearchStrategy[Any]] = {
        f.name: count if f.name in whole else seconds for f in fields(Observed)
    }
    figures |= {"source_cpu_by_class": by_class, "destination_cpu_by_class": by_class}
    figures["throttle_max"] = st.none() | st.floats(0, 1)
    return st.builds(Observed, **figures)


def runs() -> st.SearchStrategy[Run]:
    samples = st.sampled_from(
        [
            completed(Method.TCP),
            completed(Method.POSTCOPY),
            failed(Method.XBZRLE),
            timed_out(Method.AUTO_CONVERGE),
        ]
    )
    guests = st.none() | st.builds(GuestCheck, st.booleans(), st.integers(0, 2**30))
    return st.builds(
        lambda run, seen, guest, reason: replace(run, observed=seen, guest=guest, reason=reason),
        samples,
        observations(),
        guests,
        st.text(max_size=20),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(runs(), max_size=4))
def test_any_measured_figures_follow_the_schema(some: list[Run]) -> None:
    of = LabResult(result().machine, (ScenarioResult(Scenario(), tuple(some)),))
    VALIDATOR.validate(document(of))


def at(read: dict[str, Any], *path: str | int) -> Any:
    place: Any = read
    for step in path:
        place = place[step]
    return place


RUN = ("scenarios", 0, "runs", 0)
WRONG: dict[str, Change] = {
    "another schema": lambda d: d.update(schema="whimbrel.lab/2"),
    "an unknown ending": lambda d: at(d, *RUN).update(ending="succeeded"),
    "an unknown method": lambda d: at(d, *RUN).update(method="teleport"),
    "a missing figure": lambda d: at(d, *RUN, "observed").pop("wall_time"),
    "a negative time": lambda d: at(d, *RUN, "observed").update(wall_time=-1),
    "a time as text": lambda d: at(d, *RUN, "observed").update(wall_time="34 s"),
    "half a byte": lambda d: at(d, *RUN, "observed").update(wire_bytes=0.5),
    "too much throttling": lambda d: at(d, *RUN, "observed").update(throttle_max=1.5),
    "an invented prediction": lambda d: at(d, *RUN).update(predicted=3),
    "an unknown key": lambda d: d.update(extra=1),
    "no reason for not being available": lambda d: at(d, "scenarios", 0, "runs", -1).update(
        reason=""
    ),
    "a text as a guest's word": lambda d: at(d, *RUN, "guest").update(intact="yes"),
    "an unknown action": lambda d: at(d, *RUN, "decisions", 0).update(action={"kind": "pray"}),
    "tracks": lambda d: at(d, *RUN).update(tracks=[]),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_the_schema_rejects_what_is_wrong(change: Change) -> None:
    read = document(result())
    change(read)
    assert not VALIDATOR.is_valid(read)


def test_every_field_of_the_model_is_in_the_schema() -> None:
    definitions = SCHEMA["$defs"]
    for name, model in {"observed": Observed, "tuning": Tuning}.items():
        assert set(definitions[name]["properties"]) == {f.name for f in fields(model)}
    auto = definitions["scenario"]["properties"]["auto"]
    assert set(auto["properties"]) == {f.name for f in fields(AutoSpec)}
    assert set(auto["properties"]["goal"]["enum"]) == set(Goal)
    chosen = definitions["run"]["properties"]["chosen"]["anyOf"][0]
    assert set(chosen["properties"]) == {f.name for f in fields(Chosen)}
    missing = {f.name for f in fields(Run)} - set(definitions["run"]["properties"])
    assert missing == {"tracks", "pucker"}  # series.json has the one, predicted the other
    assert set(definitions["method"]["enum"]) == set(Method)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_no_field_of_a_scenario_is_lost() -> None:
    written = scenario_document(Scenario())
    lost = {f.name for f in fields(Scenario)} - set(written)
    assert lost == {"settings"}
    settings_lost = {f.name for f in fields(Settings)} - set(written)
    # Written as prepare_memory and prepare_threads; no lab has an RDMA device to pin for, and the
    # kernel copies whatever goes through the lab's links.
    assert settings_lost == {"prepared_memory", "pin_all", "zero_copy"}
    assert isinstance(written["link"], dict)
    assert isinstance(written["guest"], dict)
    assert set(written["link"]) == {f.name for f in fields(LinkSpec)}
    assert set(written["guest"]["redline"]) == {f.name for f in fields(Load)}


def test_a_number_that_is_none_becomes_null() -> None:
    run = replace(
        completed(Method.TCP), observed=Observed(wall_time=float("nan"), longest_gap=float("inf"))
    )
    seen = at(document(LabResult(result().machine, (ScenarioResult(Scenario(), (run,)),))), *RUN)
    assert seen["observed"]["wall_time"] is None
    assert seen["observed"]["longest_gap"] is None


def test_any_mapping_and_any_path_has_a_json_form() -> None:
    seen = Observed(source_cpu_by_class=MappingProxyType({"vcpu": 1.5}))
    run = replace(completed(Method.TCP), observed=seen)
    scenario = replace(Scenario(), kernel=PurePosixPath("/boot/vmlinuz"))  # type: ignore[arg-type]
    read = document(LabResult(result().machine, (ScenarioResult(scenario, (run,)),)))
    assert at(read, *RUN)["observed"]["source_cpu_by_class"] == {"vcpu": 1.5}
    assert read["scenarios"][0]["scenario"]["kernel"] == "/boot/vmlinuz"


def test_actions_are_told_with_their_figures() -> None:
    decided = (Decision(SetBandwidthLimit(None), "no need", 1.0), Decision(Cancel(), "late", 2.0))
    run = replace(completed(Method.TCP), decisions=decided)
    read = document(LabResult(result().machine, (ScenarioResult(Scenario(), (run,)),)))
    actions = [decision["action"] for decision in at(read, *RUN)["decisions"]]
    assert actions == [{"kind": "set-bandwidth-limit", "rate": None}, {"kind": "cancel"}]
    VALIDATOR.validate(read)


def test_series_belong_to_the_runs_of_the_lab_document() -> None:
    of = every_method()
    series: Any = json.loads(json_text(series_document(of)))
    read = document(of)
    assert series["schema"] == "whimbrel.series/1"
    for one, other in zip(series["scenarios"], read["scenarios"], strict=True):
        assert one["name"] == other["scenario"]["name"]
        named = [(run["method"], run["repeat"]) for run in one["runs"]]
        assert named == [(run["method"], run["repeat"]) for run in other["runs"]]


def test_every_track_has_a_unit_and_as_many_times_as_values() -> None:
    assert set(UNITS) == set(Measure)
    series: Any = series_document(result())
    tracks = [t for run in series["scenarios"][0]["runs"] for t in run["tracks"]]
    assert {t["measure"] for t in tracks} == set(Measure)
    assert all(len(t["times"]) == len(t["values"]) > 0 for t in tracks)


def test_every_figure_is_defined_in_the_docs() -> None:
    text = (ROOT / "docs/measures.md").read_text(encoding="utf-8")
    assert [f.name for f in fields(Observed) if f"\n### {f.name}\n" not in text] == []

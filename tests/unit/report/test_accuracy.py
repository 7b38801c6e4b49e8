import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from unit.records import moved
from unit.report.samples import result as sample_result
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Chosen, Observed, Run, Scenario
from whimbrel.report.accuracy import (
    accuracy_html,
    accuracy_markdown,
    assessment_document,
    summary,
    tables,
)
from whimbrel.report.canvas import DARK, LIGHT
from whimbrel.report.document import lab_document
from whimbrel.report.scatter import accuracy_chart
from whimbrel.theory.assessment import Assessment, Case, assess

RECORDS = [moved(), moved(method=Method.POSTCOPY), moved(method=Method.COMPRESSED)]
SCHEMA = json.loads((Path(__file__).resolve().parents[3] / "docs/lab.schema.json").read_text())
PNG = b"\x89PNG"


def assessment(name: str = "idle") -> Assessment:
    def run(method: Method, seconds: float, ending: Ending = Ending.COMPLETED) -> Run:
        chosen = Chosen(Method.TCP, ()) if method is Method.AUTO else None
        seen = Observed(wall_time=seconds, total_time=seconds, wire_bytes=1, downtime_observed=0.1)
        return Run(method, None, 1, ending, observed=seen, chosen=chosen)

    runs = [
        run(Method.AUTO, 2.0),
        run(Method.TCP, 2.0),
        run(Method.TCP, 2.2),
        run(Method.QEMU_DEFAULT, 9.0, Ending.TIMEOUT),
    ]
    cases = [Case(Scenario(name=name), each, None) for each in runs]
    return assess([*cases, *(Case(Scenario(name=name), runs[1], each) for each in RECORDS)])


def test_every_table_has_a_text_for_every_column() -> None:
    for table in tables(assessment()):
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_an_empty_suite_has_tables_all_the_same() -> None:
    found = assess([])
    assert accuracy_markdown(found).startswith("# Theory next to practice")
    assert summary(found) == ("0 moves, 0 of them by tcp, multichannel, compressed, postcopy.",)
    json.dumps(assessment_document(found), allow_nan=False)


def test_the_document_is_json_and_never_holds_a_number_json_cannot_say() -> None:
    said = assessment_document(assessment())
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["regret"] == 1.0
    assert said["speedup"] == 4.5


@pytest.mark.parametrize("found", [assess([]), assessment()])
def test_the_document_of_a_suite_follows_the_published_schema(found: Assessment) -> None:
    document = lab_document(sample_result()) | {"accuracy": assessment_document(found)}
    Draft202012Validator(SCHEMA).validate(document)


def test_what_did_not_complete_is_marked_as_a_lower_bound() -> None:
    choice = tables(assessment())[-1]
    assert choice.rows[0][-1].startswith("> ")


def test_foreign_words_are_escaped_on_the_page() -> None:
    page = accuracy_html(assessment("<b>bold</b> | pipe"))
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "\\| pipe" in accuracy_markdown(assessment("a | pipe"))


def test_the_chart_is_drawn_in_both_themes_and_for_no_move_at_all() -> None:
    light, dark = (accuracy_chart(RECORDS, theme) for theme in (LIGHT, DARK))
    assert light.startswith(PNG)
    assert dark.startswith(PNG)
    assert light != dark
    assert accuracy_chart([], LIGHT).startswith(PNG)

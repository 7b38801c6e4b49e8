"""What a peers suite says, in sentences, tables, JSON and a picture."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from unit.report.samples import MACHINE
from unit.theory.test_peers import guest, run
from whimbrel.lab.peer_suite import PeersResult
from whimbrel.lab.results import peers_lab_document, write_peers
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import LabResult, ScenarioResult
from whimbrel.report.canvas import LIGHT
from whimbrel.report.document import json_text
from whimbrel.report.peer_chart import peers_chart
from whimbrel.report.peers import peer_summary, peer_tables, peers_markdown
from whimbrel.theory.peers import Comparison, Peer, compare

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[3] / "docs" / "lab.schema.json").read_text(encoding="utf-8")
)

PEERS = (
    Peer("whimbrel", "whimbrel", default=False, description="auto", source="docs"),
    Peer("fast", "Fast", default=True, description="as it comes", source="fast(1)"),
    Peer("slow", "Slow", default=True, description="slowly", source="slow(1)"),
    Peer("gone", "Gone", default=True, description="not here", source="gone(1)"),
)


def parts() -> tuple[ScenarioResult, ...]:
    missing = replace(run("gone", None, "no libvirtd"), ending=Ending.NOT_AVAILABLE, tuning=None)
    easy = guest("idle", whimbrel=2.0, fast=4.0, slow=9.0)
    hard = guest("never converging", whimbrel=8.0, fast=None, slow=None)
    return (replace(easy, runs=(*easy.runs, missing)), hard)


def found() -> PeersResult:
    return PeersResult(LabResult(MACHINE, parts()), compare(parts(), PEERS))


def said(comparison: Comparison) -> str:
    return " ".join(peer_summary(comparison))


def test_the_summary_tells_the_share_the_rescued_and_whether_the_aim_is_met() -> None:
    text = said(found().comparison)
    assert "0.32 times the time of fast (Fast)" in text
    assert "never slower than any" in text
    assert "never converging: fast, slow" in text
    assert "The aim is met" in text


def test_a_missed_aim_is_said_as_plainly() -> None:
    missed = compare([guest("idle", whimbrel=4.4, fast=4.0)], PEERS)
    assert "never slower than any by more than 10%" in said(missed)
    assert "NOT met" in said(missed)
    lost = compare([guest("idle", whimbrel=None, fast=4.0)], PEERS)
    assert "did NOT complete where others did: idle: fast" in said(lost)


def test_without_a_product_there_is_one_sentence() -> None:
    [only] = peer_summary(compare([], PEERS))
    assert "Nothing to compare" in only


def test_the_table_marks_bounds_and_who_is_missing() -> None:
    standings, guests, who = peer_tables(found().comparison)
    rows = {row[0]: row for row in standings.rows}
    assert rows["fast *"][1:3] == ("1 of 2", "\N{GREATER-THAN OR EQUAL TO}\N{NO-BREAK SPACE}1.00")
    assert rows["gone *"][1] == "not available: no libvirtd"
    assert {row[0]: row[2] for row in guests.rows}["slow *"] == "> 40 s"
    assert len(who.rows) == len(PEERS)
    assert "## Guest by guest" in peers_markdown(found().comparison)


@pytest.mark.parametrize("comparison", [found().comparison, compare([], PEERS)])
def test_the_document_follows_the_published_schema(comparison: Comparison) -> None:
    document: Any = json.loads(
        json_text(peers_lab_document(replace(found(), comparison=comparison)))
    )
    jsonschema.validate(document, SCHEMA)


def test_the_chart_is_drawn_also_of_nothing() -> None:
    for comparison in (found().comparison, compare([], ())):
        assert peers_chart(comparison, LIGHT).startswith(b"\x89PNG")


def test_all_files_are_written(tmp_path: Path) -> None:
    write_peers(tmp_path, found())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"lab.json", "peers.md", "peers.png", "peers-dark.png", "report.html"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Whimbrel beside others" in page
    assert "as it comes" in page

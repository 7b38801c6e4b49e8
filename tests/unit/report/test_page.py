"""The page: whole in one file, and nothing from outside becomes markup."""

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from unit.report.samples import MACHINE, every_method, failed, result, scenario
from whimbrel.model.method import Method, PreparedMemory, Settings, Tuning, tuning_for
from whimbrel.model.scenario import LabResult, ScenarioResult
from whimbrel.report.images import Chart, Image
from whimbrel.report.measures import DEFINITIONS
from whimbrel.report.page import describe_tuning, lab_page
from whimbrel.report.table import COLUMNS

EVIL = "<script>alert('1')</script>\"'&<img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    VOID = frozenset({"meta", "img", "source", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def images() -> Iterator[Image]:
    for number, chart in enumerate(Chart):
        run = 1 if chart is Chart.TIMELINE else None
        yield Image(chart, 0, run, f"x-{number}", EVIL, b"light%d" % number, b"dark%d" % number)


def test_the_page_needs_nothing_from_outside() -> None:
    reader = read(lab_page(result(), images()))
    for tag, attributes in reader.tags:
        assert tag not in {"script", "link", "iframe"}
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in lab_page(result(), ())
    assert "@import" not in lab_page(result(), ())


def test_every_chart_is_there_for_light_and_for_dark() -> None:
    reader = read(lab_page(result(), images()))
    held = [a.get("src") or a.get("srcset") for _, a in reader.tags if "src" in a or "srcset" in a]
    wanted = [png for image in images() for png in (image.dark, image.light)]
    prefix = "data:image/png;base64,"
    assert [base64.b64decode((text or "").removeprefix(prefix)) for text in held] == wanted
    sources = [a for tag, a in reader.tags if tag == "source"]
    assert {a["media"] for a in sources} == {"(prefers-color-scheme: dark)"}


def test_time_lines_are_folded_under_their_run() -> None:
    page = lab_page(result(), images())
    assert re.search(r"<details><summary><b>tcp</b> run 1: completed, 31\.9 s</summary>", page)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_foreign_words_stay_words(words: str) -> None:
    evil = words + EVIL
    run = replace(failed(Method.TCP), reason=evil, source=evil)
    of = replace(scenario((Method.TCP,)), name=evil)
    machine = replace(MACHINE, cpu=evil, command=evil, hypervisor=evil)
    reader = read(lab_page(LabResult(machine, (ScenarioResult(of, (run, run)),)), images()))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not any(name.startswith("on") for _, a in reader.tags for name in a)
    assert "<script>alert('1')</script>" in "".join(reader.text)


def test_the_page_says_result_machine_command_and_definitions() -> None:
    text = "".join(read(lab_page(result(), ())).text)
    facts = (MACHINE.cpu, MACHINE.kernel, MACHINE.hypervisor, MACHINE.whimbrel, MACHINE.command)
    for fact in (*facts, MACHINE.started, "times as fast as QEMU's default", "Finn: TCP/IP 78 s"):
        assert fact in text
    for title, definition in DEFINITIONS:
        assert title in text
        assert definition in text


def test_what_auto_decided_stands_with_its_ladder_and_advice_under_its_run() -> None:
    runs = result().scenarios[0].runs
    auto = next(number for number, run in enumerate(runs) if run.method is Method.AUTO)
    line = Image(Chart.TIMELINE, 0, auto, "x", "a chart", b"light", b"dark")
    page = lab_page(result(), [line])
    text = "".join(read(page).text)
    for words in (
        "tcp: 31.2 s, slower",
        "Should it not complete",
        "post-copy: guaranteed, at most 50 s in all <of it>",
        "With post-copy allowed it would be sure to complete.",
    ):
        assert words in text
    assert "&lt;of it&gt;" in page


def test_every_column_of_the_table_is_defined() -> None:
    defined = " ".join(title for title, _ in DEFINITIONS)
    ignored = {"Method", "Note"}
    for column in COLUMNS:
        first = column.title.removesuffix(" source / destination")
        assert column.title in ignored or first in defined


def test_a_method_without_figures_gives_its_reason_across_the_table() -> None:
    page = lab_page(every_method(), ())
    assert re.search(r'<td>rdma</td><td class="why" colspan="\d+">not available: this QEMU', page)


def test_every_setting_of_every_method_is_shown() -> None:
    page = lab_page(every_method(), ())
    table = page[page.index('<table class="settings">') :]
    for name, _ in describe_tuning(Tuning()):
        assert f"<th>{name.replace(chr(39), '&#x27;')}</th>" in table
    assert "zstd:1" in table


def test_settings_say_what_qemu_decides_itself() -> None:
    default = dict(describe_tuning(tuning_for(Method.QEMU_DEFAULT, Settings())))
    assert default["bandwidth limit"] == "QEMU's default"
    tcp = dict(describe_tuning(tuning_for(Method.TCP, Settings(bandwidth_limit=125e6))))
    assert tcp["bandwidth limit"] == "1 Gbit/s"
    assert tcp["channels"] == "one stream"
    prepared = Tuning(prepared_memory=PreparedMemory(3), switchover_bandwidth=125e6)
    told = dict(describe_tuning(prepared))
    assert told["memory prepared by"] == "3 threads"
    assert told["switchover bandwidth"] == "1 Gbit/s"


def test_any_two_tunings_that_differ_are_told_apart() -> None:
    every = {tuning_for(method, Settings()) for method in Method}
    assert len({describe_tuning(tuning) for tuning in every}) == len(every)


def test_nothing_but_the_charts_brings_matplotlib_into_memory() -> None:
    names = "page, table, terminal, document"
    code = f"import sys; from whimbrel.report import {names}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_page_without_runs_or_charts_is_a_page() -> None:
    empty = LabResult(MACHINE, (ScenarioResult(scenario(), ()),))
    assert "No method completed" in lab_page(empty, ())
    assert "What the figures mean" in lab_page(LabResult(MACHINE, ()), ())

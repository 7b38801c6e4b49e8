"""The table: nothing invented, nothing missing, and foreign words stay words."""

import io
from csv import DictReader
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from unit.report.samples import (
    MACHINE,
    completed,
    every_method,
    failed,
    result,
    scenario,
    timed_out,
    unavailable,
)
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import GuestCheck, GuestSpec, LabResult, Load, Run, ScenarioResult
from whimbrel.model.units import GIB
from whimbrel.report.rows import Memory, Row, rows
from whimbrel.report.table import COLUMNS, cells, csv_text, footer, markdown
from whimbrel.report.terminal import WIDE, notes, rich_table
from whimbrel.report.words import describe_link, describe_scenario, headline, references

BOTH = (Method.QEMU_DEFAULT, Method.TCP)


def part(*runs: Run, methods: tuple[Method, ...] = BOTH) -> ScenarioResult:
    return ScenarioResult(scenario(methods), runs)


def taking(method: Method, seconds: float | None, repeat: int = 1) -> Run:
    run = completed(method, repeat)
    return replace(run, observed=replace(run.observed, wall_time=seconds))


def corrupt(run: Run) -> Run:
    return replace(run, guest=GuestCheck(intact=False, pages_checked=7))


def row_of(method: Method, *runs: Run) -> Row:
    return next(row for row in rows(part(*runs)) if row.method is method)


def text_of(row: Row, title: str) -> str:
    return dict(zip((c.title for c in COLUMNS), cells(row), strict=True))[title]


def test_every_method_asked_for_has_a_row_in_its_order() -> None:
    asked = (Method.TCP, Method.QEMU_DEFAULT, Method.RDMA)
    table = rows(part(completed(Method.QEMU_DEFAULT), methods=asked))
    assert [row.method for row in table] == list(asked)
    assert table[0].note == "not run"


def test_a_run_nobody_asked_for_is_shown_all_the_same() -> None:
    table = rows(part(completed(Method.POSTCOPY)))
    assert table[-1].method is Method.POSTCOPY


def test_figures_are_medians_over_completed_runs_only() -> None:
    runs = [taking(Method.TCP, s, i + 1) for i, s in enumerate((9.0, 4.0, 5.0))]
    row = row_of(Method.TCP, *runs, timed_out(Method.TCP, 4))
    assert row.wall_time is not None
    assert (row.wall_time.lowest, row.wall_time.median, row.wall_time.highest) == (4, 5, 9)
    assert (row.completed, row.runs) == (3, 4)
    assert text_of(row, "Time") == "5 s (4 s\N{EN DASH}9 s)"


def test_runs_that_did_not_complete_are_counted_with_their_reasons() -> None:
    row = row_of(Method.TCP, completed(Method.TCP), failed(Method.TCP, 2), failed(Method.TCP, 3))
    assert row.note.startswith("2 of 3 failed: QEMU said:")
    assert row.ending is Ending.COMPLETED


def test_a_reason_shared_by_all_runs_stands_once() -> None:
    row = row_of(Method.TCP, failed(Method.TCP, 1), failed(Method.TCP, 2))
    assert row.note == "failed: QEMU said: Unable to write to socket: Broken pipe | <host b>"


def test_a_method_that_never_completed_has_no_figures() -> None:
    row = row_of(Method.TCP, timed_out(Method.TCP))
    assert row.wall_time is None
    assert row.wire_bytes is None
    assert row.note.startswith("timeout after 2 min: ")
    for title in ("Time", "Speed", "Setup", "Downtime", "On the wire"):
        assert text_of(row, title) == "\N{EN DASH}"


def test_speed_is_relative_to_qemu_default() -> None:
    base, fast = taking(Method.QEMU_DEFAULT, 32.0), taking(Method.TCP, 2.5)
    assert row_of(Method.TCP, base, fast).faster == 12.8


def test_there_is_no_speed_without_the_default() -> None:
    assert row_of(Method.TCP, taking(Method.TCP, 2.0)).faster is None
    assert row_of(Method.TCP, timed_out(Method.QEMU_DEFAULT), completed(Method.TCP)).faster is None


def test_setup_is_known_only_with_both_of_its_parts() -> None:
    run = completed(Method.TCP)
    whole = row_of(Method.TCP, run).setup
    assert whole is not None
    assert run.observed.preparation_time is not None
    assert run.observed.setup_time is not None
    assert whole.median == run.observed.preparation_time + run.observed.setup_time
    half = replace(run, observed=replace(run.observed, setup_time=None))
    assert row_of(Method.TCP, half).setup is None


def test_one_corrupt_run_condemns_the_method() -> None:
    row = row_of(Method.TCP, completed(Method.TCP), corrupt(completed(Method.TCP, 2)))
    assert row.memory is Memory.CORRUPT
    assert row.faster is None


def test_corruption_in_a_failed_run_is_told() -> None:
    assert row_of(Method.TCP, corrupt(timed_out(Method.TCP))).memory is Memory.CORRUPT


def test_memory_is_intact_only_when_every_completed_run_was_checked() -> None:
    checked, unchecked = completed(Method.TCP), replace(completed(Method.TCP, 2), guest=None)
    assert row_of(Method.TCP, checked).memory is Memory.INTACT
    assert row_of(Method.TCP, checked, unchecked).memory is Memory.NOT_CHECKED


def test_the_headline_names_the_fastest_against_the_default() -> None:
    said = headline(part(taking(Method.QEMU_DEFAULT, 32.0), taking(Method.TCP, 2.5)))
    assert said == "tcp was 12.8 times as fast as QEMU's default: 2.5 s instead of 32 s."


def test_the_headline_does_not_praise_corruption() -> None:
    said = headline(part(taking(Method.QEMU_DEFAULT, 32.0), corrupt(taking(Method.TCP, 2.5))))
    assert said.startswith("Memory came through CORRUPT with tcp. ")
    assert "No method was faster than QEMU's default, which took 32 s." in said


def test_the_headline_says_why_the_default_is_missing() -> None:
    said = headline(part(timed_out(Method.QEMU_DEFAULT), taking(Method.TCP, 2.5)))
    assert said.startswith("tcp was the fastest: 2.5 s; QEMU's default: timeout after 2 min")


def test_the_headline_admits_that_nothing_completed() -> None:
    said = headline(part(failed(Method.QEMU_DEFAULT), failed(Method.TCP)))
    assert said == "No method completed with the guest's memory unharmed."


def test_published_times_stand_beside_a_vm_of_their_size_only() -> None:
    of = scenario()
    told = "\n".join(footer(ScenarioResult(of, ()), MACHINE))
    assert "Finn: TCP/IP 78 s, compressed 15 s, RDMA and SMB 3 6.8 s (published, other" in told
    assert "Daisetta Lab: TCP/IP 38 s, compressed about 12 s (published, other" in told
    assert references(replace(of, guest=GuestSpec(memory=2 * GIB, redline=Load()))) == ()


def test_the_footer_says_that_both_hosts_share_the_machine() -> None:
    told = "\n".join(footer(ScenarioResult(scenario(), ()), MACHINE))
    for fact in ("Both hosts share this one machine", MACHINE.cpu, "tcg", "link 1 Gbit/s"):
        assert fact in told


def test_scenarios_are_told_with_their_load_and_link() -> None:
    of = scenario(nics=2)
    assert describe_link(replace(of.link, rate=None, count=1)) == "unlimited"
    assert describe_scenario(of).endswith("link 2 NICs of 1 Gbit/s")
    still = replace(of, guest=GuestSpec(vcpus=2, redline=Load(freed=GIB)))
    assert "2 vCPUs" in describe_scenario(still)
    assert "1 GiB used and freed, nothing rewritten" in describe_scenario(still)


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = table_lines(markdown(every_method(2)))
    assert len(lines) == 2 + len(Method)
    bars = {line.replace("\\|", "").count("|") for line in lines}
    assert bars == {len(COLUMNS) + 1}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_foreign_words_cannot_break_the_markdown_table(reason: str) -> None:
    run = replace(failed(Method.TCP), reason=reason)
    of = LabResult(MACHINE, (part(run, methods=(Method.TCP,)),))
    (line,) = table_lines(markdown(of))[2:]
    assert line.replace("\\\\", "").replace("\\|", "").count("|") == len(COLUMNS) + 1


def test_csv_has_plain_figures_and_one_line_per_method() -> None:
    lines = list(DictReader(io.StringIO(csv_text(every_method(3)))))
    assert [line["method"] for line in lines] == [method.value for method in Method]
    tcp = lines[1]
    assert float(tcp["wall_time_min"]) < float(tcp["wall_time"]) < float(tcp["wall_time_max"])
    assert tcp["memory"] == "intact"
    missing = next(line for line in lines if line["method"] == "rdma")
    assert missing["wall_time"] == missing["wire_bytes"] == ""
    assert missing["ending"] == "not-available"


def test_csv_keeps_commas_and_line_breaks_inside_their_cell() -> None:
    run = replace(failed(Method.TCP), reason='a, "b"\nc')
    of = LabResult(MACHINE, (part(run, methods=(Method.TCP,)),))
    (line,) = DictReader(io.StringIO(csv_text(of)))
    assert line["note"] == 'failed: a, "b"\nc'


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(rich_table(every_method().scenarios[0], width))
    return console.export_text()


def test_a_wide_terminal_shows_every_column_and_a_narrow_one_the_vital() -> None:
    assert "Passes" in shown(WIDE)
    assert "Passes" not in shown(WIDE - 1)
    for method in Method:
        assert method.value in shown(100)


def test_markup_in_a_reason_is_not_obeyed_by_the_terminal() -> None:
    run = replace(failed(Method.TCP), reason="[red]x[/red] [/]")
    console = Console(width=2 * WIDE, file=io.StringIO(), record=True)
    console.print(rich_table(part(run), 2 * WIDE))
    assert "failed" in console.export_text()
    assert notes(part(run, methods=(Method.TCP,))) == ("tcp: failed: [red]x[/red] [/]",)


def test_an_interrupted_lab_has_a_table_too() -> None:
    of = result()
    empty = LabResult(of.machine, tuple(replace(p, runs=()) for p in of.scenarios))
    assert markdown(empty).count("not run") == len(of.scenarios[0].scenario.methods)


def test_what_auto_took_and_advised_is_noted() -> None:
    run = completed(Method.AUTO)
    [row] = rows(part(run, methods=(Method.AUTO,)))
    assert row.note == ("took compressed; With post-copy allowed it would be sure to complete")


def test_a_move_that_auto_refused_says_why() -> None:
    run = replace(unavailable(Method.AUTO), reason="refused: tcp completes within 5 s never")
    [row] = rows(part(run, methods=(Method.AUTO,)))
    assert row.note == "not available: refused: tcp completes within 5 s never"
    assert row.completed == 0

"""A plan on a terminal: the verdict first, then the ways there are, the ladder, the checks."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from whimbrel.cli.history import grid
from whimbrel.model.check import Check, Result, obstacles, warnings
from whimbrel.model.plan import Plan
from whimbrel.model.prediction import Verdict
from whimbrel.model.storage import StoragePrediction
from whimbrel.model.units import format_link, format_rate, format_size, format_time
from whimbrel.report.plan import CANDIDATE_COLUMNS, Planned, candidate_rows
from whimbrel.theory.explain import described, ladder

_STYLES = {
    Verdict.GO: "bold green",
    Verdict.BORDERLINE: "bold yellow",
    Verdict.REFUSE: "bold red",
    Result.PASS: "green",
    Result.WARN: "yellow",
    Result.FAIL: "red",
}

WORTH_SAYING = 0.05
"""Terms of the Pucker Factor from which on they are told; below, they print as 0.0."""

SHOWN = 10
"""Ways that the table shows; `--json` has all."""


def show_plan(console: Console, said: Planned, *, everything: bool = False) -> None:
    """Print a plan.

    Args:
        console: Where.
        said: The plan.
        everything: Also the checks that found all in order.
    """
    console.print(_headline(said))
    if said.plan is not None:
        console.print(Group(*_theory(said, said.plan)))
    console.print(Group(*_checks(said.checks, everything=everything)))


def _headline(said: Planned) -> Text:
    line = Text(f"{said.vm}: {said.source} to {said.destination}: ", style="bold")
    line.append(said.verdict.value, style=_STYLES[said.verdict])
    plan = said.plan
    if plan is None or plan.chosen is None:
        return line
    forecast = plan.chosen.prediction
    line.append(f"  {described(plan.chosen.candidate)}: {format_time(plan.chosen.wall_time)}")
    line.append(f", frozen {format_time(forecast.downtime.p50)}")
    line.append(f", completes {plan.completion_probability:.0%}")
    if plan.pucker is not None:
        line.append(f", Pucker Factor {plan.pucker.figure:.1f}")
    return line


def _theory(said: Planned, plan: Plan) -> Iterator[RenderableType]:
    yield _guest(said)
    for sentence in said.surveyed.assumed if said.surveyed else ():
        yield Text(f"  {sentence}", style="yellow")
    if said.storage is not None:
        yield _disks(said.storage)
    table = grid(CANDIDATE_COLUMNS, left=1)
    table.columns[-1].justify = "left"
    rows = candidate_rows(plan, SHOWN)
    for row in rows:
        table.add_row(*map(Text, row), style="dim" if row[-1] else "")
    yield table
    link = said.surveyed.link if said.surveyed else None
    for note in link.notes if link else ():
        yield Text(f"  {note}", style="dim")
    for number, rung in enumerate(ladder(plan.certificate), 1):
        yield Text(f"  rung {number}: {rung}")
    if plan.pucker is not None:
        for term in (each for each in plan.pucker.terms if each.value >= WORTH_SAYING):
            yield Text(f"  pucker {term.value:.1f}: {term.sentence}", style="dim")
    for sentence in plan.advice:
        yield Text(f"  {sentence}", style="cyan")


def _guest(said: Planned) -> Text:
    if said.surveyed is None:
        return Text("  not surveyed", style="dim")
    survey = said.surveyed.survey
    memory = survey.memory
    link = format_link(survey.link.goodput_for(1))
    if said.surveyed.assumed:
        link = f"assumed to carry {link}"
    words = [
        f"{format_size(memory.total)} of memory",
        f"{memory.zero_share:.0%} zero",
        f"written {format_rate(memory.dirty.distinct(1.0) * 4096)}",
        f"link {link}",
        f"surveyed in {format_time(said.surveyed.duration)}",
    ]
    return Text("  " + ", ".join(words), style="dim")


def _disks(storage: StoragePrediction) -> Text:
    time, sent = storage.time, storage.wire_bytes
    words = f"  disks first: {format_time(time.p50)} ({format_time(time.p10)} to "
    words += f"{format_time(time.p90)}), {format_size(sent.p50)} sent; then memory"
    if storage.reason:
        words += f"; its writes will wait for their copies, since {storage.reason}"
    return Text(words)


def _checks(checks: tuple[Check, ...], *, everything: bool) -> Iterator[RenderableType]:
    wrong = (*obstacles(checks), *warnings(checks))
    fine = len(checks) - len(wrong)
    yield Text(f"  {fine} of {len(checks)} checks found everything in order", style="dim")
    shown = checks if everything else wrong
    if not shown:
        return
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
    for check in sorted(shown, key=lambda each: list(Result).index(each.result), reverse=True):
        table.add_row(Text(check.result.value, _STYLES[check.result]), check.name, check.detail)
        if check.remedy:
            table.add_row("", "", Text(f"→ {check.remedy}", style="cyan"))
    yield table

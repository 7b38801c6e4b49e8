"""`whimbrel schedule`: jobs for later, and the unit of the scheduler that carries them out."""

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.text import Text

from whimbrel.cli.exits import EXIT_CODES
from whimbrel.cli.history import grid
from whimbrel.errors import ConfigError
from whimbrel.model.job import Job
from whimbrel.model.moment import parse_moment, parse_span
from whimbrel.model.units import format_time
from whimbrel.report.document import json_text
from whimbrel.report.schedule import (
    JOB_COLUMNS,
    OVERDUE_AFTER,
    TURN_COLUMNS,
    Listed,
    command_text,
    job_cells,
    job_document,
    schedule_document,
    turn_cells,
)
from whimbrel.schedule.clock import check_cron, local_zone, next_due, times_due
from whimbrel.schedule.kept import Jobs
from whimbrel.schedule.service import service
from whimbrel.store import Store

EMPTY = "Nothing is scheduled."
ONLY = "move"
"""The one command that can be scheduled."""

NOBODY = (
    "A job is overdue: no scheduler runs. Start one: whimbrel scheduler, or have systemd do so: "
    "whimbrel schedule install"
)

_WRONG: Any = typer.BadParameter.__mro__[1]  # UsageError, wherever this typer keeps it

schedule = typer.Typer(
    help="Plan moves for later: once, or again and again (docs/schedule.md).",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON (docs/schedule.md).")]
Number = Annotated[int, typer.Argument(help="The job's number.", metavar="JOB", min=1)]


@schedule.command(
    name="add",
    epilog=EXIT_CODES,
    context_settings={"allow_interspersed_args": False},
)
def add(
    ctx: typer.Context,
    *,
    words: Annotated[
        list[str], typer.Argument(help="What to do: move VM --to HOST …", metavar="COMMAND…")
    ],
    at: Annotated[
        str | None, typer.Option(help='Once, at this time: "22:15", "2026-03-29T22:15", "in 2 h".')
    ] = None,
    cron: Annotated[
        str | None, typer.Option(help='Again and again: "30 2 * * sun" is Sundays at 02:30.')
    ] = None,
    within: Annotated[
        str, typer.Option(help="How much later it is still begun, where no scheduler ran in time.")
    ] = "1 h",
    json: Json = False,
) -> None:
    """Plan a move for later. The command is checked now, and carried out by whimbrel scheduler.

    It runs in the folder you stand in, with its whimbrel.toml.
    """
    words = words[1:] if words[0] == "whimbrel" else words
    check_words(ctx, words)
    job = _job(words, at, cron, within)
    with Store.open() as store:
        listed = _listed(Jobs(store), Jobs(store).add(job))
    if json:
        typer.echo(json_text(job_document(listed)), nl=False)
    else:
        when = job_cells(listed, _zone())[2]
        typer.echo(f"Job {listed.job.number}, next {when}: {command_text(words)}")
        typer.echo("It is carried out by whimbrel scheduler, which must run then.", err=True)


@schedule.command(name="list", epilog=EXIT_CODES)
def list_jobs(*, json: Json = False) -> None:
    """List the jobs: when each is due next, and how its last turn ended."""
    with Store.open(create=False) as store:
        jobs = Jobs(store)
        listed = [_listed(jobs, job, 1) for job in jobs.all()]
    if json:
        typer.echo(json_text(schedule_document(listed)), nl=False)
    elif not listed:
        typer.echo(EMPTY, err=True)
    else:
        _print(JOB_COLUMNS, [job_cells(each, _zone()) for each in listed])
    if any(each.overdue is not None for each in listed):
        typer.echo(NOBODY, err=True)


@schedule.command(name="show", epilog=EXIT_CODES)
def show(number: Number, *, json: Json = False) -> None:
    """Show one job and all its turns: carried out, missed, or lost."""
    with Store.open(create=False) as store:
        jobs = Jobs(store)
        listed = _listed(jobs, jobs.get(number))
    if json:
        typer.echo(json_text(job_document(listed)), nl=False)
        return
    job = listed.job
    _print(JOB_COLUMNS, [job_cells(listed, _zone())])
    typer.echo(f"In {job.folder}; begun up to {format_time(job.window)} late; zone {job.zone}.")
    if listed.runs:
        typer.echo()
        _print(TURN_COLUMNS, [turn_cells(run, _zone()) for run in listed.runs])


@schedule.command(name="remove", epilog=EXIT_CODES)
def remove(number: Number, *, json: Json = False) -> None:
    """Forget a job and its turns. A move that is on its way goes on."""
    with Store.open() as store:
        jobs = Jobs(store)
        listed = _listed(jobs, jobs.get(number))
        job = jobs.remove(number)
    if json:
        typer.echo(json_text(job_document(listed)), nl=False)
    else:
        typer.echo(f"Removed job {number}: {command_text(job.words)}")


@schedule.command(name="install", epilog=EXIT_CODES)
def install(
    *,
    system: Annotated[
        bool, typer.Option("--system", help="For the machine (needs root), not for this user.")
    ] = False,
    show_only: Annotated[
        bool, typer.Option("--print", help="Print the unit; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a systemd unit for the scheduler, and print how to enable it. Enables nothing."""
    unit = service(sys.executable, os.environ, Path.home(), system=system)
    if not show_only:
        unit.write()
    if json:
        told = {"path": f"{unit.path}", "text": unit.text, "commands": list(unit.commands)}
        document = {"schema": "whimbrel.unit/1", "written": not show_only, **told}
        typer.echo(json_text(document), nl=False)
    elif show_only:
        typer.echo(unit.text, nl=False)
    else:
        typer.echo(f"Wrote {unit.path}. Nothing runs yet; to have it run:")
        for command in unit.commands:
            typer.echo(f"    {command}")


def check_words(ctx: typer.Context, words: Sequence[str]) -> None:
    """Raise `ConfigError` where the command line itself would not take a command."""
    hint = 'Write what you would type: whimbrel schedule add --at "in 2 h" move VM --to HOST'
    commands: dict[str, Any] = getattr(ctx.find_root().command, "commands", {})
    if words[0] != ONLY or ONLY not in commands:
        raise ConfigError(f'Only moves can be scheduled, not "{words[0]}".', hint)
    try:
        with commands[ONLY].make_context(ONLY, list(words[1:]), parent=ctx.find_root()):
            pass
    except _WRONG as error:
        raise ConfigError(f"This command cannot be run: {error.format_message()}", hint) from error
    except typer.Exit as error:
        raise ConfigError("This command moves nothing.", hint) from error


def _job(words: Sequence[str], at: str | None, cron: str | None, within: str) -> Job:
    if (at is None) == (cron is None):
        raise ConfigError(
            "A job comes once or again and again.", "Give either --at TIME or --cron EXPRESSION."
        )
    zone = local_zone()
    now = datetime.now(UTC)
    moment = None if at is None else parse_moment(at, now, ZoneInfo(zone)).timestamp()
    if cron is not None:
        check_cron(cron, zone)
    return Job(
        words=tuple(words),
        at=moment,
        cron=" ".join((cron or "").split()),
        zone=zone,
        window=parse_span(within),
        folder=f"{Path.cwd()}",
        added=now.timestamp(),
    )


def _listed(jobs: Jobs, job: Job, limit: int = -1) -> Listed:
    now = time.time()
    unsettled = times_due(job, jobs.seen_until(job), now - OVERDUE_AFTER)
    runs = jobs.runs(job.number, limit)
    return Listed(job, next_due(job, now), unsettled[0] if unsettled else None, runs)


def _zone() -> ZoneInfo:
    return ZoneInfo(local_zone())


def _print(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = grid(columns, left=len(columns))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)

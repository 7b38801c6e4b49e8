"""`whimbrel scheduler`: carries out what `whimbrel schedule` has planned."""

import asyncio
import json as writer
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from whimbrel.errors import ConfigError, ExitCode
from whimbrel.model.job import JobRun, RunState
from whimbrel.report.schedule import turn_document, turn_line
from whimbrel.schedule.clock import local_zone
from whimbrel.schedule.command import Launcher, as_whimbrel
from whimbrel.schedule.kept import Jobs
from whimbrel.schedule.scheduler import Scheduler, Told
from whimbrel.store import Store

STOPS = (signal.SIGTERM, signal.SIGINT)


def scheduler(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Carry out what is due now, wait for it, and end.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="When stopped, let moves on their way finish.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one line a turn (docs/schedule.md).")
    ] = False,
) -> None:
    """Carry out scheduled moves at their times, until stopped by Ctrl-C or SIGTERM.

    Then moves on their way are called back, by the rules of Ctrl-C, or finished where they must
    be; it waits for them. With --once the exit code is that of the first turn that did not end
    well; 4 for one that was missed, 5 for one that was lost.
    """
    with Store.open() as store:
        heard = _Heard(json=json)
        code = asyncio.run(_run(Jobs(store), heard, once=once, finish=finish))
    if code:
        raise typer.Exit(code)


@dataclass
class _Heard:
    """Prints what the scheduler tells, and keeps what ended."""

    json: bool
    over: list[JobRun] = field(default_factory=list)

    def told(self, told: Told) -> None:
        if self.json:
            document = turn_document(told.run, told.job)
            typer.echo(writer.dumps(document, ensure_ascii=False))
        else:
            typer.echo(turn_line(told.run, told.job, ZoneInfo(local_zone())))
        if told.run.state is not RunState.RUNNING:
            self.over.append(told.run)

    def complained(self, error: ConfigError) -> None:
        typer.echo(f"{error}", err=True)


async def _run(
    jobs: Jobs, heard: _Heard, *, once: bool, finish: bool, launcher: Launcher = as_whimbrel
) -> int:
    carrying = Scheduler(jobs, told=heard.told, complained=heard.complained, launcher=launcher)
    stopped = asyncio.Event()
    by: list[signal.Signals] = []
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        # Whoever insists is not left waiting for moves that would take their time to finish.
        if by or not finish:
            carrying.interrupt()
        by.append(number)
        stopped.set()

    for number in STOPS:
        loop.add_signal_handler(number, stop, number)
    try:
        if once:
            await carrying.look()
            await carrying.finished()
        else:
            await carrying.run(stopped)
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)
    if by and by[0] is signal.SIGINT:
        return ExitCode.INTERRUPTED
    return exit_code(heard.over) if once else ExitCode.DONE


def exit_code(runs: Sequence[JobRun]) -> int:
    """Return the exit code of the first turn that did not end well; 0 where all did."""
    codes = (_code(run) for run in runs)
    return next((code for code in codes if code), ExitCode.DONE)


def _code(run: JobRun) -> int:
    if run.state is RunState.LOST:
        return ExitCode.PLACE_UNKNOWN
    if run.state is RunState.MISSED or run.code is None:
        return ExitCode.SAFE_AT_SOURCE
    return run.code if run.code > 0 else ExitCode.PLACE_UNKNOWN if run.code else ExitCode.DONE

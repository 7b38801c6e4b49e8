"""`whimbrel plan`: what a move would do, whether to begin it, and everything in its way."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from whimbrel.cli import asked as ask
from whimbrel.cli.journey import begun, planned, remembered
from whimbrel.cli.options import ConfigFile, Json
from whimbrel.cli.plan_view import show_plan
from whimbrel.cli.running import run
from whimbrel.cli.session import opened
from whimbrel.cli.waiting import waiting
from whimbrel.config import Config, load
from whimbrel.errors import ConfigError, ExitCode
from whimbrel.model.prediction import Verdict
from whimbrel.report.document import json_text
from whimbrel.report.plan import Planned, plan_document

Save = Annotated[
    Path | None,
    typer.Option("--save", help="Keep the plan for: whimbrel move --plan FILE", metavar="FILE"),
]
Everything = Annotated[bool, typer.Option("--all", help="Show the checks that are in order too.")]


@ask.asks(to=ask.To, remove_source=None)
def plan(
    asked: ask.Asked,
    *,
    save: Save = None,
    everything: Everything = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Say what a move would do: time, downtime, bytes, and the probability that it completes.

    Checks both hosts, surveys guest, hosts and link, predicts every method, and chooses. Nothing
    is changed on either host, and the guest is not disturbed. Exit code 3 advises against it.
    """
    said = run(_plan(load(config), asked))
    text = json_text(plan_document(said))
    if save is not None:
        _save(save, text)
    if json:
        typer.echo(text, nl=False)
    else:
        show_plan(Console(highlight=False), said, everything=everything)
    if said.verdict is Verdict.REFUSE:
        raise typer.Exit(ExitCode.NO_PLAN)


async def _plan(config: Config, asked: ask.Asked) -> Planned:
    async with opened(config) as session:
        with waiting(f"planning the move of {asked.vm} to {asked.to}"):
            journey = await begun(session, asked)
            past = remembered(journey.source.name, journey.destination.name)
            said, _ = await planned(journey, past=past)
        return said


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The plan cannot be kept in {path}: {error.strerror}.") from error

"""`whimbrel move`: moves a VM's guest to another host, guarded, and says how it went."""

import asyncio
import json as json_module
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from whimbrel.cli import asked as ask
from whimbrel.cli.journey import Journey, begun, checked, planned, remembered
from whimbrel.cli.later import At, Later, WaitAtMost, When, until_still, until_time
from whimbrel.cli.move_choice import Decided, as_saved, decided
from whimbrel.cli.move_screen import MoveScreen, show_move
from whimbrel.cli.move_storage import StorageSaid, moved_disks, show_storage, storage_document
from whimbrel.cli.moving import carried_out
from whimbrel.cli.options import ConfigFile, Json
from whimbrel.cli.recover import insist
from whimbrel.cli.running import run
from whimbrel.cli.session import opened
from whimbrel.cli.ways import take_back
from whimbrel.config import Config, load
from whimbrel.errors import (
    ConfigError,
    ExitCode,
    GuestLost,
    Held,
    HostError,
    MigrationError,
    PlaceUnknown,
)
from whimbrel.model.migration import Phase, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plan import Candidate
from whimbrel.practice.holder import myself
from whimbrel.practice.journal import FileJournal
from whimbrel.practice.marks import Mark, MarkedJournal, held
from whimbrel.practice.repair import Repaired
from whimbrel.practice.settle import CLEAR
from whimbrel.report.document import json_text
from whimbrel.report.move import MoveSaid, move_document
from whimbrel.report.plan import SavedPlan, saved_plan
from whimbrel.theory.explain import described, ladder

PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", help="Carry out a plan that was kept by: whimbrel plan --save", metavar="FILE"
    ),
]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Begin even where the plan advises against it.")
]


INSIST_WITHIN = 60.0
"""Seconds for which hosts that were lost are asked anew where the guest runs."""


@ask.asks()
def move(
    asked: ask.Asked,
    *,
    plan: PlanFile = None,
    anyway: Anyway = False,
    at: At = None,
    when: When = None,
    wait_at_most: WaitAtMost = "2 h",
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Move a VM's guest to another host while it runs, or, without --to, only its disks.

    Checks, surveys and plans as `whimbrel plan` does, or takes a saved plan; begins only what will
    complete; guards the move on its way. Ctrl-C calls it back: the guest goes on where it was,
    unless it has passed the point of no return; then the move is finished.
    """
    later = Later.read(at, when, wait_at_most)
    if not asked.to:
        _tell_disks(run(_move_disks(load(config), asked, later)), json=json)
        return
    saved = None if plan is None else _read(plan)
    said = run(_move(load(config), asked, saved, later, anyway=anyway))
    _tell(said, json=json)
    raise typer.Exit(exit_code(said))


def _tell(said: MoveSaid, *, json: bool) -> None:
    if json:
        typer.echo(json_text(move_document(said)), nl=False)
    else:
        show_move(Console(highlight=False), said)


def _tell_disks(said: StorageSaid, *, json: bool) -> None:
    if json:
        typer.echo(json_text(storage_document(said)), nl=False)
    else:
        show_storage(Console(highlight=False), said)


def exit_code(said: MoveSaid) -> ExitCode:
    """Return how the command ends."""
    outcome = said.outcome
    if outcome.ending is Ending.COMPLETED:
        return ExitCode.GOAL_MISSED if said.missed else ExitCode.DONE
    return ExitCode.SAFE_AT_SOURCE if outcome.runs_on is Side.SOURCE else ExitCode.PLACE_UNKNOWN


async def _move(
    config: Config, asked: ask.Asked, saved: SavedPlan | None, later: Later, *, anyway: bool
) -> MoveSaid:
    screen = MoveScreen(Console(stderr=True, highlight=False))
    asked.check()
    with screen:
        await until_time(later, screen.works)
        try:
            said = await _conducted(config, asked, saved, later, screen, anyway=anyway)
        except MigrationError as error:
            if error.hint == CLEAR and await _anew(config, asked, error.what, screen):
                error.hint = "That was cleared away meanwhile."
            raise
        if (said.outcome.runs_on is None and not said.over) or said.left:
            repaired = await _anew(config, asked, said.outcome.reason, screen)
            return said if repaired is None else mended(said, repaired)
        return said


async def _anew(
    config: Config, asked: ask.Asked, reason: str, screen: MoveScreen
) -> Repaired | None:
    """Recover this move over fresh connections, where its own did not tell how it ended."""
    screen.say(f"  {reason}", "yellow")
    screen.works("asking both hosts anew")
    return await insist(config, asked.vm, INSIST_WITHIN, screen.say)


def mended(said: MoveSaid, repaired: Repaired) -> MoveSaid:
    """Return what is to be said of a move that lost its way to a host and was then recovered."""
    there = repaired.runs_on is Side.DESTINATION
    before, case = said.outcome, repaired.last
    # What was advised before it was found again would only confuse.
    said_before = before.reason.partition(". ")[0]
    advice = case.hint if repaired.runs_on is None else ""
    outcome = replace(
        before,
        ending=Ending.COMPLETED if there else before.ending,
        reason=f"{said_before}; recovered: {case.sentence} {advice}".strip("; "),
        runs_on=repaired.runs_on,
    )
    return replace(said, outcome=outcome, left=(), over=case.over and not repaired.runs_on)


async def _conducted(
    config: Config,
    asked: ask.Asked,
    saved: SavedPlan | None,
    later: Later,
    screen: MoveScreen,
    *,
    anyway: bool,
) -> MoveSaid:
    async with opened(config) as session:
        screen.works(f"finding {asked.vm} and the way to {asked.to}")
        with _nothing_begun(asked.vm):
            journey = await begun(session, asked)
            await take_back(session, (journey.source.name, journey.destination.name), screen.say)
            rate = journey.link.rate
            await until_still(later, journey.machine, rate, screen.works, screen.say)
            how = await _decided(journey, saved, screen, anyway=anyway)
        _announce(journey, how, screen)
        arrived = False
        try:
            async with written(journey) as journal:
                try:
                    return await carried_out(journey, how, screen, journal)
                finally:
                    arrived = journal.arrived
        except asyncio.CancelledError:
            await _where(journey, screen)
            raise
        except Held:
            raise
        except HostError as error:
            if not arrived:
                raise _stayed(journey, error) from error
            return _unknown(journey, how, error.what)
        except PlaceUnknown as error:
            return _unknown(journey, how, error.what, over=isinstance(error, GuestLost))


def _unknown(journey: Journey, how: Decided, reason: str, *, over: bool = False) -> MoveSaid:
    """Return what is to be said of a move that did not tell where the guest runs."""
    return MoveSaid(
        journey.asked.vm,
        journey.source.name,
        journey.destination.name,
        how.tuning,
        Outcome(Ending.FAILED, reason, None),
        over=over,
    )


@contextmanager
def _nothing_begun(vm: str) -> Iterator[None]:
    """Say what holds where a host fails before anything was begun."""
    try:
        yield
    except HostError as error:
        error.what = f"{error.what.rstrip('.')}. Nothing was begun; {vm} goes on as before."
        raise


def _stayed(journey: Journey, error: HostError) -> MigrationError:
    """Return the error of a move that ended before anything was sent."""
    vm, there, why = journey.asked.vm, journey.destination.name, error.what.rstrip(".")
    where = f"It runs on {journey.source.name}."
    return MigrationError(f"The move of {vm} to {there} failed: {why}. {where}", error.hint)


async def _move_disks(config: Config, asked: ask.Asked, later: Later) -> StorageSaid:
    screen = MoveScreen(Console(stderr=True, highlight=False))
    asked.check()
    with screen:
        await until_time(later, screen.works)
        async with opened(config) as session:
            return await moved_disks(session, asked, screen)


@asynccontextmanager
async def written(journey: Journey) -> AsyncIterator[MarkedJournal]:
    """Hold the VM on both hosts, and a journal of its move; raises `Held` where others have it.

    Where no shell leads there is no mark.
    """
    session = journey.session
    names = (journey.asked.vm, journey.source.name, journey.destination.name)
    sites = session.shells(names[1:])  # elsewhere libvirt's own lock is the guard
    with FileJournal.create(*names) as journal:
        async with held(Mark(journal.move, *names, myself()), sites) as marks:
            yield MarkedJournal(journal, marks)


async def _decided(
    journey: Journey, saved: SavedPlan | None, screen: MoveScreen, *, anyway: bool
) -> Decided:
    if saved is not None:
        screen.works("checking both hosts")
        tuning = replace(saved.tuning, encrypted=journey.address.encrypted)
        return as_saved(journey, saved, await checked(journey, tuning), anyway=anyway)
    screen.works("checking both hosts, surveying guest and link")
    past = remembered(journey.source.name, journey.destination.name)
    said, _ = await planned(journey, past=past)
    return decided(journey, said, anyway=anyway)


def _announce(journey: Journey, how: Decided, screen: MoveScreen) -> None:
    way = described(Candidate(how.method, how.tuning))
    screen.say(f"{journey.asked.vm}: {journey.source.name} to {journey.destination.name}, {way}")
    for number, rung in enumerate(ladder(how.certificate), 1):
        screen.say(f"  rung {number}: {rung}")
    screen.say(f"  {journey.ruling.reason}")
    for sentence in how.surveyed.assumed if how.surveyed else ():
        screen.say(f"  {sentence}", "yellow")
    screen.deadline = journey.wish.total_time
    screen.begins(f"{journey.asked.vm} to {journey.destination.name}", how.tuning, how.prediction)


async def _where(journey: Journey, screen: MoveScreen) -> None:
    """Say where the guest runs after an interrupted move."""
    vm, destination = journey.asked.vm, journey.destination.name
    try:
        if await journey.machine.running():
            screen.say(f"Called back: {vm} runs on {journey.source.name}.", "yellow")
            return
        if (await journey.machine.standing()).phase in {Phase.POSTCOPY, Phase.POSTCOPY_PAUSED}:
            screen.say(
                f"The point of no return had passed: {vm} is on {destination}, and a part of its "
                f"memory still on {journey.source.name}. Go on with: whimbrel recover {vm}",
                "yellow",
            )
            return
    except HostError as error:
        screen.lost(error)
    screen.say(
        f"The point of no return had passed: {vm} is on {destination}. See: whimbrel vms", "yellow"
    )


def _read(path: Path) -> SavedPlan:
    try:
        document = json_module.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The plan {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} holds no JSON: {error}.", "Make it: whimbrel plan") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no plan.", "Make it: whimbrel plan --save FILE")
    return saved_plan(document)

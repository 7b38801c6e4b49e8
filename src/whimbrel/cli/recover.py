"""`whimbrel recover`: bring moves to their end whose whimbrel died."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Annotated

import typer

from whimbrel.cli.options import ConfigFile, Json, complete_vms
from whimbrel.cli.running import run
from whimbrel.cli.session import Session, opened
from whimbrel.cli.ways import take_back
from whimbrel.config import Config, load
from whimbrel.errors import ConfigError, ExitCode, Held, HostError
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.definitions import follow_guest
from whimbrel.model.migration import Side
from whimbrel.model.units import parse_time
from whimbrel.practice.cases import Case
from whimbrel.practice.recover import Hosts, Lost, Searched, recover, search
from whimbrel.practice.repair import Repaired
from whimbrel.report.document import json_text

SCHEMA = "whimbrel.recover/1"

PATIENCE = "10 min"


class Gone(StrEnum):
    """A side that a person knows to be off."""

    SOURCE = "source"
    DESTINATION = "destination"


Vm = Annotated[
    str | None,
    typer.Argument(
        help="Only this VM; every move that died otherwise.",
        metavar="[VM]",
        autocompletion=complete_vms,
    ),
]
GoneSide = Annotated[
    list[Gone] | None,
    typer.Option(
        "--gone",
        help="This side is off for good, you have seen to it; believed where it does not answer.",
    ),
]
TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="The whimbrel that conducted it, elsewhere, has ended."),
]
Patience = Annotated[
    str,
    typer.Option(help='How long a post-copy may be without its link, "5 min".', metavar="TIME"),
]


def recovering(
    vm: Vm = None,
    *,
    gone: GoneSide = None,
    take_over: TakeOver = False,
    patience: Patience = PATIENCE,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Bring moves to their end whose whimbrel died, as far as that is safe.

    Both hosts are asked what has become of the guest; the case is told in one sentence, and
    repaired, or it is said what only a person can do. The guest runs once, whatever happens:
    where both hosts may have it, nothing is started.
    """
    if gone and vm is None:
        raise ConfigError("--gone is about one move.", "Name its VM: whimbrel recover VM --gone …")
    sides = frozenset(Side(each.value) for each in gone or ())
    job = _Job(load(config), vm, sides, parse_time(patience), take_over=take_over, quiet=json)
    done = run(job.carry_out())
    if json:
        moves = [_document(lost, repaired) for lost, repaired in done]
        typer.echo(json_text({"schema": SCHEMA, "moves": moves}), nl=False)
    elif not done:
        typer.echo("Nothing to recover.")
    if any(_unknown(repaired) for _, repaired in done):
        raise typer.Exit(ExitCode.PLACE_UNKNOWN)


class _Job:
    """One call of the command."""

    def __init__(
        self,
        config: Config,
        vm: str | None,
        gone: frozenset[Side],
        patience: float,
        *,
        take_over: bool,
        quiet: bool,
    ) -> None:
        self._config = config
        self._vm = vm
        self._gone = gone
        self._patience = patience
        self._take_over = take_over
        self._quiet = quiet
        self.hears: Callable[[str], None] = lambda _: None

    async def carry_out(self) -> list[tuple[Lost, Repaired]]:
        async with opened(self._config) as session:
            sites = session.with_shell()
            found = await search(sites, self._vm)
            self._tell_silent(found)
            self._refuse_conducted(found)
            done = [(lost, await self._recover(session, lost, found)) for lost in found.lost]
            answer = [name for name in sites if name not in found.silent]
            await take_back(session, answer, self._say)
            return done

    async def _recover(self, session: Session, lost: Lost, found: Searched) -> Repaired:
        for name in (lost.source, lost.destination):
            if name not in self._config.hosts:
                raise ConfigError(
                    f"The move of {lost.vm} is from {lost.source} to {lost.destination}, and "
                    f"whimbrel.toml names no host {name}.",
                    f"Describe it there by that name: [hosts.{name}]",
                )
        way = f"{lost.source} to {lost.destination}"
        self._say(f"{lost.vm}, {way}, begun by {lost.holder}:")
        names = (lost.source, lost.destination)
        sites = {name: site for name in names if (site := session.shell(name)) is not None}
        hosts = Hosts(
            session.place(lost.source).hypervisor,
            session.place(lost.destination).hypervisor,
            {name: site for name, site in sites.items() if name not in found.silent},
            bare=frozenset(names) - sites.keys(),
        )
        repaired = await recover(
            lost,
            hosts,
            told=self._told,
            gone=self._gone,
            take_over=self._take_over,
            patience=self._patience,
        )
        self._say(_verdict(lost, repaired))
        await self._define(lost, hosts, repaired)
        return repaired

    async def _define(self, lost: Lost, hosts: Hosts, repaired: Repaired) -> None:
        """Let libvirt remember the VM where it runs; what it refuses is left to a person."""
        left, home = hosts.source, hosts.destination
        arrived = repaired.runs_on is Side.DESTINATION and repaired.last.over
        if not (arrived and isinstance(left, LibvirtHost) and isinstance(home, LibvirtHost)):
            return
        try:
            if said := await follow_guest(lost.vm, left, home):
                self._say(f"  {said}")
        except HostError as error:
            why = f"{lost.vm} may still be defined on {lost.source}: {error.what}"
            self._say(f"  {why} Then: virsh undefine {lost.vm}   # on {lost.source}")

    def _told(self, case: Case) -> None:
        self.hears(case.sentence)
        self._say(f"  {case.sentence}{f' {case.hint}' if case.hint else ''}")

    def _tell_silent(self, found: Searched) -> None:
        for name, why in found.silent.items():
            self._say(f"{name} cannot be asked: {why}")

    def _refuse_conducted(self, found: Searched) -> None:
        for mark in found.conducted:
            if self._vm is not None:
                raise Held(f"{mark}.", f"Look on with: whimbrel watch {mark.vm}")
            self._say(f"{mark}; left alone.")

    def _say(self, words: str) -> None:
        if not self._quiet:
            typer.echo(words)


def _verdict(lost: Lost, repaired: Repaired) -> str:
    names = {Side.SOURCE: lost.source, Side.DESTINATION: lost.destination}
    if repaired.runs_on is not None:
        return f"  {lost.vm} runs on {names[repaired.runs_on]}."
    if repaired.last.over:
        return f"  {lost.vm} runs nowhere."
    return f"  Where {lost.vm} runs is not known, or it does not run."


def _unfinished(repaired: Repaired) -> bool:
    return bool(repaired.left) or (_unknown(repaired) and not repaired.last.over)


def _unknown(repaired: Repaired) -> bool:
    return repaired.runs_on is None


def _document(lost: Lost, repaired: Repaired) -> dict[str, object]:
    return {
        "vm": lost.vm,
        "source": lost.source,
        "destination": lost.destination,
        "holder": str(lost.holder),
        "cases": [
            {"sentence": case.sentence, "repair": case.repair.value, "hint": case.hint}
            for case in repaired.cases
        ],
        "runs_on": repaired.runs_on and repaired.runs_on.value,
        "over": repaired.last.over,
    }


AGAIN = 2.0
"""Seconds until hosts that did not answer are asked again."""


async def insist(
    config: Config, vm: str, within: float, say: Callable[[str], None]
) -> Repaired | None:
    """Recover this command's own move over fresh connections, as often as it takes.

    For a move that lost its way to a host: to be called when its journal is closed and its
    connections are given up.

    Args:
        config: The hosts.
        vm: The VM.
        within: Seconds after which it is left to `whimbrel recover`.
        say: Hears of each case.

    Returns:
        The repair that made it known where the guest runs, or that gave a post-copy up, or the
        last one; None where there was nothing to recover, or it could not be tried.
    """
    until = time.monotonic() + within
    done: Repaired | None = None
    while True:
        job = _Job(config, vm, frozenset(), within, take_over=False, quiet=True)
        job.hears = say
        with suppress(HostError):
            found = await job.carry_out()
            done = found[0][1] if found else done
            if not found or not _unfinished(found[0][1]) or found[0][1].hopeless:
                return done
        if time.monotonic() > until:
            return done
        await asyncio.sleep(AGAIN)

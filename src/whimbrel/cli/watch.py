"""`whimbrel watch`: looks on at a move that was started elsewhere; any number of people may.

its journal is on this machine ──► everything: events, decisions, how it ends
else ──► the VM's hypervisor tells it, beside whoever conducts it: figures, under libvirt passes too
"""

import asyncio
import json as json_module
import time
from collections.abc import AsyncIterator
from pathlib import Path

import typer
from rich.console import Console

from whimbrel.cli.live import LiveLine
from whimbrel.cli.options import ConfigFile, Json, OnHost, VmName
from whimbrel.cli.running import run
from whimbrel.cli.session import Session, opened
from whimbrel.config import load
from whimbrel.errors import HostError
from whimbrel.model.journal import Entry, Step, decision_of, event_entry, event_of
from whimbrel.model.method import Tuning
from whimbrel.model.plain import shaped
from whimbrel.practice.history import History, histories
from whimbrel.practice.journal import Tail

SCHEMA = "whimbrel.watch/1"

EVERY = 0.3
"""Seconds between two looks at a journal."""


def watch(vm: VmName, *, on: OnHost = None, config: ConfigFile = None, json: Json = False) -> None:
    """Look on at the move of a VM until it ends. Changes nothing; Ctrl-C ends the looking only.

    With --json, one line for each thing that happens.
    """
    run(_watch(vm, on, config, json=json))


async def _watch(vm: str, on: str | None, config: Path | None, *, json: bool) -> None:
    conducted = [each for each in histories(vm) if each.conducted]
    if conducted and on is None:
        await _shown(conducted[0].source, _tuning(conducted[0]), _journal(conducted[0]), json=json)
        return
    async with opened(load(config)) as session:
        host = on or (await session.find(vm)).host
        await _shown(host, Tuning(), _looks(session, vm, host), json=json)


async def _shown(source: str, tuning: Tuning, entries: AsyncIterator[Entry], *, json: bool) -> None:
    """Show everything until it ends."""
    line = LiveLine(Console(stderr=True, highlight=False))
    with line:
        line.begins(f"from {source}", tuning)
        async for entry in entries:
            if json:
                told = {"step": entry.step.value, "at": entry.at, "fields": dict(entry.fields)}
                typer.echo(json_module.dumps({"schema": SCHEMA, **told}, ensure_ascii=False))
            _draw(line, entry)


def _draw(line: LiveLine, entry: Entry) -> None:
    match entry.step:
        case Step.EVENT:
            line.happened(event_of(entry))
        case Step.DECISION:
            line.decided(decision_of(entry))
        case Step.CLOSED:
            reason = entry.fields.get("reason") or ""
            side = entry.fields.get("runs_on")
            where = f"it runs at the {side}" if side else "where it runs is not known"
            ending = entry.fields.get("ending", "over")
            line.say(f"{ending}{f': {reason}' if reason else ''}; {where}", "bold")
        case _:
            line.say(f"  {entry.step.value}")


def _tuning(move: History) -> Tuning:
    for entry in move.entries:
        if entry.step is Step.OPENED and "tuning" in entry.fields:
            return shaped(Tuning, entry.fields["tuning"])
    return Tuning()


async def _journal(move: History) -> AsyncIterator[Entry]:
    """Yield what a journal holds and what is added to it, until it is closed or nobody writes."""
    tail = Tail(move.path)
    while True:
        conducted = move.conducted
        for entry in tail.new():
            yield entry
            if entry.step is Step.CLOSED:
                return
        if not conducted:
            raise HostError(
                f"Whoever conducted the move of {move.vm} has gone, and the move is not over.",
                f"Find out and repair: whimbrel recover {move.vm}",
            )
        await asyncio.sleep(EVERY)


async def _looks(session: Session, vm: str, host: str) -> AsyncIterator[Entry]:
    """Yield what the source's hypervisor tells beside whoever conducts the move, to its end."""
    async for event in session.place(host).looks(vm):
        yield event_entry(event, time.time())

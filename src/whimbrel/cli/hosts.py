"""`whimbrel hosts`: which hosts can be reached, and what they have."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from whimbrel.cli.history import grid
from whimbrel.cli.options import ConfigFile, Json
from whimbrel.cli.running import run
from whimbrel.cli.session import Session, opened
from whimbrel.cli.waiting import waiting
from whimbrel.config import Config, load
from whimbrel.errors import ExitCode, HostError
from whimbrel.model.inventory import Capability, Host
from whimbrel.model.overview import HostSeen
from whimbrel.report.document import json_text
from whimbrel.report.overview import (
    HOST_COLUMNS,
    HOSTS_SCHEMA,
    capability_lines,
    host_cells,
    host_document,
)

Capabilities = Annotated[
    bool,
    typer.Option("--capabilities", help="Also try what each host's QEMU can do for a move."),
]


@dataclass(frozen=True)
class _Row:
    """One host, as configured and as seen; why it lacks what it lacks, where that was asked."""

    host: Host
    seen: HostSeen
    lacking: Mapping[Capability, str] | None = None


def hosts(
    *, capabilities: Capabilities = False, config: ConfigFile = None, json: Json = False
) -> None:
    """List the hosts: QEMU, cores, free memory, migration links, and how many VMs they have.

    All are asked at the same time. Where one cannot be reached, the others are
    listed, the reason is told, and the exit code is 6.
    """
    rows = run(_rows(load(config), capabilities=capabilities))
    if json:
        told = [host_document(row.seen, row.host, row.lacking) for row in rows]
        typer.echo(json_text({"schema": HOSTS_SCHEMA, "hosts": told}), nl=False)
    else:
        _show(rows)
    complain([row.seen for row in rows])


async def _rows(config: Config, *, capabilities: bool) -> list[_Row]:
    async with opened(config) as session:
        asking = [_row(session, host, capabilities=capabilities) for host in session.hosts]
        with waiting("asking the hosts"):
            return list(await asyncio.gather(*asking))


async def _row(session: Session, host: Host, *, capabilities: bool) -> _Row:
    [seen] = await session.see([host.name])
    if seen.unreachable or not capabilities:
        return _Row(host, seen)
    try:
        return _Row(host, seen, await session.lacking(host.name))
    except HostError as error:
        return _Row(host, replace(seen, unreachable=str(error)))


def _show(rows: Sequence[_Row]) -> None:
    table = grid(HOST_COLUMNS, left=3)
    for row in rows:
        cells = host_cells(row.seen, row.host)
        table.add_row(*map(Text, cells), style="red" if row.seen.unreachable else "")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for row in rows:
        if row.lacking is not None:
            console.print(Text(f"\n{row.host.name}:", style="bold"))
            for line in capability_lines(row.lacking):
                console.print(Text(f"  {line}"))


def complain(seen: Sequence[HostSeen]) -> None:
    """Tell why hosts could not be asked, and end with their exit code; nothing where all were."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    for host in seen:
        if host.unreachable:
            errors.print(Text(host.unreachable, style="red"))
    if any(host.unreachable for host in seen):
        raise typer.Exit(ExitCode.HOST)

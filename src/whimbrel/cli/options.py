"""Options and arguments that several commands share, with what a shell completes for them."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from whimbrel.cli.session import opened
from whimbrel.config import Config, load
from whimbrel.errors import WhimbrelError

COMPLETED_WITHIN = 3.0
"""Seconds that a person waits for names after the tab key; then there are none."""


def complete_hosts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the configured hosts that begin so."""
    return [name for name in _config(ctx).hosts if name.startswith(incomplete)]


def complete_vms(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the VMs of all hosts that begin so, as far as they answer soon."""
    names: list[str] = []
    with suppress(WhimbrelError, OSError, TimeoutError):
        names = asyncio.run(_vms(_config(ctx)))
    return sorted({name for name in names if name.startswith(incomplete)})


def _config(ctx: typer.Context) -> Config:
    # Nothing may be printed amid a line that is being typed: a mistake leaves no names.
    given: Any = ctx.params.get("config")
    with suppress(WhimbrelError):
        return load(Path(given) if given else None)
    return Config()


async def _vms(config: Config) -> list[str]:
    async with opened(config) as session, asyncio.timeout(COMPLETED_WITHIN):
        return [vm.name for host in await session.see() for vm in host.vms]


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The whimbrel.toml to use; else that of this folder, else of your config folder.",
        metavar="FILE",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON (docs/json.md).")]
VmName = Annotated[
    str, typer.Argument(help="The VM's name.", metavar="VM", autocompletion=complete_vms)
]
OnHost = Annotated[
    str | None,
    typer.Option("--on", help="The host.", metavar="HOST", autocompletion=complete_hosts),
]

"""`whimbrel vms`: every VM on every host."""

import typer
from rich.console import Console
from rich.text import Text

from whimbrel.cli.history import grid
from whimbrel.cli.hosts import complain
from whimbrel.cli.options import ConfigFile, Json, OnHost
from whimbrel.cli.running import run
from whimbrel.cli.session import opened
from whimbrel.cli.waiting import waiting
from whimbrel.config import Config, load
from whimbrel.model.overview import HOLDING, HostSeen, VmSeen, VmState
from whimbrel.report.document import json_text
from whimbrel.report.overview import VM_COLUMNS, vm_cells, vms_document

EMPTY = "No VM is there. Start one: whimbrel up FILE.toml --on HOST"


def vms(*, on: OnHost = None, config: ConfigFile = None, json: Json = False) -> None:
    """List the VMs of all hosts: state, memory, vCPUs, disks, host, and for how long they are up.

    Hosts are asked at the same time. Where one cannot be asked, the others' VMs
    are listed, the reason is told, and the exit code is 6.
    """
    seen = run(_see(load(config), on))
    if json:
        typer.echo(json_text(vms_document(seen)), nl=False)
    else:
        _show([vm for host in seen for vm in host.vms])
    complain(seen)


async def _see(config: Config, on: str | None) -> list[HostSeen]:
    async with opened(config) as session:
        with waiting("asking the hosts"):
            return await session.see(None if on is None else [on])


def _show(found: list[VmSeen]) -> None:
    if not found:
        typer.echo(EMPTY, err=True)
        return
    table = grid(VM_COLUMNS, left=3)
    for vm in found:
        table.add_row(*map(Text, vm_cells(vm)), style=_style(vm))
    Console(highlight=False, soft_wrap=True).print(table)


def _style(vm: VmSeen) -> str:
    if vm.state is VmState.RUNNING:
        return ""
    return "yellow" if vm.state in HOLDING else "dim"

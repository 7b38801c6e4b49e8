"""`whimbrel up`: build a VM from its file and start it on a host."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from whimbrel.cli.options import ConfigFile, Json, complete_hosts
from whimbrel.cli.running import run
from whimbrel.cli.session import Session, opened
from whimbrel.config import Config, load, load_vm
from whimbrel.errors import CommandRefused, ConfigError, HostError, HostUnreachable
from whimbrel.model.inventory import Vm
from whimbrel.model.overview import HostSeen, VmState
from whimbrel.model.scenario import AcceleratorChoice
from whimbrel.model.units import format_size
from whimbrel.report.document import json_text

SCHEMA = "whimbrel.up/1"

File = Annotated[Path, typer.Argument(help="The VM's file (docs/config.md).", metavar="FILE.toml")]
OnHost = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="The host; may be left out where there is only one.",
        metavar="HOST",
        autocompletion=complete_hosts,
    ),
]
SkipUnreachable = Annotated[
    bool,
    typer.Option(
        "--skip-unreachable",
        help="Start it though some hosts cannot be asked whether they have it.",
    ),
]


def up(
    file: File,
    *,
    on: OnHost = None,
    skip_unreachable: SkipUnreachable = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Build the VM that a file describes, and start it on a host. It outlives whimbrel.

    Disks that have a size and are not there are made. Every host is asked first
    whether it has a VM of this name, since it may run only once.
    """
    vm = load_vm(file)
    settled = load(config)
    started, pid, host = run(_up(settled, vm, on, skip_unreachable=skip_unreachable))
    if json:
        told = {"vm": started.name, "host": host, "pid": pid, "uuid": started.uuid}
        told |= {"accelerator": started.accelerator, "machine": started.machine}
        typer.echo(json_text({"schema": SCHEMA, **told}), nl=False)
        return
    size, vcpus = format_size(started.memory), f"{started.vcpus} vCPU{'s' * (started.vcpus > 1)}"
    typer.echo(f"{started.name} runs on {host}: {size}, {vcpus}, {started.accelerator}, pid {pid}.")


async def _up(
    config: Config, vm: Vm, on: str | None, *, skip_unreachable: bool
) -> tuple[Vm, int, str]:
    async with opened(config) as session:
        host = on or _only_host(session)
        config.host(host)
        seen = await session.see()
        _refuse_second(vm.name, seen, skip_unreachable=skip_unreachable)
        [there] = [each for each in seen if each.name == host]
        if there.unreachable:
            raise HostUnreachable(
                f"{host} cannot be asked. Nothing was started.", there.unreachable
            )
        started, pid = await _start(session, there, vm)
        return started, pid, host


def _only_host(session: Session) -> str:
    names = [host.name for host in session.hosts]
    if len(names) == 1:
        return names[0]
    raise ConfigError("It is not said on which host.", f"Add --on {' or --on '.join(names)}.")


def _refuse_second(name: str, hosts: list[HostSeen], *, skip_unreachable: bool) -> None:
    """Raise the error that says where a VM of this name is, or may be, already."""
    for host in hosts:
        for vm in host.vms:
            if vm.name == name and vm.state is not VmState.ENDED:
                raise CommandRefused(
                    f"There is a VM {name} on {host.name} already ({vm.state}).",
                    f"End it: whimbrel down {name} --on {host.name}. Or name this one otherwise.",
                )
        if name in host.moves:
            raise CommandRefused(
                f"A move of {name} is under way, or was never closed; its mark is on {host.name}.",
                f"Ask what holds: whimbrel recover {name}",
            )
    silent = [host for host in hosts if host.unreachable]
    if silent and not skip_unreachable:
        names = ", ".join(host.name for host in silent)
        raise HostUnreachable(
            f"{names} cannot be asked, so it is not known whether {name} runs there. "
            "Nothing was started.",
            "\n".join(host.unreachable for host in silent)
            + "\n--skip-unreachable starts it all the same.",
        )


async def _start(session: Session, host: HostSeen, vm: Vm) -> tuple[Vm, int]:
    """Start a VM; where its file leaves the accelerator open, by KVM if that can run it."""
    hypervisor = session.hypervisor(host.name)
    if vm.accelerator == AcceleratorChoice.AUTO.value and host.kvm:
        try:
            machine = await hypervisor.start(replace(vm, accelerator="kvm"))
        except HostError as error:
            typer.echo(f"KVM on {host.name} does not run it, so TCG does: {error.what}", err=True)
        else:
            return machine.vm, machine.pid
    if vm.accelerator == AcceleratorChoice.AUTO.value:
        vm = replace(vm, accelerator="tcg")
    machine = await hypervisor.start(vm)
    return machine.vm, machine.pid

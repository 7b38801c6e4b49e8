"""`whimbrel down`: let a VM's guest shut down, or end the VM at once."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from whimbrel.cli.options import ConfigFile, Json, OnHost, VmName
from whimbrel.cli.running import run
from whimbrel.cli.session import Session, opened
from whimbrel.cli.waiting import waiting
from whimbrel.config import Config, load
from whimbrel.errors import CommandRefused, ConfigError
from whimbrel.model.overview import VmSeen, VmState
from whimbrel.model.units import format_time, parse_time
from whimbrel.report.document import json_text

SCHEMA = "whimbrel.down/1"

PATIENCE = "90 s"

_AGAIN = 10.0
"""Seconds after which the guest is asked again: one that is still booting hears nothing."""

_QUITS_WITHIN = 5.0

Within = Annotated[
    str, typer.Option(help='How long the guest gets to shut down, "5 min".', metavar="TIME")
]
Now = Annotated[
    bool, typer.Option("--now", help="End it at once, as a power cut would; caches are written.")
]


def down(
    vm: VmName,
    *,
    on: OnHost = None,
    within: Within = PATIENCE,
    now: Now = False,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Shut a VM down: its guest is asked as by the power button, and waited for.

    What belongs to it on the host is removed; its disks stay. A VM that is
    being moved, or whose move was never closed, is left alone.
    """
    patience = parse_time(within)
    began = time.monotonic()
    seen, how = run(_down(load(config), vm, on, None if now else patience))
    seconds = time.monotonic() - began
    if json:
        told = {"vm": vm, "host": seen.host, "ended": how, "seconds": seconds}
        typer.echo(json_text({"schema": SCHEMA, **told}), nl=False)
    else:
        typer.echo(f"{vm} on {seen.host}: {how} after {format_time(seconds)}.")


async def _down(
    config: Config, name: str, on: str | None, patience: float | None
) -> tuple[VmSeen, str]:
    """End a VM; without patience at once. Return what it was, and how it ended."""
    async with opened(config) as session:
        vm = await session.find(name, on)
        session.refuse_libvirt(vm, f"virsh shutdown {name}")
        refuse(vm, now=patience is None)
        if vm.state is VmState.ENDED:
            await _remove(session, vm)
            return vm, "had ended, and was cleared away"
        if patience is None:
            if vm.state is not VmState.UNKNOWN:  # a QEMU that hangs is killed below
                await _say(session, vm, "quit")
                await _ended(session, vm, _QUITS_WITHIN)
            await _remove(session, vm)
            return vm, "ended"
        with _patiently(f"{name} on {vm.host} is shutting down"):
            await _shut_down(session, vm, patience)
        await _remove(session, vm)
        return vm, "shut down"


def refuse(vm: VmSeen, *, now: bool) -> None:
    """Raise the error that says why a VM may not, or cannot, be ended so."""
    where = f"{vm.name} on {vm.host}"
    if vm.by_hand:
        raise ConfigError(
            f"{where} was started by hand; whimbrel ends only what it started.",
            "End it as it was started, or in the guest.",
        )
    if vm.moving or vm.state is VmState.WAITING:
        raise CommandRefused(
            f"{where} is part of a move that is under way, or was never closed; it is left alone.",
            f"Watch it: whimbrel watch {vm.name}. Repair it: whimbrel recover {vm.name}",
        )
    if now or vm.state in {VmState.RUNNING, VmState.ENDED}:
        return
    why = f"{where} is {vm.state}, so its guest cannot shut down by itself"
    if vm.state is VmState.UNKNOWN:
        why = f"The QEMU of {where} does not answer"
    raise CommandRefused(
        f"{why}; it is left as it is.",
        "--now ends it at once, as a power cut would.",
    )


async def _shut_down(session: Session, vm: VmSeen, patience: float) -> None:
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        await _say(session, vm, "system_powerdown")
        if await _ended(session, vm, min(left, _AGAIN)):
            return
    raise CommandRefused(
        f"{vm.name} did not shut down within {format_time(patience)}; it runs on {vm.host} still.",
        "Its guest may not heed the power button. --within waits longer; --now ends it at once, "
        "as a power cut would.",
    )


async def _say(session: Session, vm: VmSeen, word: str) -> None:
    await session.site(vm.host).ask("vm_word", place=vm.place, word=word)


async def _ended(session: Session, vm: VmSeen, within: float) -> bool:
    site = session.site(vm.host)
    answer = await site.ask("machine_ends", pid=vm.pid, start=vm.started, within_seconds=within)
    return bool(answer["ended"])


async def _remove(session: Session, vm: VmSeen) -> None:
    """Remove what an ended VM left; raises where it has ended here because it was moved."""
    site = session.site(vm.host)
    [seen] = await session.see([vm.host])
    if vm.name in seen.moves or vm.place not in [each.place for each in seen.vms]:
        raise CommandRefused(
            f"{vm.name} left {vm.host} meanwhile: somebody moves it, or has ended it.",
            "See: whimbrel vms",
        )
    await site.ask("machine_stop", folder=site.folder, place=vm.place, pid=vm.pid, start=vm.started)


@contextmanager
def _patiently(what: str) -> Iterator[None]:
    """Show that time goes by; say what holds when a person loses patience."""
    with waiting(what):
        try:
            yield
        except asyncio.CancelledError:
            typer.echo("It was asked to shut down, and may still do so.", err=True)
            raise

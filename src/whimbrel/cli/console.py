"""`whimbrel console`: type into a VM's serial console, wherever the VM is."""

import asyncio
import os
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from whimbrel.cli.options import ConfigFile, OnHost, VmName
from whimbrel.cli.running import run
from whimbrel.cli.session import opened
from whimbrel.config import Config, load
from whimbrel.errors import CommandRefused, ConfigError, HostUnreachable
from whimbrel.hypervisors.qemu.command_line import TERMINAL
from whimbrel.model.overview import VmSeen, VmState

LEAVE = b"\x1d"
"""Ctrl-], which leaves; as telnet and virsh have it."""

_SHOWN_FIRST = 4000
"""Bytes of what the console printed before, shown at the beginning."""

_PART = 4096

Log = Annotated[bool, typer.Option("--log", help="Only print what it has printed lately.")]


def console(vm: VmName, *, on: OnHost = None, log: Log = False, config: ConfigFile = None) -> None:
    """Type into a VM's serial console; Ctrl-] leaves.

    Begins with the last of what the console printed. One person at a time:
    while somebody else is connected, nothing appears. Without a terminal,
    standard input is typed into it, and what it prints follows until Ctrl-C.
    """
    run(_console(load(config), vm, on, log_only=log))


async def _console(config: Config, name: str, on: str | None, *, log_only: bool) -> None:
    async with opened(config) as session:
        vm = await session.find(name, on)
        session.refuse_libvirt(vm, f"virsh console {name}")
        _refuse(vm, log_only=log_only)
        site = session.site(vm.host)
        before = await site.ask(
            "machine_output", place=vm.place, name="console", count=_SHOWN_FIRST
        )
        if before:
            _put(before.replace("\r\n", "\n").encode() + b"\n")
        if not log_only:
            await _attach(await site.socket(f"{vm.place}/{TERMINAL}"), vm)


def _refuse(vm: VmSeen, *, log_only: bool) -> None:
    if vm.by_hand:
        raise ConfigError(
            f"{vm.name} on {vm.host} was started by hand: its console is where it was sent then."
        )
    if vm.state is VmState.ENDED and not log_only:
        raise CommandRefused(
            f"{vm.name} on {vm.host} has ended.", f"See: whimbrel console {vm.name} --log"
        )


async def _attach(path: Path, vm: VmSeen) -> None:
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        raise HostUnreachable(
            f"The console of {vm.name} on {vm.host} cannot be reached: {error.strerror}."
        ) from error
    notes.print(f"The console of {vm.name} on {vm.host}. Ctrl-] leaves.", style="dim")
    typed: asyncio.Queue[bytes] = asyncio.Queue()
    _listen(typed)
    with _raw():
        typing = asyncio.create_task(_type(typed, writer))
        showing = asyncio.create_task(_show(reader))
        done, _ = await asyncio.wait({typing, showing}, return_when=asyncio.FIRST_COMPLETED)
        typing.cancel()
        showing.cancel()
        await asyncio.wait({typing, showing})
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    if showing in done and typing not in done:
        notes.print(
            f"\nThe console was closed: {vm.name} has ended here, or has moved.", style="dim"
        )


def _listen(typed: asyncio.Queue[bytes]) -> None:
    """Bring what is typed, from a thread: standard input may be of any kind."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        with suppress(OSError, RuntimeError):  # the loop may have ended meanwhile
            while part := os.read(sys.stdin.fileno(), _PART):
                loop.call_soon_threadsafe(typed.put_nowait, part)

    threading.Thread(target=read, daemon=True).start()


async def _type(typed: asyncio.Queue[bytes], writer: asyncio.StreamWriter) -> None:
    """Write what is typed, until the key that leaves."""
    with suppress(OSError):
        while True:
            part, leave, _ = (await typed.get()).partition(LEAVE)
            writer.write(part)
            await writer.drain()
            if leave:
                return


async def _show(reader: asyncio.StreamReader) -> None:
    """Print what arrives, until the console is closed."""
    with suppress(OSError):
        while part := await reader.read(_PART):
            _put(part)


def _put(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


@contextmanager
def _raw() -> Iterator[None]:
    """Let every key reach the guest, Ctrl-C too; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

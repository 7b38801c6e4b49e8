"""A guest that moves between two far hosts by the real command, seen from outside.

Nothing here asks whimbrel: the journal is read as it is written, QEMU's processes are found by
vm.json, and QMP is spoken over the socket for onlookers.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute  # type: ignore[import-untyped] # ships no types

from far.person import Person, person
from faults.underway import DISK, VM, UnderWay
from whimbrel.lab.hosts import LabHost
from whimbrel.lab.links import shape_of
from whimbrel.lab.namespaces import in_namespace
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB

FAST, SLOW = 125e6, 4e6
"""Bytes per second of the link: as it is, and while a phase is held."""

LOAD = Load(fill=24 * MIB, pattern=Pattern.RANDOM, hot=8 * MIB, dirty_rate=20e6)
"""More than the slow link carries, so that a move over it never ends by itself."""

DISK_FILL, DISK_HOT, DISK_RATE = 24 * MIB, 4 * MIB, 0.5e6
ROOM = 160 * MIB
"""Bytes of the file system on which the destination keeps all that it writes."""


@dataclass
class Stage(UnderWay):
    """Two hosts, a guest on the first, and the move that is under way.

    Attributes:
        at: Who types the commands.
        disks: Whether the guest's disk is copied along; else both hosts see it.
    """

    at: Person
    disks: bool

    @property
    def there(self) -> Path:
        """The folder for copies of disks at the destination."""
        return self.folder("b") / "copies"

    def folder(self, host: str) -> Path:
        """Return a host's own folder."""
        return Path(self.at.host(host).folder)

    async def begin(self, *words: str) -> None:
        """Type the command of the move."""
        storage = ["--storage", str(self.there)] if self.disks else []
        asked = ["move", VM, "--to", "b", "--survey", "none", *storage, *words]
        self.process = await self.at.started(*asked)

    def pid(self, host: str) -> int | None:
        """Return the pid of the guest's QEMU on a host; None where none lives."""
        try:
            record = json.loads((self.folder(host) / "vms" / VM / "vm.json").read_text())
            pid = int(record["pid"])
            os.kill(pid, 0)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid

    async def ask(self, host: str, *commands: str) -> list[Any] | None:
        """Return what the guest's QEMU on a host answers to QMP questions; None: there is none."""
        if self.pid(host) is None:
            return None
        try:
            async with asyncio.timeout(10.0), onlooker(self, host) as talk:
                return [await talk.ask(command) for command in commands]
        except (OSError, TimeoutError, EOFError):
            return None

    async def running(self) -> tuple[str, ...]:
        """Return the hosts whose QEMU says that the guest runs there."""
        answers = {host: await self.ask(host, "query-status") for host in "ab"}
        return tuple([host for host, told in answers.items() if told and told[0]["running"]])

    def link(self, rate: float) -> None:
        """Let the migration link carry so many bytes per second, both ways."""
        for host in (self.at.far.a, self.at.far.b):
            reshape(host.lab, "w0", rate)


class Talk:
    """A QMP connection over the socket for onlookers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def heard(self) -> dict[str, Any]:
        """Return the next message."""
        line = await self._reader.readline()
        if not line:
            raise EOFError
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self, command: str) -> Any:
        """Return the answer to a command without arguments."""
        self._writer.write(json.dumps({"execute": command}).encode() + b"\n")
        while "return" not in (message := await self.heard()):
            if "error" in message:
                raise OSError(message["error"]["desc"])
        return message["return"]


@asynccontextmanager
async def onlooker(stage: Stage, host: str) -> AsyncIterator[Talk]:
    """Look on at the guest's QEMU on a host."""
    path = stage.folder(host) / "vms" / VM / "qmp-look"
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        talk = Talk(reader, writer)
        await talk.heard()
        await talk.ask("qmp_capabilities")
        yield talk
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def stage(*, disks: bool) -> AsyncIterator[Stage]:
    """Hold two hosts and a guest whose memory and disk are written all the time.

    What host b writes lies on a small file system of its own.
    """
    async with person(FAST) as at:
        own = at.far.folder / "b"
        own.mkdir(mode=0o700)
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "whimbrel-faults", str(own))
        journals = Path(at.environment["XDG_STATE_HOME"], "whimbrel", "journals")
        play = Stage(at, disks, journals=journals)
        try:
            play.there.mkdir()
            share = at.far.folder / "share"
            share.mkdir()
            image = share / "db.raw"
            more = f'[[disks]]\nname = "vda"\npath = "{image}"\nformat = "raw"\nsize = "128 MiB"\n'
            await at.up(VM, load=LOAD, more=more)
            async with at.redline(VM, "a") as guest:
                await guest.fill_disk(DISK, DISK_FILL)
                await guest.load_disk(DISK, DISK_HOT, DISK_RATE)
            yield play
        finally:
            play.mend()
            _kill_all(play)
            _run("umount", "--lazy", str(own))


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def _kill_all(play: Stage) -> None:
    """End the guest's QEMUs and what conducts them, so that nothing holds the file system."""
    if play.process is not None and not play.ended:
        play.signal(signal.SIGCONT)
        play.signal(signal.SIGKILL)
    for host in "ab":
        pid = play.pid(host)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def reshape(host: LabHost, interface: str, rate: float) -> None:
    """Let an interface of a host send so many bytes per second."""
    in_namespace(host.namespace, lambda: asyncio.run(_rate(interface, rate)))


async def _rate(interface: str, rate: float) -> None:
    shape = shape_of(rate)
    async with AsyncIPRoute() as route:
        (index,) = await route.link_lookup(ifname=interface)
        await route.tc(
            "change-class",
            "htb",
            index,
            0x10010,
            parent=0x10000,
            rate=shape.rate,
            burst=shape.burst,
            cburst=shape.burst,
            mtu=shape.segment,
            quantum=shape.segment,
        )

"""A guest that moves between two far hosts by the real command, seen from outside.

Nothing here asks whimbrel: the journal is read as it is written, QEMU's processes are found by
vm.json, and QMP is spoken over the socket for onlookers.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute  # type: ignore[import-untyped] # ships no types

from far.person import Person, Said, person
from whimbrel.lab.links import shape_of
from whimbrel.lab.namespaces import in_namespace
from whimbrel.model.journal import Entry, Step
from whimbrel.model.migration import Phase
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.practice.journal import Tail

VM = "db"
DISK = "/dev/vda"
FAST, SLOW = 125e6, 4e6
"""Bytes per second of the link: as it is, and while a phase is held."""

LOAD = Load(fill=24 * MIB, pattern=Pattern.RANDOM, hot=8 * MIB, dirty_rate=20e6)
"""More than the slow link carries, so that a move over it never ends by itself."""

DISK_FILL, DISK_HOT, DISK_RATE = 24 * MIB, 4 * MIB, 0.5e6
ROOM = 160 * MIB
"""Bytes of the file system on which the destination keeps all that it writes."""

PATIENCE = 300.0
LOOK_EVERY = 0.002


@dataclass
class Stage:
    """Two hosts, a guest on the first, and the move that is under way.

    Attributes:
        at: Who types the commands.
        disks: Whether the guest's disk is copied along; else both hosts see it.
        entries: What the move's journal has told so far.
        process: The move's whimbrel.
    """

    at: Person
    disks: bool
    entries: list[Entry] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    _tail: Tail | None = None
    _undo: list[Callable[[], None]] = field(default_factory=list)

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

    async def over(self) -> Said:
        """Wait until the move's command has ended, and return what it said."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            output, errors = await self.process.communicate()
        self.read()
        return Said(self.process.returncode or 0, output.decode(), errors.decode())

    @property
    def ended(self) -> bool:
        """Whether the move's command has ended."""
        return self.process is None or self.process.returncode is not None

    def signal(self, number: int) -> None:
        """Send whimbrel a signal."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def read(self) -> None:
        """Read on in the journal."""
        if self._tail is None:
            found = list(self.journals.glob("*.jsonl"))
            if not found:
                return
            self._tail = Tail(found[0])
        self.entries += self._tail.new()

    @property
    def journals(self) -> Path:
        """Where journals lie."""
        return Path(self.at.environment["XDG_STATE_HOME"], "whimbrel", "journals")

    async def until(self, holds: Callable[["Stage"], bool], within: float = 90.0) -> bool:
        """Wait until something holds; False when the command ended before, or time is up."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            self.read()
            if holds(self):
                return True
            if self.ended:
                return False
            await asyncio.sleep(LOOK_EVERY)
        return False

    @property
    def steps(self) -> list[Step]:
        """The steps that were announced."""
        between = {Step.EVENT, Step.DECISION}
        return [entry.step for entry in self.entries if entry.step not in between]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind that were told, in order."""
        found = (entry.fields for entry in self.entries if entry.step is Step.EVENT)
        return [each[kind] for each in found if kind in each]

    @property
    def phases(self) -> list[Phase]:
        """The phases that the move has entered."""
        return [Phase(each["phase"]) for each in self.events("phase")]

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

    def link(self, rate: float) -> None:
        """Let the migration link carry so many bytes per second, both ways."""
        for host in (self.at.far.a, self.at.far.b):
            in_namespace(host.lab.namespace, lambda: asyncio.run(_rate("w0", rate)))

    def afterwards(self, undo: Callable[[], None]) -> None:
        """Have something undone when the cell is over, or when the world is mended."""
        self._undo.append(undo)

    def mend(self) -> None:
        """Undo what faults have done to the world."""
        while self._undo:
            self._undo.pop()()


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
        play = Stage(at, disks)
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

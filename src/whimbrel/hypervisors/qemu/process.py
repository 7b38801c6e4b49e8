"""QEMU processes: started with private sockets, watched, and ended with nothing left behind."""

import asyncio
import os
import shlex
import shutil
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from whimbrel.errors import HostError, HostUnreachable
from whimbrel.hypervisors.qemu.command_line import monitor_socket
from whimbrel.hypervisors.qemu.inspect import QemuInspection
from whimbrel.hypervisors.qemu.monitor import Monitor
from whimbrel.model.inventory import Vm

Launcher = Callable[[Sequence[str]], list[str]]
"""Puts words before a command so that it runs where it shall, with the same pid."""


def as_it_is(words: Sequence[str]) -> list[str]:
    """Launch a command on this machine, with nothing before it."""
    return list(words)


_LEAVE_WITHIN = 5.0
_OUTPUT_KEPT = 4000


class Process(Protocol):
    """One QEMU with its QMP connection, wherever it runs."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def monitor(self) -> Monitor:
        """Its QMP connection, for whoever conducts it."""

    @property
    def pid(self) -> int:
        """Its process id, on its own host."""

    @property
    def alive(self) -> bool:
        """Whether nothing has been heard of its end."""

    async def ends_within(self, seconds: float) -> bool:
        """Wait for the process to end; False when it still runs after `seconds`."""

    async def output(self) -> str:
        """Return the last of what QEMU wrote to its standard error."""

    async def threads(self) -> tuple[str, ...]:
        """Return the names of its threads; none when it is gone."""

    def socket(self, name: str) -> Path:
        """Return the way from this machine to the socket of that name in its folder."""

    def inspection(self, size: int) -> QemuInspection:
        """Return what looks into the memory, of `size` bytes, of its guest."""

    async def private_file(self, name: str, content: bytes) -> str:
        """Write a file that only its owner reads (0600), and return its path as QEMU sees it.

        `name` is "folder/file" within the process's own folder; what stood there is replaced.
        The content appears in no error, log or command line.
        """

    async def cut(self, port: int) -> None:
        """Shut its connections from or to a port from outside, for a QEMU that hangs in one.

        Nothing happens where that cannot be done.
        """

    async def limit_silence(self, port: int, seconds: float) -> None:
        """Let its present connections from or to a port end when the far end is silent so long.

        Nothing happens where that cannot be done.
        """

    async def remove_private(self, folder: str) -> None:
        """Remove a folder made by `private_file` with all that is in it; harmless without one."""

    async def settled(self) -> None:
        """The guest that was awaited runs in it now; never raises, since that is so by now."""

    async def record(self, vm: Vm) -> None:
        """The VM in it is another one now (a disk lies elsewhere): remember, where that is kept."""

    async def stop(self) -> None:
        """Ask QEMU to quit, kill it if it does not, and remove its folder; repeatable."""


class ChildProcess:
    """A QEMU that is a child of this process, with its private folder."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, monitor: Monitor, folder: Path
    ) -> None:
        self.name = name
        self.monitor = monitor
        self.folder = folder
        self._process = process

    @classmethod
    async def start(
        cls, name: str, words: Sequence[str], folder: Path, launcher: Launcher
    ) -> "ChildProcess":
        """Start QEMU in the private `folder` and connect to it.

        Raises:
            HostError: It did not start; exit code, command line and output are in the message.
                Process and folder are gone then.
        """
        folder.mkdir(mode=0o700, parents=True)
        try:
            process = await _spawn(launcher(words), folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            monitor = await Monitor.connect(monitor_socket(folder), name, process.wait())
        except BaseException as error:
            await _end(process)
            output = _output(folder)
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, HostUnreachable):
                raise _launch_failure(name, words, process.returncode, output) from error
            raise
        return cls(name, process, monitor, folder)

    @property
    def pid(self) -> int:
        """See `Process.pid`."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """See `Process.alive`."""
        return self._process.returncode is None

    async def ends_within(self, seconds: float) -> bool:
        """See `Process.ends_within`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        return not self.alive

    async def output(self) -> str:
        """See `Process.output`."""
        return _output(self.folder)

    async def threads(self) -> tuple[str, ...]:
        """See `Process.threads`."""
        found: list[str] = []
        with suppress(OSError):
            tasks = Path(f"/proc/{self.pid}/task").iterdir()
            found.extend((task / "comm").read_text().strip() for task in tasks)
        return tuple(found)

    def socket(self, name: str) -> Path:
        """See `Process.socket`."""
        return self.folder / name

    def inspection(self, size: int) -> QemuInspection:
        """See `Process.inspection`."""
        return QemuInspection(self.monitor, self.pid, size)

    async def private_file(self, name: str, content: bytes) -> str:
        """See `Process.private_file`."""
        path = self.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # Made anew with its final mode: at no moment may another user open it.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        return str(path)

    async def cut(self, port: int) -> None:
        """See `Process.cut`; does nothing: the lab's network has no strangers."""

    async def limit_silence(self, port: int, seconds: float) -> None:
        """See `Process.limit_silence`; does nothing: the lab's network does not break."""

    async def remove_private(self, folder: str) -> None:
        """See `Process.remove_private`."""
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    async def settled(self) -> None:
        """See `Process.settled`."""

    async def record(self, vm: Vm) -> None:
        """See `Process.record`; nobody looks for it later."""

    async def stop(self) -> None:
        """See `Process.stop`."""
        if self.alive:
            # It may be gone already, or hang: both end below.
            with suppress(HostError, TimeoutError):
                async with asyncio.timeout(_LEAVE_WITHIN):
                    await self.monitor.execute("quit")
                    await self._process.wait()
        await self.monitor.close()
        await _end(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)


async def _spawn(words: Sequence[str], folder: Path) -> asyncio.subprocess.Process:
    log = (folder / "stderr").open("wb")
    try:
        return await asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=DEVNULL, stderr=log
        )
    except FileNotFoundError as error:
        raise HostError(
            f"The program {error.filename or words[0]} is not installed.",
            "Run ./run setup, or install QEMU.",
        ) from error
    finally:
        log.close()


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a child unless it has ended.

    Its own `kill` looks first whether it has, and takes its end away from asyncio if so (CPython,
    Popen.send_signal): asyncio then complains of a child that it does not know.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has ended, and asyncio will hear of it
            os.kill(process.pid, signal.SIGKILL)


async def _end(process: asyncio.subprocess.Process) -> None:
    kill(process)
    await process.wait()


def _output(folder: Path) -> str:
    try:
        return (folder / "stderr").read_text(errors="replace")[-_OUTPUT_KEPT:].strip()
    except OSError:
        return ""


def _launch_failure(name: str, words: Sequence[str], code: int | None, output: str) -> HostError:
    return HostError(
        f"{name}: QEMU did not start (exit code {code}): {output or 'it printed nothing'}",
        f"Its command line: {shlex.join(words)}",
    )

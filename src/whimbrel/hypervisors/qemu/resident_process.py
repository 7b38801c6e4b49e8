"""QEMU processes that outlive whimbrel, on any host that a `Site` leads to.

What the process is and whether it lives is asked of the host; QMP goes through the site's way
to its sockets. Nothing here ends with whimbrel but the connections.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whimbrel.errors import CommandRefused, HostError, HostUnreachable
from whimbrel.hypervisors.qemu.command_line import CONDUCT
from whimbrel.hypervisors.qemu.far_inspect import FarInspection
from whimbrel.hypervisors.qemu.inspect import QemuInspection
from whimbrel.hypervisors.qemu.monitor import Monitor
from whimbrel.model.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from whimbrel.model.inventory import Vm
    from whimbrel.ports import Site

GREETS_WITHIN = 3.0
"""Seconds for QEMU to greet a new client; without one its socket is held by somebody else."""

STARTS_WITHIN = 600.0
"""Seconds for a QEMU to begin to listen; preparing much memory takes its time."""

_NEXT_AFTER = 0.5
_LEAVE_WITHIN = 5.0
_WATCH_FOR = 20.0
"""Seconds per question whether the process has ended; the host answers at once when it does."""


@dataclass(frozen=True)
class Place:
    """Where one process lives.

    Attributes:
        site: Its host.
        folder: Its own folder on that host.
        here: Whether that host is this machine, so that its memory can be read at once.
    """

    site: Site
    folder: str
    here: bool = False


@dataclass(frozen=True)
class Birth:
    """Which process it is: an id, and the start time that tells it from later ones."""

    pid: int
    start: int


class ResidentProcess:
    """The module `process`'s `Process`, on a host."""

    def __init__(
        self, name: str, place: Place, birth: Birth, monitor: Monitor, watching: _Watch
    ) -> None:
        self.name = name
        self.monitor = monitor
        self.place = place
        self.birth = birth
        self._watching = watching
        self._sockets: dict[str, Path] = {}
        self._stopped = False

    @classmethod
    async def start(
        cls,
        name: str,
        place: Place,
        words: Sequence[str],
        record: Mapping[str, Any],
        taps: Sequence[tuple[str, str]] = (),
    ) -> ResidentProcess:
        """Start QEMU in its own session and connect to it.

        Raises:
            HostError: It did not start, with its own words. Process and folder are gone then.
        """
        site = place.site
        asking = site.ask(
            "machine_start",
            within=STARTS_WITHIN,
            folder=site.folder,
            place=place.folder,
            words=list(words),
            record=dict(record),
            taps=[list(tap) for tap in taps],
        )
        found = await _to_the_end(asking, place)
        if "pid" not in found:
            raise _launch_failure(name, words, found)
        birth = Birth(found["pid"], found["start"])
        try:
            return await cls._connected(name, place, birth, CONDUCT[:1], None)
        except BaseException as error:
            output = await _output(place)
            await _remove(place, birth)
            if isinstance(error, HostUnreachable):
                raise _launch_failure(name, words, {"output": output}) from error
            raise

    @classmethod
    async def find(
        cls, name: str, place: Place, birth: Birth, sockets: Sequence[str] = CONDUCT
    ) -> ResidentProcess:
        """Connect to a QEMU that runs already, by the first socket that nobody holds.

        Raises:
            HostUnreachable: Each is held by somebody, or the process has ended.
        """
        return await cls._connected(name, place, birth, sockets, GREETS_WITHIN)

    @classmethod
    def mute(cls, name: str, place: Place, birth: Birth, monitor: Monitor) -> ResidentProcess:
        """Return a process that takes no client, but can be ended."""
        return cls(name, place, birth, monitor, _Watch(place.site, birth))

    @classmethod
    async def _connected(
        cls,
        name: str,
        place: Place,
        birth: Birth,
        sockets: Sequence[str],
        within: float | None,
    ) -> ResidentProcess:
        watching = _Watch(place.site, birth)
        try:
            async with asyncio.timeout(within):
                monitor = await _first_to_greet(place, name, sockets, watching)
        except TimeoutError as error:
            await watching.close()
            raise HostUnreachable(
                f"{name}: QEMU's control sockets are held by other clients; it goes on as it was.",
                "End the other whimbrel that conducts this VM. One that was cut off lets go when "
                "its SSH session ends on that host.",
            ) from error
        except BaseException:
            await watching.close()
            raise
        return cls(name, place, birth, monitor, watching)

    @property
    def pid(self) -> int:
        """See `Process.pid`."""
        return self.birth.pid

    @property
    def alive(self) -> bool:
        """See `Process.alive`."""
        return not (self._stopped or self._watching.ended)

    async def ends_within(self, seconds: float) -> bool:
        """See `Process.ends_within`."""
        if not self._stopped:
            await self._watching.over(seconds)
        return not self.alive

    async def output(self) -> str:
        """See `Process.output`; empty where the host cannot be asked."""
        return await _output(self.place)

    async def threads(self) -> tuple[str, ...]:
        """See `Process.threads`; none where the host cannot be asked."""
        with suppress(HostError):
            return tuple(await self.place.site.ask("machine_threads", pid=self.pid))
        return ()

    async def prepare_sockets(self, names: Sequence[str]) -> None:
        """Make ways to sockets in the process's folder, for `socket` to return."""
        for name in names:
            path = _joined(self.place.folder, name)
            self._sockets[name] = await self.place.site.socket(path)

    def socket(self, name: str) -> Path:
        """See `Process.socket`; for names that were prepared."""
        return self._sockets[name]

    def inspection(self, size: int) -> QemuInspection:
        """See `Process.inspection`."""
        if self.place.here:
            return QemuInspection(self.monitor, self.pid, size)
        return FarInspection(self.monitor, self.place.site, self.pid, size)

    async def private_file(self, name: str, content: bytes) -> str:
        """See `Process.private_file`."""
        written: str = await self.place.site.ask(
            "machine_file", place=self.place.folder, name=name, content=content
        )
        return written

    async def cut(self, port: int) -> None:
        """See `Process.cut`."""
        with suppress(HostError):  # no right to do so, or gone
            await self.place.site.ask("cut_connections", pid=self.pid, port=port)

    async def limit_silence(self, port: int, seconds: float) -> None:
        """See `Process.limit_silence`."""
        with suppress(HostError):  # no right to do so, or gone
            await self.place.site.ask("limit_silence", pid=self.pid, port=port, seconds=seconds)

    async def remove_private(self, folder: str) -> None:
        """See `Process.remove_private`."""
        await self.place.site.ask("machine_file_remove", place=self.place.folder, name=folder)

    async def settled(self) -> None:
        """See `Process.settled`; noted in vm.json."""
        with suppress(HostError):  # it runs, whatever is written
            await self.note({"role": "running"})

    async def record(self, vm: Vm) -> None:
        """See `Process.record`; noted in vm.json."""
        await self.note({"vm": plain(vm)})

    async def note(self, changes: Mapping[str, Any]) -> None:
        """Change fields of vm.json."""
        site = self.place.site
        await site.ask(
            "machine_note", folder=site.folder, place=self.place.folder, changes=dict(changes)
        )

    async def stop(self) -> None:
        """See `Process.stop`.

        Raises:
            HostError: The host cannot be reached, or the process does not end even when killed.
        """
        if self._stopped:
            return
        if self.alive:
            # It may be gone already, or hang: both end below.
            with suppress(HostError, TimeoutError):
                async with asyncio.timeout(_LEAVE_WITHIN):
                    await self.monitor.execute("quit")
                    await self._watching.over()
        await self.monitor.close()
        await _remove(self.place, self.birth)
        self._stopped = True
        await self._watching.close()

    async def close(self) -> None:
        """Let go of it; it goes on."""
        await self.monitor.close()
        await self._watching.close()


class _Watch:
    """Waits for a process's end, for as long as its host can be asked."""

    def __init__(self, site: Site, birth: Birth) -> None:
        self._site, self._birth = site, birth
        self._task = asyncio.create_task(self._watch())

    @property
    def ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self._task.done() and not self._task.cancelled() and self._task.result()

    async def over(self, within: float | None = None) -> None:
        """Wait until it has ended, or nothing more can be heard of it, or time is up."""
        await asyncio.wait([self._task], timeout=within)

    async def close(self) -> None:
        """Wait no more."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self) -> bool:
        birth = {"pid": self._birth.pid, "start": self._birth.start}
        try:
            while True:
                found = await self._site.ask("machine_ends", **birth, within_seconds=_WATCH_FOR)
                if found["ended"]:
                    return True
        except HostError:
            return False


async def _first_to_greet(
    place: Place, name: str, sockets: Sequence[str], watching: _Watch
) -> Monitor:
    """Connect to the first socket; the next is tried besides when QEMU does not greet soon."""
    attempts: list[asyncio.Task[Monitor]] = []
    first: asyncio.Task[Monitor] | None = None
    try:
        for socket in sockets:
            path = await place.site.socket(_joined(place.folder, socket))
            connecting = Monitor.connect(path, name, watching.over())
            attempts.append(asyncio.ensure_future(connecting))
            soon = None if socket == sockets[-1] else _NEXT_AFTER
            await asyncio.wait(attempts, timeout=soon, return_when=asyncio.FIRST_COMPLETED)
            first = next((each for each in attempts if each.done()), None)
            if first is not None:
                return first.result()
        raise HostUnreachable(f"{name}: QEMU has no socket.")
    finally:
        await _let_go([each for each in attempts if each is not first])


async def _let_go(attempts: Sequence[asyncio.Task[Monitor]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for found in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(found, Monitor):
            await found.close()


async def _to_the_end(asking: Any, place: Place) -> dict[str, Any]:
    """Ask for a start; when the asker is cancelled meanwhile, undo it before that goes on."""
    starting = asyncio.ensure_future(asking)
    try:
        found: dict[str, Any] = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        if starting.exception() is None and "pid" in (made := starting.result()):
            await _remove(place, Birth(made["pid"], made["start"]))
        raise
    return found


async def _remove(place: Place, birth: Birth) -> None:
    site = place.site
    await site.ask(
        "machine_stop",
        folder=site.folder,
        place=place.folder,
        pid=birth.pid,
        start=birth.start,
    )


async def _output(place: Place) -> str:
    try:
        return str(await place.site.ask("machine_output", place=place.folder))
    except HostError:
        return ""


def _joined(folder: str, name: str) -> str:
    return name if name.startswith("/") else f"{folder}/{name}"


def _launch_failure(name: str, words: Sequence[str], found: Mapping[str, Any]) -> HostError:
    said = found["output"] or "it printed nothing"
    code = f" (exit code {found['code']})" if "code" in found else ""
    return CommandRefused(
        f"{name}: QEMU did not start{code}: {said}", f"Its command line: {shlex.join(words)}"
    )

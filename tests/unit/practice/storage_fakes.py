"""A machine whose disks are copied as a script says, and hosts that keep images in memory."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unit.practice.fakes import ADDRESS, FakeMachine
from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.inventory import Disk, MigrationAddress, Vm
from whimbrel.model.storage import (
    Copying,
    CopyMode,
    DiskFacts,
    DiskWrites,
    Extent,
    Image,
    StorageProgress,
)
from whimbrel.model.units import GIB, MIB
from whimbrel.ports import Storage

DISKS = (Disk("vda", "/a/root.raw"), Disk("vdb", "/a/data.raw"))
WEB = Vm("web", GIB, disks=DISKS)


@dataclass
class FakeMirror:
    """A copy that goes as its script says, and stays as its last word says."""

    disk: str
    script: Iterator[Copying]
    place: MigrationAddress | Disk = ADDRESS
    done: list[str] = field(default_factory=list)
    limits: list[float | None] = field(default_factory=list)
    fails: str = ""
    mode: CopyMode = CopyMode.BACKGROUND
    _last: Copying = Copying(0, GIB)

    async def progress(self) -> Copying:
        self._last = next(self.script, self._last)
        return replace(self._last, mode=self.mode)

    async def block_writes(self) -> None:
        self.mode = CopyMode.WRITE_BLOCKING

    async def limit(self, rate: float | None) -> None:
        self.limits.append(rate)

    async def finish(self) -> None:
        self._do("finish")

    async def pivot(self) -> None:
        self._do("pivot")

    async def abandon(self) -> None:
        self.done.append("abandon")

    def _do(self, what: str) -> None:
        if self.fails == what:
            raise HostError(f"{self.disk} cannot {what}")
        self.done.append(what)


@dataclass
class FakeExport:
    address: MigrationAddress = ADDRESS
    stopped: bool = False

    async def stop(self) -> None:
        self.stopped = True


@dataclass
class FakeStorage:
    """Two disks of 1 GiB with 100 MiB in each."""

    scripts: dict[str, list[Copying]] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)
    mirrors: dict[str, FakeMirror] = field(default_factory=dict)
    exports: list[FakeExport] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=lambda: {d.name: d.path for d in DISKS})
    busy: str = ""
    released: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    written: int = 0

    async def disks(self) -> tuple[DiskFacts, ...]:
        return tuple(
            DiskFacts(name, GIB, (Image(path, "raw", 100 * MIB),), busy=self.busy)
            for name, path in self.at.items()
        )

    async def writes(self) -> Mapping[str, DiskWrites]:
        self.written += 1
        found = DiskWrites(self.written * 8192, self.written * 2)
        return {"vda": found, "vdb": DiskWrites(0, 0)}

    async def export(self, address: MigrationAddress, disks: Sequence[str]) -> FakeExport:
        self.exported += disks
        self.exports.append(FakeExport(replace(address, port=49152)))
        return self.exports[-1]

    async def mirror(
        self,
        disk: str,
        place: MigrationAddress | Disk,
        extent: Extent,
        rate: float | None = None,
    ) -> FakeMirror:
        if self.fails.get(disk) == "mirror":
            raise CommandRefused(f"{disk} cannot be mirrored")
        script = iter(self.scripts.get(disk, [Copying(GIB, 0, ready=True)]))
        mirror = FakeMirror(disk, script, place, limits=[rate], fails=self.fails.get(disk, ""))
        self.mirrors[disk] = mirror
        self.begun.set()
        return mirror

    async def release(self) -> None:
        self.released += 1
        self.busy = ""


@dataclass
class DiskMachine(FakeMachine):
    vm: Vm = WEB
    runs: bool = True
    disks: FakeStorage = field(default_factory=FakeStorage)

    def storage(self) -> Storage:
        return self.disks


@dataclass
class FakeSite:
    """A host whose images are names; answers sites/onsite/disks.py."""

    name: str
    folder: str = "/run/whimbrel"
    images: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        return getattr(self, question)(**arguments)

    async def socket(self, path: str) -> Path:
        return Path(path)

    async def close(self) -> None:
        pass

    def image_make(self, path: str, vm: str, **_: Any) -> str:
        if path in self.images:
            raise CommandRefused(f"{path} is there already")
        self.images[path] = vm
        self.made[f"token of {path}"] = path
        return f"token of {path}"

    def image_remove(self, folder: str, token: str) -> bool:
        path = self.made.pop(token, None)
        return path is not None and self.images.pop(path, None) is not None

    def image_keep(self, folder: str, token: str) -> None:
        self.made.pop(token, None)

    def images_made(self, folder: str) -> list[dict[str, Any]]:
        return [
            {"path": path, "vm": self.images[path], "token": token}
            for token, path in self.made.items()
        ]

    def image_identity(self, path: str) -> list[int] | None:
        return [1, 2] if path in self.images else None

    def image_discard(self, path: str, identity: list[int]) -> bool:
        return self.images.pop(path, None) is not None

    def image_allocated(self, paths: list[str]) -> list[int | None]:
        return [10 * MIB for _ in paths]

    def image_fingerprint(self, path: str) -> str:
        return self.fingerprints.get(path, "same")


@dataclass
class Heard:
    """An onlooker that keeps what it is told."""

    progress: list[StorageProgress] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)

    def copying(self, progress: StorageProgress) -> None:
        self.progress.append(progress)

    def writes_wait(self, disk: str, reason: str) -> None:
        self.waits.append(f"{disk}: {reason}")

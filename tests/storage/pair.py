"""Two hosts on this machine with a folder for images each, and moves between them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from storage.guests import disk_vm, redline, sparse
from storage.wire import Wire
from unit.practice.fakes import Silent
from whimbrel.hypervisors.qemu import QemuHost
from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.storage import StorageProgress
from whimbrel.model.units import GIB, MIB
from whimbrel.ports import Export, Machine, Reception
from whimbrel.practice.move import move
from whimbrel.practice.request import Request
from whimbrel.practice.settle import Moved
from whimbrel.practice.storage import Hosts, StorageBeside, StorageWish, storage_beside
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

HERE = MigrationAddress("127.0.0.1")


@dataclass
class Watched:
    """An onlooker that keeps what it is told, and lets others wait for it."""

    seen: list[StorageProgress] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def copying(self, progress: StorageProgress) -> None:
        self.seen.append(progress)
        self.news.set()

    def writes_wait(self, disk: str, reason: str) -> None:
        self.reasons.append(f"{disk}: {reason}")

    async def until(self, holds: Callable[[StorageProgress], bool]) -> None:
        """Wait until one progress is like that."""
        async with asyncio.timeout(60):
            while not any(holds(progress) for progress in self.seen):
                self.news.clear()
                await self.news.wait()


@dataclass
class Pair:
    """Two hosts, a and b, and where each keeps its images."""

    folder: Path
    a: QemuHost
    b: QemuHost
    hosts: Hosts

    @property
    def images_a(self) -> Path:
        return self.folder / "images-a"

    @property
    def images_b(self) -> Path:
        return self.folder / "images-b"

    def left_at_b(self) -> list[str]:
        """Name the images at b and the records of images there."""
        records = self.folder / "b" / "images"
        return [path.name for path in (*self.images_b.iterdir(), *records.glob("*"))]

    async def move(
        self,
        machine: Machine,
        wish: StorageWish,
        watched: Watched,
        *,
        wire: Wire | None = None,
        address: MigrationAddress = HERE,
        tuning: Tuning | None = None,
    ) -> tuple[Moved, StorageBeside]:
        """Move a VM with its disks from a to b, the disks over a wire if there is one."""
        async with storage_beside(machine, self.hosts, wish, watched) as beside:
            request = Request(
                self.a,
                machine,
                self.b,
                address,
                tuning or Tuning(encrypted=address.encrypted),
                60.0,
                companions=(OverWire(beside, wire) if wire else beside,),
                vm=beside.vm,
            )
            return await move(request, Silent()), beside


@asynccontextmanager
async def two_hosts(folder: Path) -> AsyncIterator[Pair]:
    """Yield two hosts, and end whatever was started on them."""
    async with AsyncExitStack() as stack:
        sites = [
            await stack.enter_async_context(OnSite(LocalShell(name), str(folder / name)))
            for name in "ab"
        ]
        hosts = [await stack.enter_async_context(QemuHost(name, folder / "qemu")) for name in "ab"]
        pair = Pair(folder, hosts[0], hosts[1], Hosts(sites[0], sites[1]))
        for images in (pair.images_a, pair.images_b):
            images.mkdir()
        yield pair


class OverWire:
    """A companion whose disks travel over a wire of the test's."""

    pauses = True

    def __init__(self, beside: StorageBeside, wire: Wire) -> None:
        self._beside, self._wire = beside, wire

    async def before_memory(self, reception: Reception) -> None:
        await self._beside.before_memory(cast("Reception", _Detoured(reception, self._wire)))

    async def before_handover(self) -> None:
        await self._beside.before_handover()

    async def after_failure(self, machine: Machine | None) -> None:
        await self._beside.after_failure(machine)

    async def after_arrival(self) -> None:
        await self._beside.after_arrival()


class _Detoured:
    """A reception whose exports are reached over a wire; it stands for its machine as well."""

    def __init__(self, reception: Reception, wire: Wire) -> None:
        self._reception, self._wire = reception, wire
        self.address = reception.address

    @property
    def machine(self) -> "_Detoured":
        return self

    def storage(self) -> "_Detoured":
        return self

    async def export(self, address: MigrationAddress, disks: Any) -> Export:
        export = await self._reception.machine.storage().export(address, disks)
        self._wire.to = ("127.0.0.1", export.address.port)
        return _DetouredExport(export, self._wire)


class _DetouredExport:
    def __init__(self, export: Export, wire: Wire) -> None:
        self._export = export
        self.address = replace(export.address, port=wire.port)

    async def stop(self) -> None:
        await self._export.stop()


def disk(name: str, path: Path, image_format: str = "raw") -> Disk:
    return Disk(name, str(path), image_format)


@asynccontextmanager
async def one_disk(
    pair: Pair, fill: int = 48 * MIB, hot: int = 8 * MIB, rate: float = 2 * MIB
) -> AsyncIterator[Machine]:
    """Yield a guest at a that keeps writing its disk vda, 1 GiB, sparse."""
    image = pair.images_a / "root.raw"
    sparse(image, GIB)
    machine = await pair.a.start(disk_vm([disk("vda", image)]))
    async with redline(machine) as guest:
        await guest.fill_disk("/dev/vda", fill, at=16 * MIB)
        await guest.load_disk("/dev/vda", hot, rate)
    yield machine

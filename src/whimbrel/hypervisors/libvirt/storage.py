"""The disks of a VM that libvirt runs, behind the ports `Storage` and `Carrying`.

libvirt copies disks to another host only as a part of its own move: `carry` says which. A disk
that goes elsewhere on its host is copied by libvirt's block copy (virDomainBlockCopy), and every
write of the guest waits for its copy, which libvirt must be told beforehand. Such a copy has holes
where the disk has them only if the VM's definition lets the disk discard (`discard="unmap"`, as in
whimbrel's own): libvirt gives the copy what the disk has.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from whimbrel.errors import CommandRefused, HostError, Unsupported
from whimbrel.hypervisors.libvirt.disk_xml import (
    DiskSeen,
    copy_xml,
    disks_seen,
    refuse_encrypted,
)
from whimbrel.hypervisors.libvirt.translate import Luggage
from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.storage import Copying, CopyMode, DiskFacts, DiskWrites, Extent, Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whimbrel.hypervisors.libvirt.connection import Domain
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
    from whimbrel.ports import Export, Site


class LibvirtStorage:
    """The ports `Storage` and `Carrying`: the disks of one machine.

    Args:
        machine: It.
        site: Leads to its host; None: only libvirt does.
    """

    def __init__(self, machine: LibvirtMachine, site: Site | None) -> None:
        self._machine, self._site = machine, site

    async def disks(self) -> tuple[DiskFacts, ...]:
        """See `ports.Storage.disks`; without a shell an image's size stands for what it takes."""
        domain = await self._machine.domain()
        found = disks_seen(await domain.found_xml())
        sizes = [await domain.disk_size(disk.target) for disk in found]
        return tuple([await self._facts(*each) for each in zip(found, sizes, strict=True)])

    async def writes(self) -> Mapping[str, DiskWrites]:
        """See `ports.Storage.writes`."""
        domain = await self._machine.domain()
        found = {}
        for disk in disks_seen(await domain.found_xml()):
            told = await domain.disk_figures(disk.target)
            found[disk.name] = DiskWrites(told.get("wr_bytes", 0), told.get("wr_operations", 0))
        return found

    def carry(self, disks: Sequence[str], extent: Extent, port: int = 0) -> None:
        """See `ports.Carrying.carry`."""
        self._machine.carries = (tuple(disks), extent, port)

    async def luggage(self) -> Luggage | None:
        """Return what the next move carries, in libvirt's words; None: no disk."""
        if self._machine.carries is None:
            return None
        names, extent, port = self._machine.carries
        seen = await self._seen()
        for each in seen:
            refuse_encrypted(each.name, encrypted=each.encrypted and each.name in names)
        targets = {each.name: each.target for each in seen}
        return Luggage(tuple(targets[name] for name in names), extent, port)

    async def export(self, address: MigrationAddress, disks: Sequence[str]) -> Export:
        """Raise `Unsupported`: libvirt takes disks only within its own move."""
        raise Unsupported(
            f"libvirt takes {', '.join(disks)} at {address.host} only as a part of its own move."
        )

    async def mirror(
        self,
        disk: str,
        place: MigrationAddress | Disk,
        extent: Extent,
        rate: float | None = None,
    ) -> LibvirtMirror:
        """See `ports.Storage.mirror`; onto this host only."""
        if isinstance(place, MigrationAddress):
            raise Unsupported("libvirt copies disks to another host only within its own move.")
        seen = next((each for each in await self._seen() if each.name == disk), None)
        if seen is None:
            raise CommandRefused(f"VM {self._machine.vm.name} has no disk {disk}.")
        refuse_encrypted(disk, encrypted=seen.encrypted)
        domain = await self._machine.domain()
        xml = copy_xml(place, flat=extent is Extent.WHOLE)
        await domain.copy_disk(seen.target, xml, rate, shallow=extent is Extent.TOP)
        return LibvirtMirror(domain, disk, seen.target)

    async def release(self) -> None:
        """See `ports.Storage.release`; copies into images that whimbrel made are its own."""
        self._machine.carries = None
        if self._site is None:
            return
        made = await self._site.ask("images_made", folder=self._site.folder)
        ours = {str(each["path"]) for each in made if each["vm"] == self._machine.vm.name}
        for disk in await self._seen():
            if disk.copy in ours:
                with suppress(CommandRefused):  # it ends just now
                    await (await self._machine.domain()).end_copy(disk.target)

    async def _seen(self) -> tuple[DiskSeen, ...]:
        return disks_seen(await (await self._machine.domain()).found_xml())

    async def _facts(self, disk: DiskSeen, size: int) -> DiskFacts:
        taken: Sequence[int | None] = [None] * len(disk.chain)
        if self._site is not None:
            paths = [path for path, _ in disk.chain]
            taken = await self._site.ask("image_allocated", paths=paths)
        images = (
            Image(path, kind, size if bytes_taken is None else bytes_taken)
            for (path, kind), bytes_taken in zip(disk.chain, taken, strict=True)
        )
        busy = f"a copy to {disk.copy}" if disk.copy else ""
        return DiskFacts(disk.name, size, tuple(images), disk.read_only, busy)


class LibvirtMirror:
    """The port's `Mirror`: one block copy of libvirt's."""

    def __init__(self, domain: Domain, disk: str, target: str) -> None:
        self.disk = disk
        self._domain, self._target = domain, target
        self._let_go = False
        self._last = Copying(0, 0, mode=CopyMode.WRITE_BLOCKING)

    async def progress(self) -> Copying:
        """See `ports.Mirror.progress`."""
        if self._let_go:
            return self._last
        try:
            job = await self._domain.copy_job(self._target)
            ready = await self._ready()
        except HostError as error:
            return self._failed(error.what)
        if not job:
            return self._failed("libvirt has given it up")
        done, whole = job["cur"], job["end"]
        self._last = Copying(done, max(0, whole - done), ready, CopyMode.WRITE_BLOCKING)
        return self._last

    async def block_writes(self) -> None:
        """See `ports.Mirror.block_writes`; they have waited from the beginning."""

    async def limit(self, rate: float | None) -> None:
        """See `ports.Mirror.limit`."""
        await self._domain.limit_copy(self._target, rate)

    async def finish(self) -> None:
        """See `ports.Mirror.finish`."""
        await self._must_be_ready()
        await self._domain.end_copy(self._target)
        self._let_go = True

    async def pivot(self) -> None:
        """See `ports.Mirror.pivot`; libvirt's definition of the VM names the new place as well."""
        await self._must_be_ready()
        await self._domain.end_copy(self._target, pivot=True)
        self._let_go = True

    async def abandon(self) -> None:
        """See `ports.Mirror.abandon`."""
        if not self._let_go:
            with suppress(CommandRefused):  # there is none any more
                await self._domain.end_copy(self._target)
            self._let_go = True

    async def _ready(self) -> bool:
        seen = {each.target: each for each in disks_seen(await self._domain.found_xml())}
        return self._target in seen and seen[self._target].in_step

    async def _must_be_ready(self) -> None:
        if not await self._ready():
            raise HostError(f"The copy of disk {self.disk} is not whole: it is not in step yet.")

    def _failed(self, why: str) -> Copying:
        return Copying(self._last.done, self._last.left, failure=why)

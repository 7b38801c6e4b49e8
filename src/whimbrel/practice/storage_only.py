"""A disk that moves while its VM stays: to another folder, share or device, and back.

image made ─► mirror ─► in step ─► pivot ─► the VM's record names the new place
    │            │         │
    └────────────┴─────────┴── given up: the guest goes on with its old disk, no image is left
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from whimbrel.errors import ConfigError, HostError
from whimbrel.model.inventory import Disk
from whimbrel.ports import Machine, Mirror, Site
from whimbrel.practice.copying import Copies, Onlooker
from whimbrel.practice.images import Images
from whimbrel.practice.storage import StorageWish
from whimbrel.practice.storage_places import DiskCopy, moved_vm, placed_copies
from whimbrel.theory.mirroring import shares


@dataclass(frozen=True)
class DiskMoved:
    """One disk that lies elsewhere now.

    Attributes:
        name: The disk's name.
        old: Where it was.
        new: Where it is.
        old_removed: Whether the old image is gone.
    """

    name: str
    old: str
    new: str
    old_removed: bool = False


async def move_storage(
    machine: Machine, site: Site, wish: StorageWish, onlooker: Onlooker
) -> tuple[DiskMoved, ...]:
    """Move disks of a VM that stays where it is, and return what lies where now.

    Disks without a place in the wish stay. Cancelled, or failed, before the last moment, each
    disk is where it was. `wish.port` is not used.

    Args:
        machine: The VM.
        site: Its host.
        wish: Which disks, and where to.
        onlooker: Who looks on.

    Raises:
        ConfigError: What was wished cannot be used.
        HostError: A copy failed; the guest goes on with its old disks.
    """
    facts = await machine.storage().disks()
    copies = placed_copies(machine.vm, facts, wish.places, wish.extent, only_named=True)
    if not copies:
        raise ConfigError("No disk was named that could move.", "Say --storage DISK=PATH.")
    images = Images(site, machine.vm.name)
    await images.make(copies, site)
    try:
        mirrors = await _in_step(machine, copies, images, wish, onlooker)
    except BaseException:
        with suppress(HostError):
            await images.remove()
        raise
    # From here on it goes fast, and half of it is worse than all of it.
    return await asyncio.shield(_go_over(machine, site, copies, (mirrors, images, wish)))


async def _in_step(
    machine: Machine,
    copies: Sequence[DiskCopy],
    images: Images,
    wish: StorageWish,
    onlooker: Onlooker,
) -> Sequence[Mirror]:
    """Return all mirrors in step; given up again when one fails."""
    storage = machine.storage()
    begun: list[Mirror] = []
    limits = shares(wish.rate, [False] * len(copies))
    try:
        for copy, limit in zip(copies, limits, strict=True):
            mirror = await storage.mirror(copy.facts.name, copy.place, copy.extent, limit)
            begun.append(mirror)
        followed = Copies(
            begun,
            sum(copy.data for copy in copies),
            lambda: images.allocated(copies),
            onlooker,
            rate=wish.rate,
            patience=wish.patience,
        )
        await followed.until_ready()
    except BaseException:
        for mirror in begun:
            with suppress(HostError):
                await mirror.abandon()
        raise
    return begun


async def _go_over(
    machine: Machine,
    site: Site,
    copies: Sequence[DiskCopy],
    prepared: tuple[Sequence[Mirror], Images, StorageWish],
) -> tuple[DiskMoved, ...]:
    mirrors, images, wish = prepared
    over: list[DiskCopy] = []
    old = {disk.name: disk for disk in machine.vm.disks}
    try:
        for copy, mirror in zip(copies, mirrors, strict=True):
            await _pivot(machine, copy, mirror)
            over.append(copy)
    except HostError:
        await _stay(mirrors[len(over) :], images, copies[len(over) :])
        raise
    finally:
        if over:
            await machine.record(moved_vm(machine.vm, over))
            await images.keep()
    return tuple([await _moved(site, old[c.facts.name], c, wish) for c in over])


async def _pivot(machine: Machine, copy: DiskCopy, mirror: Mirror) -> None:
    """Let the machine go on with the copy; raises only where it still has its old disk."""
    try:
        await mirror.pivot()
    except HostError:
        await mirror.abandon()
        now = {disk.name: disk for disk in await machine.storage().disks()}
        if now[copy.facts.name].top.path == copy.facts.top.path:
            raise


async def _stay(mirrors: Sequence[Mirror], images: Images, copies: Sequence[DiskCopy]) -> None:
    """Give up what has not gone over, and remove its images."""
    for mirror in mirrors:
        with suppress(HostError):
            await mirror.abandon()
    with suppress(HostError):
        await images.remove([copy.place.path for copy in copies])


async def _moved(site: Site, old: Disk, copy: DiskCopy, wish: StorageWish) -> DiskMoved:
    removed = False
    if wish.remove_source:
        # Nobody else can have put another file there: QEMU held it open until just now.
        identity = await site.ask("image_identity", path=old.path)
        if identity is not None:
            removed = await site.ask("image_discard", path=old.path, identity=identity)
    return DiskMoved(old.name, old.path, copy.place.path, removed)

"""Disks that move with their VM, beside its memory: shared-nothing moves.

    storage_beside        images are made at the destination
      receive             the VM is built there on them, and waits
      before_memory       they are exported, every disk is mirrored; returns when all are in step
      (memory moves; what the guest writes follows; a copy that it outruns has it wait)
      before_handover     the guest stands still: copies made whole, exports stopped
      after_arrival       the images are the VM's; the source's stay, or go when that was asked
      after_failure       copies given up, images removed; the guest never left its own disks

Where the hypervisor's own move copies disks (`ports.Carrying`: libvirt), it is told which, and
whimbrel makes the images and keeps or removes them.

A copy that was let go of has never been the source's disk. So up to the moment at which the
guest runs at the destination, nothing that happens here can harm it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from whimbrel.errors import HostError
from whimbrel.model.storage import Copying, DiskCopied, Extent, StorageProgress
from whimbrel.ports import Carrying, Export, Machine, Reception, Site
from whimbrel.practice.copying import ASK_SIZES_EVERY, PATIENCE, Copies, Onlooker
from whimbrel.practice.images import Images
from whimbrel.practice.storage_places import DiskCopy, moved_vm, placed_copies
from whimbrel.theory.mirroring import shares


@dataclass(frozen=True)
class StorageWish:
    """What a person wants of the disks of a move.

    Attributes:
        places: What `--storage` was given, each a place or DISK=place.
        extent: How much of each chain is copied.
        rate: Bytes per second that the copies may use together; None: no limit.
        port: Where the destination exports its disks; 0 lets it choose.
        remove_source: Whether the source's images are removed when the VM has arrived.
        patience: Seconds that a copy may stand still.
    """

    places: tuple[str, ...]
    extent: Extent = Extent.WHOLE
    rate: float | None = None
    port: int = 0
    remove_source: bool = False
    patience: float = PATIENCE


@dataclass(frozen=True)
class Hosts:
    """The operating systems of both hosts."""

    source: Site
    destination: Site


class StorageBeside:
    """The port's `Companion` for disks; made by `storage_beside`.

    Attributes:
        vm: What is to be built at the destination.
        copies: What is copied to where.
        report: What became of the source's images, sentences for people; known after arrival.
        copied: Each disk that has arrived, with what its copy took; known after arrival.
    """

    pauses = True

    def __init__(
        self,
        machine: Machine,
        hosts: Hosts,
        copies: Sequence[DiskCopy],
        wish: StorageWish,
        onlooker: Onlooker,
    ) -> None:
        self.vm = moved_vm(machine.vm, copies)
        self.copies = tuple(copies)
        self.report: tuple[str, ...] = ()
        self.copied: tuple[DiskCopied, ...] = ()
        self._machine, self._hosts, self._wish, self._onlooker = machine, hosts, wish, onlooker
        self._images = Images(hosts.destination, machine.vm.name)
        self._export: Export | None = None
        self._mirrored: Copies | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._begun = False
        self._identities: dict[str, list[int]] = {}
        self._taken: Sequence[int | None] = [None] * len(self.copies)

    async def make_images(self) -> None:
        """Make the images at the destination; after a failure none is left."""
        await self._images.make(self.copies, self._hosts.source)

    async def leave(self) -> None:
        """Remove the images where no move began with them; else their fate is settled, or open."""
        if not self._begun:
            await self._images.remove()

    async def before_memory(self, reception: Reception) -> None:
        """See `ports.Companion.before_memory`."""
        self._begun = True
        names = [copy.facts.name for copy in self.copies]
        address = replace(reception.address, port=self._wish.port, mptcp=False)
        self._export = await reception.machine.storage().export(address, names)
        self._mirrored = await self._mirror(self._export)
        await self._mirrored.until_ready()
        with suppress(HostError):  # only people look at it
            self._taken = await self._images.each_allocated(self.copies)
        self._keeping = asyncio.create_task(self._mirrored.keep())

    async def before_handover(self) -> None:
        """See `ports.Companion.before_handover`."""
        if self._mirrored is None or self._export is None:
            raise HostError("The disks are not copied yet, so the guest cannot go on there.")
        await self._look_on_no_more()
        await self._mirrored.finish()
        await self._export.stop()

    async def after_failure(self, machine: Machine | None) -> None:
        """See `ports.Companion.after_failure`.

        Raises:
            HostError: What is left over, and where.
        """
        with suppress(HostError):  # whatever it was, the move has failed already
            await self._look_on_no_more()
        self._begun = True
        failures: list[str] = []
        if machine is not None and self._mirrored is not None:
            with suppress(HostError):  # what it does not end is released below
                await self._mirrored.abandon()
        if self._export is not None:
            with suppress(HostError):  # it ends with the destination's process
                await self._export.stop()
        ends = [self._images.remove()]
        if machine is not None:
            ends.insert(0, machine.storage().release())
        for end in ends:
            try:
                await end
            except HostError as error:
                failures.append(error.what)
        if failures:
            raise HostError(f"Of the disks' move something is left: {' '.join(failures)}")

    async def after_arrival(self) -> None:
        """See `ports.Companion.after_arrival`."""
        await self._images.keep()
        self.report = tuple([await self._settle_source(copy) for copy in self.copies])
        self.copied = tuple(map(self._said, self.copies, self._taken, self.report))

    def _said(self, copy: DiskCopy, taken: int | None, note: str) -> DiskCopied:
        name, followed = copy.facts.name, self._mirrored
        done = followed.done.get(name) if followed else None
        return DiskCopied(
            name=name,
            old=self._old_path(copy),
            new=copy.place.path,
            data=done if taken is None else taken,
            time=followed.in_step.get(name) if followed else None,
            writes_waited=followed is not None and name in followed.waited,
            note=note,
        )

    async def _mirror(self, export: Export) -> Copies:
        storage = self._machine.storage()
        begun = Copies([], 0, self._sizes, self._onlooker)
        limits = shares(self._wish.rate, [False] * len(self.copies))
        try:
            for copy, limit in zip(self.copies, limits, strict=True):
                name = copy.facts.name
                await self._identify(copy)
                mirror = await storage.mirror(name, export.address, copy.extent, limit)
                begun = Copies(
                    [*begun.mirrors, mirror],
                    sum(each.data for each in self.copies),
                    self._sizes,
                    self._onlooker,
                    rate=self._wish.rate,
                    patience=self._wish.patience,
                )
        except BaseException:
            await begun.abandon()
            raise
        return begun

    async def _sizes(self) -> int | None:
        return await self._images.allocated(self.copies)

    async def _look_on_no_more(self) -> None:
        """End the looking on; raises what it raised."""
        task, self._keeping = self._keeping, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _identify(self, copy: DiskCopy) -> None:
        if self._wish.remove_source:
            path = self._old_path(copy)
            found = await self._hosts.source.ask("image_identity", path=path)
            if found is not None:
                self._identities[path] = found

    async def _settle_source(self, copy: DiskCopy) -> str:
        path = self._old_path(copy)
        where = f"{path} on {self._hosts.source.name}"
        if not self._wish.remove_source:
            return f"The old image is still there: {where}."
        identity = self._identities.get(path)
        if identity is None:
            return f"{where} is no file, so it was not removed."
        removed = await self._hosts.source.ask("image_discard", path=path, identity=identity)
        if removed:
            return f"The old image {where} was removed."
        return f"{where} is another file by now, so it was not removed."

    def _old_path(self, copy: DiskCopy) -> str:
        return next(d.path for d in self._machine.vm.disks if d.name == copy.facts.name)


class StorageWithin(StorageBeside):
    """Disks that the hypervisor's own move copies before memory; their images tell how far it is.

    They keep to the move's own bandwidth limit; `rate` and `patience` of the wish are not used.
    """

    pauses = False

    async def before_memory(self, reception: Reception) -> None:  # noqa: ARG002 - the port
        """See `ports.Companion.before_memory`; nothing is copied yet."""
        self._begun = True
        storage = self._machine.storage()
        if not isinstance(storage, Carrying):
            raise HostError(f"The hypervisor of {self._machine.vm.name} copies no disks.")
        for copy in self.copies:
            await self._identify(copy)
        names = [copy.facts.name for copy in self.copies]
        storage.carry(names, self._wish.extent, self._wish.port)
        self._keeping = asyncio.create_task(self._look_on())

    async def before_handover(self) -> None:
        """See `ports.Companion.before_handover`; nobody need wait for this."""

    async def after_arrival(self) -> None:
        """See `ports.Companion.after_arrival`."""
        await self._look_on_no_more()
        await super().after_arrival()

    async def leave(self) -> None:
        """Look on no more, and see `StorageBeside.leave`."""
        await self._look_on_no_more()
        await super().leave()

    async def _look_on(self) -> None:
        """Tell once a second what the images take, while that can be told."""
        began = before = time.monotonic()
        total, copied = sum(copy.data for copy in self.copies), 0
        with suppress(HostError):  # only people look at it
            while (taken := await self._images.allocated(self.copies)) is not None:
                now, last, copied = time.monotonic(), copied, min(taken, total)
                rate = max(0.0, (copied - last) / (now - before)) if last else 0.0
                before = now
                eta = (total - copied) / rate if rate else None
                told = StorageProgress(now - began, copied, total, rate, eta, self._each(copied))
                self._onlooker.copying(told)
                await asyncio.sleep(ASK_SIZES_EVERY)

    def _each(self, copied: int) -> tuple[tuple[str, Copying], ...]:
        """Return how far each disk is: one after the other, as far as can be seen from here."""
        found = []
        for copy in self.copies:
            done = min(copied, copy.data)
            copied -= done
            found.append((copy.facts.name, Copying(done, copy.data - done)))
        return tuple(found)


@asynccontextmanager
async def storage_beside(
    machine: Machine, hosts: Hosts, wish: StorageWish, onlooker: Onlooker
) -> AsyncIterator[StorageBeside]:
    """Make the images for a move of a VM with its disks, and yield what travels beside it.

    The move goes within the block: its request gets `vm` and the companion itself. Where it
    never began, the images are gone when the block is left.

    Raises:
        ConfigError: What was wished cannot be used.
        HostError: An image cannot be made; none is left.
    """
    facts = await machine.storage().disks()
    copies = placed_copies(machine.vm, facts, wish.places, wish.extent)
    kind = StorageWithin if isinstance(machine.storage(), Carrying) else StorageBeside
    beside = kind(machine, hosts, copies, wish, onlooker)
    await beside.make_images()
    try:
        yield beside
    finally:
        await beside.leave()

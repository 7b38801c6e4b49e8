"""What is asked of a machine's disks: facts, exports at a destination, copies at a source."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.storage import Copying, DiskFacts, DiskWrites, Extent


class Mirror(Protocol):
    """The copy of one disk on its way, and in step once it is ready."""

    @property
    def disk(self) -> str:
        """The disk's name."""

    async def progress(self) -> Copying:
        """Return how far it is; never raises for a copy that failed, but says so."""

    async def block_writes(self) -> None:
        """Let the guest's writes wait for their copies from now on (write-blocking)."""

    async def limit(self, rate: float | None) -> None:
        """Copy at most so many bytes per second in the background; None: no limit."""

    async def finish(self) -> None:
        """Make the copy whole and let go of it; the machine keeps its old disk.

        For a ready copy, best while its guest stands still: returns when both are the same.
        Raises `HostError` when the copy is not whole.
        """

    async def pivot(self) -> None:
        """Make the copy whole and let the machine go on with it; the old disk is let go.

        For a ready copy into an image of this host. Raises `HostError` when the machine still
        has its old disk.
        """

    async def abandon(self) -> None:
        """Give the copy up; the machine keeps its disk. Harmless when it has ended."""


class Export(Protocol):
    """Disks that a destination offers to be written, on the migration address."""

    @property
    def address(self) -> MigrationAddress:
        """Where, with the port that was found free, and the same key."""

    async def stop(self) -> None:
        """Offer nothing any more and listen no more; harmless when it has ended."""


class Storage(Protocol):
    """The disks of one machine.

    Disks are named as in its `Vm`. `HostError` and its kin are raised as everywhere.
    """

    async def disks(self) -> tuple[DiskFacts, ...]:
        """Return what the machine's disks are, in the order in which they are plugged."""

    async def writes(self) -> Mapping[str, DiskWrites]:
        """Return what the guest wrote to each disk since its machine began here."""

    async def export(self, address: MigrationAddress, disks: Sequence[str]) -> Export:
        """Offer disks to be written at a destination that has not received its guest yet."""

    async def mirror(
        self,
        disk: str,
        place: MigrationAddress | Disk,
        extent: Extent,
        rate: float | None = None,
    ) -> Mirror:
        """Begin to copy a disk to where it is exported, or into another image on this host.

        The other image is given as the disk that it will be. The place must be as large as the
        disk, and read as zeros where nothing was written (`Extent.WHOLE`) or as what the disk
        rests on (`Extent.TOP`). `rate` limits bytes per second. After a failure nothing of the
        copy is left.
        """

    async def release(self) -> None:
        """Give up every copy and export that whimbrel began here, this one or an earlier one."""


@runtime_checkable
class Carrying(Protocol):
    """A `Storage` whose disks go to another host within the hypervisor's own move.

    There is no mirror and no export then: whoever sends memory sends the disks before it, and
    both are whole when the guest arrives.
    """

    def carry(self, disks: Sequence[str], extent: Extent, port: int = 0) -> None:
        """Let the next move from here copy these disks; `release` takes that back.

        The destination's machine says where each lies there (`Vm.disks`); its images are there,
        as for `Storage.mirror`. They are taken at the migration address, at `port` (0: any).
        """

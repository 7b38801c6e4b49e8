"""What libvirt is asked of one VM's disks: a part of `connection.Domain`.

Numbers are those of libvirt's header libvirt-domain.h, which never change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.hypervisors.libvirt.disk_places import found, volumes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from whimbrel.hypervisors.libvirt.pool_calls import PoolCalls

T = TypeVar("T")

# virDomainBlockCopyFlags
_SHALLOW, _REUSE_EXT, _TRANSIENT_JOB, _SYNCHRONOUS_WRITES = 1, 2, 4, 8
_IN_BYTES = 1  # virDomainBlockJobSetSpeedFlags
_PIVOT = 2  # virDomainBlockJobAbortFlags


class DiskCalls(ABC):
    """Disks are named as the VM's definition names them: by their target (vda)."""

    connection: PoolCalls
    _handle: Any

    @abstractmethod
    async def xml(self, *, movable: bool = False) -> str:
        """Return what the VM is made of."""

    @abstractmethod
    async def _call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what one of libvirt's calls returns."""

    async def found_xml(self) -> str:
        """Return what it is made of, each volume of a pool as what lies behind it on its host.

        A volume that its pool does not tell of stays one.
        """
        xml = await self.xml()
        root = Tree.fromstring(xml)  # noqa: S314 - from the libvirt that we trust
        volumes = {volume for _, volume in volumes_of(root)}
        if not volumes:
            return xml
        seen = {each: await self.connection.volume(each) for each in volumes}
        found(root, {each: known for each, known in seen.items() if known is not None})
        return Tree.tostring(root, encoding="unicode")

    async def disk_size(self, target: str) -> int:
        """Return the virtual bytes of a disk, by libvirt's name of it (vda)."""
        return int((await self._call(self._handle.blockInfo, target))[0])

    async def disk_figures(self, target: str) -> dict[str, int]:
        """Return what was read and written since its machine began (`wr_bytes` and the like)."""
        return dict(await self._call(self._handle.blockStatsFlags, target, 0))

    async def copy_disk(self, target: str, xml: str, rate: float | None, *, shallow: bool) -> None:
        """Begin to copy a disk into an image that is there; `shallow`: its top image only.

        What the guest writes waits for its copy. `rate`: bytes per second; None: no limit.
        """
        flags = _REUSE_EXT | _TRANSIENT_JOB | _SYNCHRONOUS_WRITES | (_SHALLOW if shallow else 0)
        limit = {"bandwidth": round(rate)} if rate else {}
        await self._call(self._handle.blockCopy, target, xml, limit, flags)

    async def copy_job(self, target: str) -> dict[str, int]:
        """Return how far the copy of a disk is (`cur` of `end` bytes); empty: there is none."""
        return dict(await self._call(self._handle.blockJobInfo, target, 0))

    async def limit_copy(self, target: str, rate: float | None) -> None:
        """Limit the copy of a disk to so many bytes per second; None: no limit."""
        words = (target, round(rate or 0), _IN_BYTES)
        await self._call(self._handle.blockJobSetSpeed, *words)

    async def end_copy(self, target: str, *, pivot: bool = False) -> None:
        """Let go of the copy of a disk; `pivot`: go on with the copy. Returns when that is so."""
        await self._call(self._handle.blockJobAbort, target, _PIVOT if pivot else 0)

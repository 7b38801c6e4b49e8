"""What libvirt is asked of a host's storage pools: a part of `connection.Connection`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.hypervisors.libvirt.disk_places import Volume, VolumeSeen

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_BLOCK = 1  # virStorageVolType


class PoolCalls(ABC):
    """Pools are looked at, and never made, started or refreshed."""

    _handle: Any

    @abstractmethod
    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what one of libvirt's calls returns."""

    async def volume(self, volume: Volume) -> VolumeSeen | None:
        """Return what the host knows of a volume; None: it has no such pool, or no pools at all.

        A pool that is not active tells nothing of its volumes.
        """
        try:
            pools = await self.call(self._handle.listAllStoragePools, 0)
        except (CommandRefused, Unsupported):  # a libvirt without its storage driver
            return None
        pool = next((each for each in pools if each.name() == volume.pool), None)
        if pool is None:
            return None
        root = Tree.fromstring(await self.call(pool.XMLDesc, 0))  # noqa: S314 - our libvirt's
        kind, server = root.get("type", ""), _server(root)
        if not await self.call(pool.isActive):
            return VolumeSeen(active=False, kind=kind, server=server)
        volumes = await self.call(pool.listAllVolumes, 0)
        one = next((each for each in volumes if each.name() == volume.name), None)
        if one is None:
            return VolumeSeen(active=True, kind=kind, server=server)
        path, info = await self.call(one.path), await self.call(one.info)
        return VolumeSeen(active=True, kind=kind, path=path, block=info[0] == _BLOCK, server=server)


def _server(pool: Tree.Element) -> tuple[str, str, str]:
    """Return host, port and target of what a pool is served from."""
    host, device = pool.find("source/host"), pool.find("source/device")
    return (
        "" if host is None else host.get("name", ""),
        "" if host is None else host.get("port", ""),
        "" if device is None else device.get("path", ""),
    )

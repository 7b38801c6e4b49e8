"""What libvirt tells of its host, behind the port `Teller`: all there is without a shell."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.hypervisors.libvirt.facts import parsed
from whimbrel.model.survey import HostFacts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from whimbrel.hypervisors.libvirt.host import LibvirtHost

_MIGRATION_IN, _COMPLETED = 4, 3  # virDomainJobOperation, virDomainJobType


class LibvirtTeller:
    """The port's `Teller` of a host that libvirt runs."""

    def __init__(self, host: LibvirtHost) -> None:
        self._host = host

    @property
    def name(self) -> str:
        """See `ports.Teller.name`."""
        return self._host.name

    async def identity(self) -> str:
        """See `ports.Teller.identity`: the UUID by which libvirt itself tells hosts apart."""
        capabilities = await (await self._host.connection()).capabilities()
        return parsed(capabilities).findtext("host/uuid") or ""

    async def facts(self) -> HostFacts:
        """See `ports.Teller.facts`; of huge pages and NUMA nodes nothing is asked."""
        connection = await self._host.connection()
        cores, (memory, free) = await asyncio.gather(connection.cores(), connection.memory())
        return HostFacts(cores=cores, available_memory=free, memory=memory)

    async def idle(self) -> tuple[float, float]:
        """See `ports.Teller.idle`; the moment is this machine's."""
        idle = await (await self._host.connection()).idle()
        return asyncio.get_running_loop().time(), idle

    async def carried(self, vm: str) -> float | None:
        """See `ports.Teller.carried`; libvirt keeps the figures as long as the VM lives."""
        domain = await (await self._host.connection()).domain(vm)
        if domain is None:
            return None
        with suppress(CommandRefused, Unsupported):
            return arrival_rate(await domain.last_job())
        return None


def arrival_rate(job: Mapping[str, Any]) -> float | None:
    """Return the bytes per second of a job's memory, where it is a move that has arrived."""
    if (job.get("operation"), job.get("type")) != (_MIGRATION_IN, _COMPLETED):
        return None
    seconds = (job.get("time_elapsed", 0) - job.get("setup_time", 0)) / 1000
    sent = job.get("memory_processed", 0)
    return sent / seconds if seconds > 0 and sent > 0 else None

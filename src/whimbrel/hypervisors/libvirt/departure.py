"""The one call by which libvirt moves a VM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whimbrel.hypervisors.libvirt.connection import Domain
    from whimbrel.hypervisors.libvirt.machine import LibvirtReception


@dataclass(frozen=True)
class Departure:
    """libvirt's one call that moves a VM, and how to make it again.

    Attributes:
        domain: The VM.
        reception: Where it goes.
        flags: As libvirt names them.
        parameters: Its typed parameters.
    """

    domain: Domain
    reception: LibvirtReception
    flags: frozenset[str]
    parameters: Mapping[str, Any]

    async def carry_out(self, *, again: bool = False) -> None:
        """Move it; returns when libvirt has done all of it. `again`: take up a post-copy."""
        flags = self.flags | ({"POSTCOPY_RESUME"} if again else set())
        if self.reception.peer:
            flags |= {"PEER2PEER"}
            await self.domain.migrate_to(self.reception.peer, flags, self.parameters)
        else:
            await self.domain.migrate(self.reception.connection, flags, self.parameters)

"""A look into the memory of a guest on another host, behind the port `Inspection`.

QEMU is asked as anywhere; pages are read there and travel to whimbrel, or only their marks.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Any

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.hypervisors.qemu.inspect import QemuInspection
from whimbrel.ports import Look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whimbrel.hypervisors.qemu.monitor import Monitor
    from whimbrel.ports import Site

READS_WITHIN = 300.0
"""Seconds for an answer with pages: hundreds of megabytes may come over a slow network."""


class FarInspection(QemuInspection):
    """The port's `Inspection`: one QEMU process on the host of a site."""

    def __init__(self, monitor: Monitor, site: Site, pid: int, size: int) -> None:
        super().__init__(monitor, pid, size)
        self._site = site
        self._base: int | None = None

    async def provided(self) -> bytes:
        """See `ports.Inspection.provided`."""
        found: bytes = await self._ask("memory_provided")
        return found

    async def look(self, pages: Sequence[int]) -> Look:
        """See `ports.Inspection.look`; its clock is that host's."""
        found = await self._ask("memory_look", pages=_packed(pages))
        return Look(found["began"], found["ended"], found["marks"])

    async def read(self, pages: Sequence[int]) -> bytes:
        """See `ports.Inspection.read`."""
        found: bytes = await self._ask("memory_read", pages=_packed(pages))
        return found

    async def vcpu_seconds(self) -> tuple[float, ...]:
        """See `ports.Inspection.vcpu_seconds`."""
        threads = await self._threads()
        return tuple(await self._site.ask("vcpu_seconds", pid=self._pid, threads=threads))

    async def _ask(self, question: str, **arguments: Any) -> Any:
        place = {"pid": self._pid, "size": self._size}
        try:
            if self._base is None:
                self._base = await self._block() or await self._site.ask("memory_base", **place)
            return await self._site.ask(
                question, within=READS_WITHIN, base=self._base, **place, **arguments
            )
        except CommandRefused as error:
            raise Unsupported(
                f"The memory of process {self._pid} cannot be read: {error.what}",
                "Reach that host as root or as the user that QEMU runs as.",
            ) from error


def _packed(pages: Sequence[int]) -> bytes:
    numbers = array("Q", pages)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()

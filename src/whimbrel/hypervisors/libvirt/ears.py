"""What hears libvirt's events of one VM, from libvirt's thread into an event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.states import Happening
    from whimbrel.model.migration import Side


class Ears:
    """What hears libvirt tell of one VM; to be closed."""

    def __init__(
        self, among: list[Ears], domain_id: str, side: Side, heard: asyncio.Queue[Happening]
    ) -> None:
        self._among, self._domain_id = among, domain_id
        self._side, self._heard = side, heard
        self._loop = asyncio.get_running_loop()
        among.append(self)

    def close(self) -> None:
        """Listen no more; harmless when that is so."""
        if self in self._among:
            self._among.remove(self)

    def hear(self, domain_id: str, happening: Happening) -> None:
        """Take what was told, in libvirt's thread."""
        if domain_id == self._domain_id:
            with suppress(RuntimeError):  # the loop has ended
                mine = replace(happening, side=self._side)
                self._loop.call_soon_threadsafe(self._heard.put_nowait, mine)

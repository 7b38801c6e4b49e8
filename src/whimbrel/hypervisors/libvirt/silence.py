"""How long a move has carried nothing, by libvirt's figures alone.

TCP tries for a quarter of an hour before it gives a connection up (tcp(7), tcp_retries2). Where a
shell leads to the source, QEMU's own connections are given less patience; everywhere else, and for
the connections of disks, whose port libvirt may have chosen, the figures stand for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whimbrel.hypervisors.libvirt.translate import has_disks, has_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

SILENT_AT_MOST = 30.0
"""Seconds for which neither memory nor a disk may get on: as long as copies on plain QEMU, and
longer than a connection that is looked after itself."""


class Silence:
    """What a move has carried, and since when no more.

    Args:
        now: By the clock of whoever asks, seconds.
    """

    def __init__(self, now: float) -> None:
        self._carried, self._since = (0, 0), now

    def too_long(self, job: Mapping[str, Any], now: float) -> bool:
        """Tell whether the figures of a job have stood still for too long, as they are now."""
        carried = (job.get("memory_processed", 0), job.get("disk_processed", 0))
        begun = has_memory(job) or has_disks(job)
        if carried != self._carried or not begun:
            self._carried, self._since = carried, now
        return now - self._since > SILENT_AT_MOST

"""What a guest writes to the disks that shall be copied: two looks at QEMU's counters."""

import asyncio
from collections.abc import Sequence

from whimbrel.model.storage import DiskLoad
from whimbrel.ports import Machine
from whimbrel.practice.storage_places import DiskCopy

WINDOW = 1.0
"""Seconds between the looks, unless told."""


async def disk_loads(
    machine: Machine, copies: Sequence[DiskCopy], window: float = WINDOW
) -> tuple[DiskLoad, ...]:
    """Watch a guest's writes for a while, and return what theory must know of each disk.

    Where writes fall is not seen; they are taken to fall anywhere among what is allocated.
    """
    storage = machine.storage()
    before = await storage.writes()
    await asyncio.sleep(window)
    after = await storage.writes()
    loads = []
    for copy in copies:
        name = copy.facts.name
        size = after[name].size - before[name].size
        count = after[name].count - before[name].count
        area = max(copy.data, size)
        if count > 0:
            loads.append(DiskLoad(copy.data, area, size / window, size / count))
        else:
            loads.append(DiskLoad(copy.data, area))
    return tuple(loads)

"""Keeps memory of this machine warm between runs, so that runs can be compared.

A lab often runs inside a virtual machine whose own host takes free memory back (balloon, free
page reporting). Memory that lay free for some seconds then has to be fetched again, page by
page, from two systems instead of one: 4 GiB may take 0.5 s or 13 s on the very same machine.
What a destination touches first would decide the figures, not the method. So a holder keeps as
much memory as the next destination needs, and lets it go while the destination takes it: some
of it just before the move is requested, the rest as the free memory of this machine shrinks,
since a move may take longer than free memory is left alone (two seconds, PAGE_REPORTING_DELAY in
mm/page_reporting.c). Real hosts have no such layer below them, and nothing else is changed by it.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from types import TracebackType
from typing import Self

import psutil

from whimbrel.hypervisors.qemu.process import kill
from whimbrel.model.units import GIB

_RESERVE = 2 * GIB
"""Bytes that must stay available besides; a lab must not make its machine swap."""

_AHEAD = GIB // 2
"""Bytes that are free for the destination, and not held any more, at any time."""

_HOLD = """
import mmap, os, sys, time

def free():
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

held = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_HUGEPAGE)
try:
    held.madvise(23)  # MADV_POPULATE_WRITE, Linux 5.14
except OSError:
    for page in range(0, len(held), 4096):
        held[page] = 1
print("held", flush=True)
if sys.stdin.readline():
    gone, step, least, told = 0, 32 << 20, free() + int(sys.argv[2]), False
    while gone < len(held):
        if free() < least:
            held.madvise(mmap.MADV_DONTNEED, gone, min(step, len(held) - gone))
            gone += step
            continue
        if not told:
            print("going", flush=True)
            told = True
        time.sleep(0.005)
    print("gone", flush=True)
"""


class WarmMemory:
    """Holds so many bytes between `hold` and `release`; ends what it started when left."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._holder: Process | None = None
        self._whole = self._released = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def hold(self) -> None:
        """Begin to hold, without waiting until all is held; nothing where memory is short."""
        if self._released:
            await self._end()
        if self._holder is not None or psutil.virtual_memory().available < self._size + _RESERVE:
            return
        self._whole = False
        words = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", _HOLD]
        self._holder = await asyncio.create_subprocess_exec(
            *words, str(self._size), str(_AHEAD), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )

    async def held(self) -> None:
        """Wait until all is held; until then holding takes a core that others would miss."""
        holder = self._holder
        if holder is not None and holder.stdout is not None and not self._whole:
            await holder.stdout.readline()
            self._whole = True

    async def release(self) -> None:
        """Wait until all is held, and begin to let it go; returns when there is some to take."""
        holder = self._holder
        if holder is None or holder.stdin is None or holder.stdout is None or self._released:
            return
        await self.held()
        self._released = True
        holder.stdin.write(b"let go\n")
        await holder.stdout.readline()

    async def _end(self) -> None:
        holder, self._holder, self._released = self._holder, None, False
        if holder is not None:
            kill(holder)
            # Not cut short by a cancellation: nothing of the lab may outlive it.
            await asyncio.shield(holder.communicate())

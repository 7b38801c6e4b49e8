"""A look into the memory of a guest that libvirt runs, behind the port `Inspection`.

Where a shell leads to the host, pages are read past QEMU, as for any other guest. Elsewhere
libvirt itself hands out pages (virDomainMemoryPeek), which takes long: for a few thousand.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
from array import array
from typing import TYPE_CHECKING, Any

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.model.units import GIB, MIB, PAGE
from whimbrel.ports import IN_MEMORY, Look, Written

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from whimbrel.hypervisors.libvirt.connection import Domain
    from whimbrel.ports import Site

READS_WITHIN = 300.0
"""Seconds for an answer with pages."""

SHORTEST, LONGEST = 1, 60
"""Seconds that libvirt can be asked to count for (virDomainStartDirtyRateCalc)."""

SAMPLED = 512
"""Pages per GiB of which QEMU keeps a mark when libvirt lets it count."""

PEEKED = 64 << 10
"""Bytes that libvirt hands out at once (virDomainMemoryPeek)."""

_AT_ONCE = 4  # a libvirtd answers five questions of one connection at a time
_MEASURED = 2  # virDomainDirtyRateStatus
_ASK_AGAIN = 0.05
_MARK = 8
_ZERO = bytes(PAGE)


class LibvirtInspection:
    """The port's `Inspection`: one VM of libvirt's.

    Args:
        domain: Finds it.
        site: Leads to its host; None: only libvirt does.
        pid: Its process there; None: not known.
        size: Bytes of guest memory.
    """

    def __init__(
        self, domain: Callable[[], Awaitable[Domain]], site: Site | None, pid: int | None, size: int
    ) -> None:
        self._domain, self._site, self._pid, self._size = domain, site, pid, size
        self._base: int | None = None

    @property
    def pages(self) -> int:
        """See `ports.Inspection.pages`."""
        return self._size // PAGE

    async def provided(self) -> bytes:
        """See `ports.Inspection.provided`; libvirt tells nobody, so all count as in memory."""
        if self._pid is None:
            return bytes([IN_MEMORY]) * self.pages
        found: bytes = await self._ask("memory_provided")
        return found

    async def look(self, pages: Sequence[int]) -> Look:
        """See `ports.Inspection.look`; its clock is that host's, or this machine's."""
        if self._pid is None:
            clock = asyncio.get_running_loop().time
            began = clock()
            content = await self.read(pages)
            return Look(began, clock(), marks_of(content))
        found = await self._ask("memory_look", pages=_packed(pages))
        return Look(found["began"], found["ended"], found["marks"])

    async def read(self, pages: Sequence[int]) -> bytes:
        """See `ports.Inspection.read`."""
        if self._pid is None:
            return await self._peeked(pages)
        found: bytes = await self._ask("memory_read", pages=_packed(pages))
        return found

    async def _peeked(self, pages: Sequence[int]) -> bytes:
        domain, turn = await self._domain(), asyncio.Semaphore(_AT_ONCE)

        async def peek(place: tuple[int, int]) -> bytes:
            async with turn:
                return await domain.peek(*place)

        places = stretches(pages, gap_below_4_gib(self._size))
        return b"".join(await asyncio.gather(*map(peek, places)))

    async def written(self, window: float) -> Written:
        """See `ports.Inspection.written`; whole seconds only."""
        seconds = round(window)
        if seconds != window or not SHORTEST <= seconds <= LONGEST:
            raise Unsupported(f"libvirt counts whole seconds, {SHORTEST} to {LONGEST}.")
        domain = await self._domain()
        await domain.count_writes(seconds)
        await asyncio.sleep(seconds)
        while True:  # no event tells that it is done
            told = await domain.counted_writes()
            if told.get("dirtyrate.calc_status") == _MEASURED:
                break
            await asyncio.sleep(_ASK_AGAIN)
        return counted(window, int(told["dirtyrate.megabytes_per_second"]), self.pages)

    async def free_bytes(self) -> int | None:
        """See `ports.Inspection.free_bytes`; what the balloon has told by itself."""
        free = (await (await self._domain()).memory_facts()).get("unused")
        return None if free is None else min(1024 * free, self._size)

    async def vcpu_seconds(self) -> tuple[float, ...]:
        """See `ports.Inspection.vcpu_seconds`."""
        return tuple(each / 1e9 for each in await (await self._domain()).vcpu_times())

    async def _ask(self, question: str, **arguments: Any) -> Any:
        assert self._site is not None  # noqa: S101 - a process is known only through a site
        place: dict[str, Any] = {"pid": self._pid, "size": self._size}
        try:
            if self._base is None:
                self._base = await self._site.ask("memory_base", **place)
            return await self._site.ask(
                question, within=READS_WITHIN, base=self._base, **place, **arguments
            )
        except CommandRefused as error:
            raise Unsupported(
                f"The memory of process {self._pid} cannot be read: {error.what}",
                "Reach that host as root or as the user that QEMU runs as.",
            ) from error


def counted(window: float, rate: int, pages: int) -> Written:
    """Turn libvirt's count into pages.

    Args:
        window: Seconds.
        rate: Distinct MiB per second, cut to a whole number by QEMU.
        pages: Pages of the guest.
    """
    step = window * MIB / PAGE
    found = min((rate + 0.5) * step, float(pages)) if rate else 0.0
    sampled = max(1.0, pages * PAGE / GIB * SAMPLED)
    share = min(max(found / pages, 1 / sampled), 1.0)
    chance = pages * math.sqrt(share * (1 - share) / sampled)
    return Written(window, found, math.hypot(chance, step / math.sqrt(12)))


def marks_of(content: bytes) -> bytes:
    """Return 8 bytes for each page: zeros for a zero page, else what tells its content."""
    pages = (content[start : start + PAGE] for start in range(0, len(content), PAGE))
    return b"".join(
        hashlib.blake2b(page, digest_size=_MARK).digest() if page != _ZERO else bytes(_MARK)
        for page in pages
    )


def gap_below_4_gib(size: int) -> int:
    """Return where q35 machines leave a gap below 4 GiB, in bytes (hw/i386/pc_q35.c)."""
    return 2 * GIB if size >= 0xB0000000 else size  # noqa: PLR2004 - as there


def address(page: int, gap: int) -> int:
    """Return the guest-physical address of a page of guest memory."""
    offset = page * PAGE
    return offset if offset < gap else offset - gap + 4 * GIB


def stretches(pages: Sequence[int], gap: int) -> list[tuple[int, int]]:
    """Return where pages lie, in their order: addresses and bytes, neighbours put together."""
    found: list[tuple[int, int]] = []
    for page in pages:
        place = address(page, gap)
        if found and sum(found[-1]) == place and found[-1][1] < PEEKED:
            found[-1] = (found[-1][0], found[-1][1] + PAGE)
        else:
            found.append((place, PAGE))
    return found


def _packed(pages: Sequence[int]) -> bytes:
    numbers = array("Q", pages)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()

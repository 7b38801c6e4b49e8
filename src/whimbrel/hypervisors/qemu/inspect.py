"""A look into the memory of a guest that QEMU runs, behind the port `Inspection`.

Where guest memory lies in QEMU's process is asked of QEMU (x-query-ramblock); pages are then
read past it. Counting by QEMU itself (calc-dirty-rate) is for those who may not read.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.hypervisors.qemu.guest_memory import GuestMemory, Numbers
from whimbrel.model.units import GIB, MIB, PAGE
from whimbrel.ports import Look, Written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whimbrel.hypervisors.qemu.monitor import Monitor

SAMPLED = 16384
"""Pages per GiB that calc-dirty-rate hashes, its maximum (qapi/migration.json)."""

BITMAP_UP_TO = 1.0
"""Seconds of the longest window that is counted by dirty logging, which slows the writer."""

_LOGGING = "dirty-bitmap"
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_STATS_WITHIN = 1.6
"""Seconds for the guest's balloon driver to answer; it is asked once a second."""
_ASK_AGAIN = 0.05
_INTERVAL = "guest-stats-polling-interval"
_UNKNOWN = 1 << 63
_ROW = re.compile(
    r"^\s*\S+\s+\S+ \w+\s+0x\w+\s+0x(?P<used>\w+)\s+0x\w+\s+0x(?P<address>\w+)\s+rw",
    re.MULTILINE,
)
"""A writable block in QEMU's table: name, page size, offset, used, total, host address, rw."""


class QemuInspection:
    """The port's `Inspection`: one QEMU process."""

    def __init__(self, monitor: Monitor, pid: int, size: int) -> None:
        self._monitor, self._pid, self._size = monitor, pid, size
        self._memory: GuestMemory | None = None

    @property
    def pages(self) -> int:
        """See `ports.Inspection.pages`."""
        return self._size // PAGE

    async def provided(self) -> bytes:
        """See `ports.Inspection.provided`."""
        return await asyncio.to_thread((await self._found()).provided)

    async def look(self, pages: Sequence[int]) -> Look:
        """See `ports.Inspection.look`."""
        return await asyncio.to_thread((await self._found()).look, _numbers(pages))

    async def read(self, pages: Sequence[int]) -> bytes:
        """See `ports.Inspection.read`."""
        return await asyncio.to_thread((await self._found()).read, _numbers(pages))

    async def written(self, window: float) -> Written:
        """See `ports.Inspection.written`; by sampling, or on KVM by logging short windows."""
        logged = await self._begin_counting(window)
        await asyncio.sleep(window)
        return counted(window, await self._measured(), self.pages, logged=logged)

    async def free_bytes(self) -> int | None:
        """See `ports.Inspection.free_bytes`."""
        balloon = await self._balloon()
        if balloon is None:
            return None
        before = await self._property(balloon, _INTERVAL)
        if not before:
            await self._set(balloon, _INTERVAL, 1)
        try:
            async with asyncio.timeout(_STATS_WITHIN):
                return await self._fresh_stats(balloon)
        except TimeoutError:
            return None  # the guest has no driver for it, or is too busy
        finally:
            if not before:
                await self._set(balloon, _INTERVAL, 0)

    async def vcpu_seconds(self) -> tuple[float, ...]:
        """See `ports.Inspection.vcpu_seconds`; where vCPUs share a thread, it counts once."""
        seconds = []
        for thread in await self._threads():
            with suppress(OSError):  # gone, or hidden from us
                text = Path(f"/proc/{self._pid}/task/{thread}/stat").read_text()
                fields = text.rpartition(")")[2].split()  # fields[0] is field 3 of proc(5)
                seconds.append((int(fields[11]) + int(fields[12])) * _TICK)
        return tuple(seconds)

    async def _threads(self) -> list[int]:
        vcpus = await self._monitor.execute("query-cpus-fast")
        return list(dict.fromkeys(int(vcpu["thread-id"]) for vcpu in vcpus))

    async def _found(self) -> GuestMemory:
        if self._memory is None:
            base = await self._block() or _mapping(self._pid, self._size)
            self._memory = GuestMemory(self._pid, base, self._size)
        return self._memory

    async def _block(self) -> int | None:
        """Return the address of guest memory in QEMU, where QEMU tells it."""
        with suppress(CommandRefused):  # it is marked unstable
            answer = await self._monitor.execute("x-query-ramblock")
            return block_address(str(answer["human-readable-text"]), self._size)
        return None

    async def _begin_counting(self, window: float) -> bool:
        """Begin in the best way that this QEMU takes; tell whether every page is counted."""
        refusals = []
        for question in questions(window, logs=await self._logs()):
            try:
                await self._monitor.execute("calc-dirty-rate", question)
            except CommandRefused as error:
                refusals.append(error)
            else:
                return question.get("mode") == _LOGGING
        raise Unsupported(f"This QEMU does not count dirty pages for {window:g} s.") from refusals[
            -1
        ]

    async def _measured(self) -> int:
        while True:  # no event tells that it is done
            answer = await self._monitor.execute("query-dirty-rate")
            if answer["status"] == "measured":
                return int(answer["dirty-rate"])
            await asyncio.sleep(_ASK_AGAIN)

    async def _logs(self) -> bool:
        # Under TCG the count of logged pages stays 0 (physmem.c 1268, kvm-all.c 762).
        return bool((await self._monitor.execute("query-kvm"))["enabled"])

    async def _balloon(self) -> str | None:
        for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
            for entry in await self._monitor.execute("qom-list", {"path": folder}):
                if "virtio-balloon" in entry["type"]:
                    return f"{folder}/{entry['name']}"
        return None

    async def _fresh_stats(self, balloon: str) -> int | None:
        first: Mapping[str, Any] = await self._property(balloon, "guest-stats")
        while True:
            found: Mapping[str, Any] = await self._property(balloon, "guest-stats")
            if found["last-update"] != first["last-update"]:
                return known_free(found)
            await asyncio.sleep(_ASK_AGAIN)

    async def _property(self, path: str, name: str) -> Any:
        return await self._monitor.execute("qom-get", {"path": path, "property": name})

    async def _set(self, path: str, name: str, value: int) -> None:
        arguments = {"path": path, "property": name, "value": value}
        await self._monitor.execute("qom-set", arguments)


def questions(window: float, *, logs: bool) -> list[dict[str, Any]]:
    """Return the arguments for calc-dirty-rate to be tried in turn, the best first.

    Logging is refused where KVM has a dirty ring, milliseconds before 8.2.

    Args:
        window: Seconds.
        logs: Whether this QEMU counts what it logs, as with KVM.
    """
    ways: list[dict[str, Any]] = [{"mode": _LOGGING}] if logs and window <= BITMAP_UP_TO else []
    ways.append({"sample-pages": SAMPLED})
    fine = [{"calc-time": round(window * 1000), "calc-time-unit": "millisecond"} | w for w in ways]
    whole = window >= 1 and window == int(window)
    return fine + ([{"calc-time": int(window)} | way for way in ways] if whole else [])


def counted(window: float, rate: int, pages: int, *, logged: bool) -> Written:
    """Turn calc-dirty-rate's answer into pages.

    Args:
        window: Seconds.
        rate: Distinct MiB per second, cut to a whole number by QEMU.
        pages: Pages of the guest.
        logged: Whether every page was counted, rather than a sample.
    """
    step = window * MIB / PAGE
    found = min((rate + 0.5) * step, float(pages)) if rate else 0.0
    sampled = pages if logged else max(1.0, pages * PAGE / GIB * SAMPLED)
    share = max(found / pages, 1 / sampled)
    chance = 0.0 if logged else pages * math.sqrt(share * (1 - min(share, 1.0)) / sampled)
    return Written(window, found, math.hypot(chance, step / math.sqrt(12)))


def block_address(table: str, size: int) -> int | None:
    """Find the block of guest memory, `size` bytes, in QEMU's table of RAM blocks."""
    rows = [row for row in _ROW.finditer(table) if int(row["used"], 16) == size]
    return int(rows[0]["address"], 16) if len(rows) == 1 else None


def known_free(answer: Mapping[str, object]) -> int | None:
    """Read free memory from the balloon's statistics; None where the guest does not say."""
    stats = answer.get("stats")
    free = stats.get("stat-free-memory") if isinstance(stats, dict) else None
    return free if isinstance(free, int) and 0 <= free < _UNKNOWN else None


def _mapping(pid: int, size: int) -> int:
    """Find guest memory by its size among a process's mappings, where QEMU does not tell."""
    starts = []
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, _, last = line.split()[0].partition("-")
            if int(last, 16) - int(first, 16) == size:
                starts.append(int(first, 16))
    if len(starts) != 1:
        raise Unsupported(f"Where process {pid} holds guest memory cannot be told.")
    return starts[0]


def _numbers(pages: Sequence[int]) -> Numbers:
    return np.asarray(pages, dtype=np.uint64)

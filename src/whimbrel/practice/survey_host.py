"""What this host has and can do: idle cores, memory, and the cost of touching and copying it.

To be run on the host it speaks of. What only a move can tell (set-up, device state, stopping)
is not measured here: it comes with the profile that past moves have left.
"""

import ctypes
import mmap
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from whimbrel.model.memory import CipherCost, HostProfile
from whimbrel.model.method import Compression
from whimbrel.model.survey import HostFacts, NumaNode
from whimbrel.model.units import KIB, MIB, PAGE
from whimbrel.practice.survey_content import Shortened

ERROR = 0.05
"""Relative uncertainty of a host's seconds: what was timed here is not yet a hypervisor."""

_MEMINFO = Path("/proc/meminfo")
_NODES = Path("/sys/devices/system/node")
_CHUNK = 1 * MIB

_COPIES = 5
"""How often copying is timed: one trial met others' work, or not, by up to twice the time."""


@dataclass(frozen=True)
class Idle:
    """The host's cores since boot; subtract two of them.

    Attributes:
        at: Seconds.
        idle: Seconds that cores were idle, all cores together.
    """

    at: float
    idle: float


def idle_now() -> Idle:
    """Read /proc/stat; the machine's own hypervisor may have taken more."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    ticks = int(fields[4]) + int(fields[5])  # idle and iowait, proc(5)
    return Idle(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"))


def spare_cores(before: Idle, after: Idle, own: float) -> float:
    """Return the cores that were idle between two readings, or busy for the survey only.

    Args:
        before: The first reading.
        after: The second, later.
        own: CPU seconds that the survey used between them.
    """
    seconds = max(after.at - before.at, 1e-6)
    return max(0.0, (after.idle - before.idle + own) / seconds)


def facts() -> HostFacts:
    """Return what this host has."""
    figures = _sizes(_MEMINFO.read_text())
    return HostFacts(
        cores=len(os.sched_getaffinity(0)),
        available_memory=figures.get("MemAvailable", 0),
        memory=figures.get("MemTotal", 0),
        huge_page=figures.get("Hugepagesize", 0),
        free_huge_pages=figures.get("HugePages_Free", 0),
        nodes=tuple(_node(folder) for folder in sorted(_NODES.glob("node[0-9]*"))),
    )


def costed(
    base: HostProfile, spare: float, shortened: Mapping[Compression, Shortened], touched: int
) -> HostProfile:
    """Return the profile with what can be measured in some milliseconds measured.

    Args:
        base: What past moves, or the defaults, say.
        spare: Cores left for the move.
        shortened: What each codec that was timed made of the guest's pages.
        touched: Bytes of memory to touch, huge pages asked for, as QEMU does.
    """
    tried = [copying() for _ in range(_COPIES)]
    timed = {codec: found for codec, found in shortened.items() if found.speed > 0}
    return replace(
        base,
        spare_cores=spare,
        copy_seconds=median(sent for sent, _ in tried),
        receive_seconds=median(received for _, received in tried),
        touch_seconds=first_touch(touched),
        error=max(base.error, ERROR),
        compress_speed={**base.compress_speed, **{c: s.speed for c, s in timed.items()}},
        restore_speed={**base.restore_speed, **{c: s.restoring for c, s in timed.items()}},
    )


def ciphered(profile: HostProfile, told: Mapping[str, Any] | None) -> HostProfile:
    """Return the profile with what TLS costs, as the question `cipher` was answered.

    A host that could not say (None) keeps what `profile` has.
    """
    if told is None:
        return profile
    encrypting, decrypting = (
        CipherCost(float(told[end]["speed"]), float(told[end]["record"]))
        for end in ("encrypt", "decrypt")
    )
    return replace(profile, encrypting=encrypting, decrypting=decrypting)


def first_touch(size: int) -> float:
    """Return the seconds that the first touch of a page adds to writing it.

    The better of two: memory that lay free for long may take forty times as long the first
    time where this host is itself a guest. More than the caches hold should be touched.
    """
    return min(_first_touch(size) for _ in range(2))


def _first_touch(size: int) -> float:
    with closing(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        first, again = (_fill(address, size) for _ in range(2))
        del view  # or the mapping cannot be closed
    return max(0.0, first - again) * PAGE / size


def copying(size: int = 16 * MIB) -> tuple[float, float]:
    """Return CPU seconds per page to send and to receive, over TCP within this host.

    Over loopback the sender also does the network's work, so the first is rather too much.
    """
    spent: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=_send, args=(server.getsockname(), size, spent))
        sender.start()
        received = _receive(server, size)
        sender.join()
    return spent[0] * PAGE / size, received * PAGE / size


def _send(address: tuple[str, int], size: int, spent: list[float]) -> None:
    content = bytearray(_CHUNK)
    with socket.create_connection(address) as connection:
        began = time.thread_time()
        for _ in range(size // _CHUNK):
            content.find(b"\1")  # looks at every byte, as the search for zero pages does
            connection.sendall(content)
        spent.append(time.thread_time() - began)


def _receive(server: socket.socket, size: int) -> float:
    buffer = memoryview(bytearray(_CHUNK))
    connection = server.accept()[0]
    with connection:
        began, left = time.thread_time(), size
        while left > 0 and (got := connection.recv_into(buffer)):
            left -= got
        return time.thread_time() - began


def _fill(address: int, size: int) -> float:
    began = time.monotonic()
    ctypes.memset(address, 1, size)
    return time.monotonic() - began


def _node(folder: Path) -> NumaNode:
    figures = _sizes((folder / "meminfo").read_text())
    cores = (folder / "cpulist").read_text().strip()
    return NumaNode(_listed(cores), figures.get("MemFree", 0))


def _sizes(text: str) -> dict[str, int]:
    """Read "Name: 12 kB" lines as bytes, those without a unit as they stand."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            scale = KIB if words[-1] == "kB" else 1
            found[name.split()[-1]] = int(words[0]) * scale
    return found


def _listed(text: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)

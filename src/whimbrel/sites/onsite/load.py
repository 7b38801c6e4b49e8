"""How busy a host is, and what touching, copying and compressing memory costs on it.

Bytes and seconds throughout; `at` is this host's monotonic clock.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import threading
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

_PAGE = 4096
_CHUNK = 1 << 20
_COPIED = 16 << 20
_COPIES = 5
_STEPPED_BACK = 10
"""Niceness of the measurements: guests come first (nice(7))."""
_TRIALS = 3
_TICK = os.sysconf("SC_CLK_TCK")


def idle() -> dict[str, float]:
    """Return the seconds that cores have been idle since boot, all together."""
    every = _cores()[""]
    return {"at": time.monotonic(), "idle": every[1]}


def counters(pid: int | None = None) -> dict[str, Any]:
    """Return what can be watched while a guest moves: subtract two answers.

    interfaces: bytes received and sent, by name. cores: seconds busy and idle, one for each.
    nodes: free bytes of each NUMA node. memory: bytes in all and available. process: CPU
    seconds and resident bytes of `pid`; None where there is none.

    Args:
        pid: A process to be told of.
    """
    memory = _sizes(Path("/proc/meminfo").read_text())
    cores = {name: busy_idle for name, busy_idle in _cores().items() if name}
    return {
        "at": time.monotonic(),
        "interfaces": _interfaces(),
        "cores": [
            {"core": int(name), "busy": busy, "idle": idle} for name, (busy, idle) in cores.items()
        ],
        "nodes": _free_by_node(),
        "memory": {
            "total": memory.get("MemTotal", 0),
            "available": memory.get("MemAvailable", 0),
        },
        "process": None if pid is None else _process(pid),
    }


def cost(touched: int, sample: bytes = b"") -> dict[str, float]:
    """Return what moving memory costs here: seconds per page to copy, receive and touch.

    copy and receive are CPU seconds over TCP within this host, so the first is rather too
    much; touch is what the first touch adds to writing. deflate is zlib's speed at level 1 on
    `sample` in bytes per second, 0 without one: codecs timed elsewhere scale by it.

    Args:
        touched: Bytes of memory to touch; more than the caches hold.
        sample: What to compress.
    """
    with suppress(OSError):  # the priority of this thread only, which ends with the answer
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _STEPPED_BACK)
    tried = [_copying() for _ in range(_COPIES)]
    spare = _sizes(Path("/proc/meminfo").read_text()).get("MemAvailable", 0)
    size = min(touched, spare // 8) // _CHUNK * _CHUNK
    return {
        "copy": median(sent for sent, _ in tried),
        "receive": median(received for _, received in tried),
        "touch": min(_first_touch(size) for _ in range(2)) if size else 0.0,
        "deflate": deflating(sample) if sample else 0.0,
    }


def deflating(sample: bytes) -> float:
    """Return the bytes per second that zlib's level 1 takes of a sample; the best of three."""
    times = []
    for _ in range(_TRIALS):
        began = time.thread_time()
        zlib.compress(sample, 1)
        times.append(time.thread_time() - began)
    return len(sample) / max(min(times), 1e-9)


def _cores() -> dict[str, tuple[float, float]]:
    """Read /proc/stat: seconds busy and idle of each core by number, and of all by ""."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("cpu"):
            # guest time is in user time already; idle and iowait are fields 4 and 5 (proc(5))
            ticks = [int(field) for field in rest.split()[:8]]
            unused = ticks[3] + ticks[4]
            found[name[3:]] = ((sum(ticks) - unused) / _TICK, unused / _TICK)
    return found


def _interfaces() -> dict[str, dict[str, int]]:
    found = {}
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]:
        name, _, figures = line.partition(":")
        fields = figures.split()
        found[name.strip()] = {"received": int(fields[0]), "sent": int(fields[8])}
    found.pop("lo", None)
    return found


def _free_by_node() -> dict[str, int]:
    return {
        folder.name[4:]: _sizes((folder / "meminfo").read_text()).get("MemFree", 0)
        for folder in sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    }


def _process(pid: int) -> dict[str, float] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICK  # fields[0] is field 3 of proc(5)
    return {"cpu": cpu, "resident": pages * mmap.PAGESIZE}


def _sizes(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            found[name.split()[-1]] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found


def _copying() -> tuple[float, float]:
    spent: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=_send, args=(server.getsockname(), spent), daemon=True)
        sender.start()
        received = _receive(server)
        sender.join()
    return spent[0] * _PAGE / _COPIED, received * _PAGE / _COPIED


def _send(address: tuple[str, int], spent: list[float]) -> None:
    content = bytearray(_CHUNK)
    with socket.create_connection(address) as connection:
        began = time.thread_time()
        for _ in range(_COPIED // _CHUNK):
            content.find(b"\1")  # looks at every byte, as the search for zero pages does
            connection.sendall(content)
        spent.append(time.thread_time() - began)


def _receive(server: socket.socket) -> float:
    buffer = memoryview(bytearray(_CHUNK))
    with server.accept()[0] as connection:
        began, left = time.thread_time(), _COPIED
        while left > 0:
            got = connection.recv_into(buffer)
            if not got:
                break
            left -= got
        return time.thread_time() - began


def _first_touch(size: int) -> float:
    with closing(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) as memory:
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        first, again = (_fill(address, size) for _ in range(2))
        del view  # or the mapping cannot be closed
    return max(0.0, first - again) * _PAGE / size


def _fill(address: int, size: int) -> float:
    began = time.monotonic()
    ctypes.memset(address, 1, size)
    return time.monotonic() - began


QUESTIONS = {"idle": idle, "counters": counters, "cost": cost}

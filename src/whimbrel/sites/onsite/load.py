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
_GATHERED = 32
"""Pages of one write of QEMU's plain stream: 64 pieces, each page led by a header."""
_WINDOW = 32 << 10
"""What QEMU's plain stream reads at once (IO_BUF_SIZE, qemu-file.c)."""
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


def thread_seconds(pid: int) -> dict[str, float]:
    """Return the CPU seconds of a process's threads by name, those of one name together.

    A thread that has ended counts no more.

    Raises:
        OSError: There is no such process.
    """
    found: dict[str, float] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            before, _, after = (folder / "stat").read_text().rpartition(")")
            name = before.partition("(")[2]
            found[name] = found.get(name, 0.0) + _ran(folder, after.split())
    return found


def _ran(folder: Path, fields: list[str]) -> float:
    """Return the CPU seconds of a thread: to the nanosecond, or else by clock ticks.

    Ticks count a thread when one falls while it runs; one that wakes for a few pages at a time
    may never be met.
    """
    with suppress(OSError, ValueError, IndexError):
        if (exact := int((folder / "schedstat").read_text().split()[0])) > 0:
            return exact / 1e9
    return (int(fields[11]) + int(fields[12])) / _TICK


def cost(touched: int, sample: bytes = b"") -> dict[str, float]:
    """Return what moving memory costs here: seconds per page to copy, receive and touch.

    copy and receive are CPU seconds over TCP within this host, so the first is rather too
    much; scatter is receive where a stream reads straight into the guest's pages, as several
    channels do. All three from and to memory that no cache holds, as a guest's is. touch is
    what the first touch adds to writing. deflate is zlib's speed at level 1 on
    `sample` in bytes per second, 0 without one: codecs timed elsewhere scale by it.

    Args:
        touched: Bytes of memory to touch; more than the caches hold.
        sample: What to compress.
    """
    with suppress(OSError):  # the priority of this thread only, which ends with the answer
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _STEPPED_BACK)
    spare = _sizes(Path("/proc/meminfo").read_text()).get("MemAvailable", 0)
    size = min(touched, spare // 8) // _CHUNK * _CHUNK
    straight, gathered = _copied(max(size, _COPIED))
    return {
        "copy": median(sent for sent, _ in straight + gathered),
        "receive": median(received for _, received in gathered),
        "scatter": median(received for _, received in straight),
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


_Trials = list[tuple[float, float]]


def _copied(size: int) -> tuple[_Trials, _Trials]:
    """Copy parts of a memory of `size` bytes to those of another, one way and the other.

    Returns:
        Seconds per page to send and to receive, by trial: read straight into place, and
        through a stream's window.
    """
    with closing(_memory(size)) as content, closing(_memory(size)) as place:
        for memory in (content, place):
            _written(memory, size)
        parts = [each * _COPIED % (size - _COPIED + 1) for each in range(2 * _COPIES)]
        trials = [
            _copying(content, place, part, 0 if each % 2 else _WINDOW)
            for each, part in enumerate(parts)
        ]
    return trials[1::2], trials[::2]


def _copying(content: mmap.mmap, place: mmap.mmap, part: int, window: int) -> tuple[float, float]:
    spent: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        sender = threading.Thread(target=_send, args=(address, content, part, spent), daemon=True)
        sender.start()
        received = _receive(server, place, part, window)
        sender.join()
    return spent[0] * _PAGE / _COPIED, received * _PAGE / _COPIED


def _send(address: tuple[str, int], content: mmap.mmap, part: int, spent: list[float]) -> None:
    with socket.create_connection(address) as connection, memoryview(content) as view:
        pages = [view[at : at + _PAGE] for at in range(part, part + _COPIED, _PAGE)]
        began = time.thread_time()
        for first in range(0, len(pages), _GATHERED):
            at = part + first * _PAGE
            # looks at every byte, as the search for zero pages does
            content.find(b"\0", at, at + _GATHERED * _PAGE)
            sent = connection.sendmsg(pages[first : first + _GATHERED])
            while sent < _GATHERED * _PAGE:  # a signal came between
                sent += connection.send(view[at + sent : at + _GATHERED * _PAGE])
        spent.append(time.thread_time() - began)
        for page in pages:
            page.release()


def _receive(server: socket.socket, place: mmap.mmap, part: int, window: int) -> float:
    with server.accept()[0] as connection, memoryview(place) as view:
        passing = memoryview(bytearray(window))
        began, at = time.thread_time(), part
        while at < part + _COPIED:
            with view[at : min(at + (window or _CHUNK), part + _COPIED)] as page:
                got = connection.recv_into(passing[: len(page)] if window else page)
                if window:
                    page[:got] = passing[:got]
            if not got:
                break
            at += got
        return time.thread_time() - began


def _memory(size: int) -> mmap.mmap:
    """Return anonymous memory, of huge pages where there are any, as a guest's is."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _written(memory: mmap.mmap, size: int) -> float:
    """Write to all of it and return how long that took."""
    view = ctypes.c_char.from_buffer(memory)
    began = time.monotonic()
    ctypes.memset(ctypes.addressof(view), 1, size)
    took = time.monotonic() - began
    del view  # or the mapping cannot be closed
    return took


def _first_touch(size: int) -> float:
    with closing(_memory(size)) as memory:
        first, again = (_written(memory, size) for _ in range(2))
    return max(0.0, first - again) * _PAGE / size


QUESTIONS = {
    "idle": idle,
    "counters": counters,
    "thread_seconds": thread_seconds,
    "cost": cost,
}

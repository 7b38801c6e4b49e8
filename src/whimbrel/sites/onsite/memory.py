"""Looks into a process's memory: which pages it has, and what they hold.

Pages are read with process_vm_readv(2), which takes no lock that a vCPU waits for. Only pages
that are in memory should be asked for: reading another one would provide it, or bring it back
from swap. Page numbers travel as bytes, 8 for each, little end first.
"""

from __future__ import annotations

import array
import ctypes
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = 4096
_BATCH = 256
"""Pages per system call: 1 MiB, which stays in a core's cache until it is marked."""
_SCAN = 1 << 17
"""Pagemap entries per read."""
_MARK = 8
_ZERO, _NO_MARK = bytes(_PAGE), bytes(_MARK)

# The highest byte of a pagemap entry: bit 63 is set for a page in memory, bit 62 for one in
# swap (Documentation/admin-guide/mm/pagemap.rst). 0, 1 and 2 are `ports.NEVER_PROVIDED` ff.
_STATES = bytes(2 if high & 0x40 else 1 if high & 0x80 else 0 for high in range(256))

_libc = ctypes.CDLL(None, use_errno=True)
_Vector = ctypes.c_uint64 * 2


def memory_base(pid: int, size: int) -> int:
    """Return the address of a process's only mapping of so many bytes; `LookupError` if none."""
    starts = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        first, _, last = line.split(None, 1)[0].partition("-")
        if int(last, 16) - int(first, 16) == size:
            starts.append(int(first, 16))
    if len(starts) != 1:
        raise LookupError(f"where process {pid} holds guest memory cannot be told")
    return starts[0]


def memory_provided(pid: int, base: int, size: int) -> bytes:
    """Return one byte per page: 0 never provided, 1 in memory, 2 swapped out."""
    found = []
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        for first in range(0, size // _PAGE, _SCAN):
            count = min(_SCAN, size // _PAGE - first)
            entries = os.pread(file.fileno(), count * 8, (base // _PAGE + first) * 8)
            if len(entries) != count * 8:
                raise OSError(f"the pagemap of process {pid} ends early")
            found.append(entries[7::8].translate(_STATES))
    return b"".join(found)


def memory_look(pid: int, base: int, size: int, pages: bytes) -> dict[str, Any]:
    """Return 8 bytes per page that tell its content, zeros for a zero page, and when it was read.

    The times are of this host's monotonic clock: compare looks of one host only.
    """
    began = time.monotonic()
    marks = [mark for batch in _batches(pid, base, size, pages) for mark in _marks(batch)]
    return {"began": began, "ended": time.monotonic(), "marks": b"".join(marks)}


def memory_read(pid: int, base: int, size: int, pages: bytes) -> bytes:
    """Return the content of pages, one after the other."""
    return b"".join(map(bytes, _batches(pid, base, size, pages)))


def vcpu_seconds(pid: int, threads: list[int]) -> list[float]:
    """Return the CPU seconds of threads of a process; those that are gone are left out."""
    tick = os.sysconf("SC_CLK_TCK")
    seconds = []
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()  # fields[0] is field 3 of proc(5)
        seconds.append((int(fields[11]) + int(fields[12])) / tick)
    return seconds


def _marks(content: memoryview) -> Iterator[bytes]:
    for at in range(0, len(content), _PAGE):
        page = bytes(content[at : at + _PAGE])
        zero = page == _ZERO
        yield _NO_MARK if zero else hashlib.blake2b(page, digest_size=_MARK).digest()


def _batches(pid: int, base: int, size: int, pages: bytes) -> Iterator[memoryview]:
    """Yield the content of `_BATCH` pages after the other, in a buffer that is used again."""
    numbers = array.array("Q", pages)
    if sys.byteorder == "big":
        numbers.byteswap()
    if numbers and max(numbers) >= size // _PAGE:
        raise IndexError(f"the guest has {size // _PAGE} pages")
    buffer = bytearray(_BATCH * _PAGE)
    place = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    view = memoryview(buffer)
    for first in range(0, len(numbers), _BATCH):
        some = numbers[first : first + _BATCH]
        _read(pid, base, some, place)
        yield view[: len(some) * _PAGE]


def _read(pid: int, base: int, numbers: array.array[int], place: int) -> None:
    there = array.array("Q", [0, _PAGE]) * len(numbers)
    there[::2] = array.array("Q", [base + number * _PAGE for number in numbers])
    here = _Vector(place, len(numbers) * _PAGE)
    got = _libc.process_vm_readv(
        ctypes.c_int(pid),
        ctypes.byref(here),
        ctypes.c_ulong(1),
        ctypes.c_void_p(there.buffer_info()[0]),
        ctypes.c_ulong(len(numbers)),
        ctypes.c_ulong(0),
    )
    if got != len(numbers) * _PAGE:
        code = ctypes.get_errno()
        raise OSError(code, f"the memory of process {pid} cannot be read: {os.strerror(code)}")


QUESTIONS = {
    "memory_base": memory_base,
    "memory_provided": memory_provided,
    "memory_look": memory_look,
    "memory_read": memory_read,
    "vcpu_seconds": vcpu_seconds,
}

"""Another process's memory: which pages it has (/proc/PID/pagemap), and what they hold.

Pages are read with process_vm_readv(2), which takes no lock that a vCPU waits for. Only pages
that are in memory are read: reading another one would provide it, or bring it back from swap.
"""

import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whimbrel.errors import Unsupported
from whimbrel.model.units import PAGE
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED, SWAPPED_OUT, Look

Numbers = NDArray[np.uint64]

_BATCH = 256
"""Pages per system call: 1 MiB, which stays in a core's cache until it is marked."""

_SCAN = 1 << 16
"""Pagemap entries per read."""

_PRESENT, _SWAPPED = 63, 62  # bits of an entry, Documentation/admin-guide/mm/pagemap.rst
_SHIFT = np.uint64(31)
_WORDS = PAGE // 8

# Multilinear hashing with odd factors: pages that differ in any one word never agree, others
# with a chance of about 2^-32 (Lemire and Kaser 2014); fixed, so that looks can be compared.
_FACTORS: Numbers = np.random.Generator(np.random.PCG64(20_210_731)).integers(
    0, 1 << 63, _WORDS, dtype=np.uint64
) * np.uint64(2) + np.uint64(1)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class GuestMemory:
    """Where a process holds a guest's memory.

    Attributes:
        pid: The process.
        base: Address of the first byte in it.
        size: Bytes.
    """

    pid: int
    base: int
    size: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return self.size // PAGE

    def provided(self) -> bytes:
        """See `ports.Inspection.provided`; a few milliseconds per GiB."""
        found = np.full(self.pages, NEVER_PROVIDED, dtype=np.uint8)
        try:
            with Path(f"/proc/{self.pid}/pagemap").open("rb", buffering=0) as file:
                for first in range(0, self.pages, _SCAN):
                    count = min(_SCAN, self.pages - first)
                    entries = _entries(file.fileno(), self.base // PAGE + first, count)
                    part = found[first : first + count]
                    part[(entries >> np.uint64(_PRESENT)) & np.uint64(1) == 1] = IN_MEMORY
                    part[(entries >> np.uint64(_SWAPPED)) & np.uint64(1) == 1] = SWAPPED_OUT
        except OSError as error:
            raise self._unreadable(error) from error
        return found.tobytes()

    def look(self, pages: Numbers) -> Look:
        """See `ports.Inspection.look`; about 2 µs per page."""
        began = time.monotonic()
        marks = [_marks(content) for content in self._batches(pages)]
        found = np.concatenate(marks) if marks else np.empty(0, dtype=np.uint64)
        return Look(began, time.monotonic(), found.tobytes())

    def read(self, pages: Numbers) -> bytes:
        """See `ports.Inspection.read`."""
        return b"".join(content.tobytes() for content in self._batches(pages))

    def _batches(self, pages: Numbers) -> Iterator[NDArray[np.uint8]]:
        """Yield the content of `_BATCH` pages after the other, in an array that is used again."""
        if len(pages) and int(pages.max()) >= self.pages:
            raise IndexError(f"the guest has {self.pages} pages")
        buffer = np.empty((_BATCH, PAGE), dtype=np.uint8)
        for first in range(0, len(pages), _BATCH):
            some = pages[first : first + _BATCH]
            self._read(some, buffer)
            yield buffer[: len(some)]

    def _read(self, pages: Numbers, buffer: NDArray[np.uint8]) -> None:
        there = np.empty((len(pages), 2), dtype=np.uint64)
        there[:, 0] = np.uint64(self.base) + pages * np.uint64(PAGE)
        there[:, 1] = PAGE
        wanted = len(pages) * PAGE
        here = np.array([buffer.ctypes.data, wanted], dtype=np.uint64)
        got = _libc.process_vm_readv(
            ctypes.c_int(self.pid),
            ctypes.c_void_p(here.ctypes.data),
            ctypes.c_ulong(1),
            ctypes.c_void_p(there.ctypes.data),
            ctypes.c_ulong(len(pages)),
            ctypes.c_ulong(0),
        )
        if got != wanted:
            code = ctypes.get_errno()
            raise self._unreadable(OSError(code, os.strerror(code)))

    def _unreadable(self, error: OSError) -> Unsupported:
        return Unsupported(
            f"The memory of process {self.pid} cannot be read: {error.strerror or error}.",
            "Run whimbrel on the guest's host, as root or as the user that QEMU runs as.",
        )


def _entries(file: int, first: int, count: int) -> Numbers:
    data = os.pread(file, count * 8, first * 8)
    if len(data) != count * 8:
        raise OSError(0, "the pagemap ends early")
    return np.frombuffer(data, dtype=np.uint64)


def _marks(content: NDArray[np.uint8]) -> Numbers:
    """Return one mark per row; 0 for a row of zeros."""
    words = content.view(np.uint64)
    # High bits reach low ones, else two flipped signs would cancel each other out.
    mixed = words >> _SHIFT
    mixed ^= words
    marks: Numbers = np.einsum("ij,j->i", mixed, _FACTORS)
    return marks

"""A look into another process's memory, as the program takes it on a host."""

import array
import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from whimbrel.hypervisors.qemu.guest_memory import GuestMemory
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED
from whimbrel.sites.onsite import memory

PAGE = 4096
PAGES = 1024


def numbers(pages: Sequence[int]) -> bytes:
    return b"".join(page.to_bytes(8, "little") for page in pages)


@dataclass
class Held:
    """Memory of this very process, which is read as another's would be."""

    pid: int
    base: int
    size: int
    content: mmap.mmap

    def look(self, pages: Sequence[int]) -> bytes:
        found = memory.memory_look(self.pid, self.base, self.size, numbers(pages))
        assert found["began"] <= found["ended"]
        marks: bytes = found["marks"]
        return marks

    def read(self, pages: Sequence[int]) -> bytes:
        return memory.memory_read(self.pid, self.base, self.size, numbers(pages))

    def provided(self) -> bytes:
        return memory.memory_provided(self.pid, self.base, self.size)


@contextmanager
def holding(pages: int = PAGES) -> Iterator[Held]:
    size = pages * PAGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, size, flags=flags) as content:
        content.madvise(mmap.MADV_NOHUGEPAGE)
        view = ctypes.c_char.from_buffer(content)
        yield Held(os.getpid(), ctypes.addressof(view), size, content)
        del view


def test_pages_are_read_in_the_order_they_were_asked_for() -> None:
    with holding() as held:
        for page in range(PAGES):
            held.content[page * PAGE : (page + 1) * PAGE] = page.to_bytes(2, "big") * (PAGE // 2)
        asked = [1000, 3, 3, *range(600)]
        content = held.read(asked)
        assert [content[at : at + 2] for at in range(0, len(content), PAGE)] == [
            page.to_bytes(2, "big") for page in asked
        ]
        assert held.read([]) == b""


def test_equal_pages_have_equal_marks_and_one_byte_makes_them_differ() -> None:
    with holding() as held:
        held.content[:] = os.urandom(PAGE) * PAGES
        before = held.look([0, 700])
        assert before[:8] == before[8:]
        held.content[700 * PAGE + 4095] ^= 1
        after = held.look([0, 700])
        assert after[:8] == before[:8]
        assert after[8:] != before[8:]


def test_a_zero_page_is_marked_by_zeros_and_no_other_is() -> None:
    with holding() as held:
        held.content[PAGE] = 1
        held.content[2 * PAGE] = 0
        marks = held.look([1, 2])
        assert marks[:8] != bytes(8)
        assert marks[8:] == bytes(8)


def test_looking_at_pages_provides_no_other() -> None:
    with holding() as held:
        held.content[5 * PAGE] = 1
        held.content[900 * PAGE] = 0
        before = held.provided()
        assert before.count(IN_MEMORY) == 2
        assert before[5] == before[900] == IN_MEMORY
        assert before[6] == NEVER_PROVIDED
        held.look([5, 900])
        held.read([5, 900])
        assert held.provided() == before


def test_it_sees_what_the_local_look_sees() -> None:
    with holding() as held:
        held.content[: 40 * PAGE] = os.urandom(40 * PAGE)
        local = GuestMemory(held.pid, held.base, held.size)
        assert held.provided() == local.provided()


def test_swapped_out_pages_are_told_from_others() -> None:
    entries = array.array("Q", [0, 1 << 63, 1 << 62, 1 << 61, (1 << 63) | 7]).tobytes()
    assert entries[7::8].translate(memory._STATES) == bytes([0, 1, 2, 0, 1])


def test_a_page_that_the_guest_does_not_have_is_refused() -> None:
    with holding() as held, pytest.raises(IndexError, match="1024 pages"):
        held.look([PAGES])


def test_memory_that_cannot_be_read_is_said_with_the_kernels_words() -> None:
    with holding() as held:
        held.base = 4096
        with pytest.raises(OSError, match="cannot be read: Bad address"):
            held.look([0])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(OSError, match="cannot be read: No such process"):
        memory.memory_look(gone.pid, 0, PAGE, numbers([0]))


def test_guest_memory_is_found_by_its_size_where_only_one_mapping_has_it() -> None:
    size = 7919 * PAGE
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as content:
        content.madvise(mmap.MADV_HUGEPAGE)  # the kernel then keeps it apart from its neighbours
        view = ctypes.c_char.from_buffer(content)
        assert memory.memory_base(os.getpid(), size) == ctypes.addressof(view)
        del view
    with pytest.raises(LookupError, match="cannot be told"):
        memory.memory_base(os.getpid(), 7907 * PAGE)


def test_threads_tell_their_cpu_seconds_and_those_that_are_gone_are_left_out() -> None:
    own = Path("/proc/thread-self").readlink().name
    [seconds] = memory.vcpu_seconds(os.getpid(), [int(own), 2**22 + 1])
    assert seconds > 0

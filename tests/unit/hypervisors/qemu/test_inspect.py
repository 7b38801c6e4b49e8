import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from whimbrel.errors import CommandRefused, Unsupported
from whimbrel.hypervisors.qemu.guest_memory import GuestMemory
from whimbrel.hypervisors.qemu.inspect import QemuInspection, block_address, counted, known_free
from whimbrel.model.units import MIB, PAGE
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED

if TYPE_CHECKING:
    from whimbrel.hypervisors.qemu.monitor import Monitor

TABLE = """              Block Name    PSize              Offset               Used              Total  HVA  RO
                  memory    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000 0x00007f2293e00000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000010080000 0x0000000000020000 0x0000000000200000 0x00007f22ea000000  ro
                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000 0x00007f22ea600000  ro
"""  # noqa: E501

PAGES = 64


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, GuestMemory]]:
    """Offer this process's own memory as a guest's: pages 8 to 15 have content."""
    held = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    held[8 * PAGE : 16 * PAGE] = np.random.default_rng(0).bytes(8 * PAGE)
    view = ctypes.c_char.from_buffer(held)
    yield held, GuestMemory(os.getpid(), ctypes.addressof(view), PAGES * PAGE)
    del view
    held.close()


def numbers(*pages: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(pages, dtype=np.uint64)


def marks(memory: GuestMemory, *pages: int) -> list[int]:
    return list(np.frombuffer(memory.look(numbers(*pages)).marks, dtype=np.uint64).tolist())


def test_only_touched_pages_count_as_provided(memory: tuple[mmap.mmap, GuestMemory]) -> None:
    provided = list(memory[1].provided())
    assert provided == [IN_MEMORY if 8 <= page < 16 else NEVER_PROVIDED for page in range(PAGES)]


def test_marks_tell_pages_apart_and_change_with_one_bit(
    memory: tuple[mmap.mmap, GuestMemory],
) -> None:
    held, guest = memory
    before = marks(guest, 8, 9, 10)
    assert len(set(before)) == 3
    held[9 * PAGE + 4095] ^= 0x80
    after = marks(guest, 8, 9, 10)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_two_flipped_signs_do_not_cancel_each_other_out(
    memory: tuple[mmap.mmap, GuestMemory],
) -> None:
    held, guest = memory
    before = marks(guest, 8)
    for word in (3, 77):
        held[8 * PAGE + word * 8 + 7] ^= 0x80
    assert marks(guest, 8) != before


def test_a_zero_page_has_the_mark_zero(memory: tuple[mmap.mmap, GuestMemory]) -> None:
    held, guest = memory
    held[20 * PAGE] = 1
    held[20 * PAGE] = 0
    assert marks(guest, 20, 8)[0] == 0
    assert marks(guest, 20, 8)[1] != 0


def test_content_comes_as_it_was_asked_for(memory: tuple[mmap.mmap, GuestMemory]) -> None:
    held, guest = memory
    wanted = held[12 * PAGE : 13 * PAGE] + held[8 * PAGE : 9 * PAGE]
    assert guest.read(numbers(12, 8)) == wanted
    assert guest.read(numbers()) == b""
    assert guest.look(numbers()).marks == b""


def test_nothing_outside_the_guest_is_read(memory: tuple[mmap.mmap, GuestMemory]) -> None:
    with pytest.raises(IndexError):
        memory[1].read(numbers(PAGES))


def test_memory_that_cannot_be_read_is_said_to_be_so() -> None:
    nobody = GuestMemory(2**22 + 1, 4096, PAGE)
    with pytest.raises(Unsupported):
        nobody.provided()
    with pytest.raises(Unsupported):
        nobody.read(numbers(0))


def test_the_block_of_guest_memory_is_found_by_its_size() -> None:
    assert block_address(TABLE, 256 * MIB) == 0x00007F2293E00000
    assert block_address(TABLE, 512 * MIB) is None
    assert block_address("", 256 * MIB) is None


def test_a_count_knows_how_coarse_it_is() -> None:
    found = counted(0.1, 100, 65536, logged=True)
    assert found.pages == pytest.approx(100.5 * 0.1 * 256)
    assert found.error == pytest.approx(0.1 * 256 / 12**0.5)
    assert counted(0.1, 100, 65536, logged=False).error > found.error
    assert counted(10.0, 1 << 20, 65536, logged=True).pages == 65536
    assert counted(0.1, 0, 65536, logged=False).pages == 0


class Counting:
    """QMP of a QEMU that counts dirty pages at 100 MiB/s, but takes not every argument."""

    def __init__(self, *refused: str, kvm: bool = True) -> None:
        self.refused, self.kvm = refused, kvm
        self.asked: dict[str, Any] = {}

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        if command == "query-kvm":
            return {"enabled": self.kvm, "present": True}
        if command == "query-dirty-rate":
            return {"status": "measured", "dirty-rate": 100}
        assert command == "calc-dirty-rate"
        assert arguments is not None
        if set(self.refused) & {*arguments, *map(str, arguments.values())}:
            raise CommandRefused("no")
        self.asked = dict(arguments)
        return {}

    def inspection(self) -> QemuInspection:
        return QemuInspection(cast("Monitor", self), os.getpid(), 256 * MIB)


async def test_short_windows_are_logged_under_kvm_and_sampled_elsewhere() -> None:
    for kvm, window, mode in ((True, 0.05, "dirty-bitmap"), (False, 0.05, None), (True, 1.5, None)):
        qemu = Counting(kvm=kvm)
        found = await qemu.inspection().written(window)
        assert qemu.asked.get("mode") == mode
        assert ("sample-pages" in qemu.asked) == (mode is None)
        assert qemu.asked["calc-time"] == round(window * 1000)
        assert found.pages == pytest.approx(100.5 * window * MIB / PAGE)


async def test_kvm_with_a_dirty_ring_is_sampled() -> None:
    ring = Counting("dirty-bitmap")
    await ring.inspection().written(0.05)
    assert "sample-pages" in ring.asked


async def test_a_qemu_without_milliseconds_counts_whole_seconds_only() -> None:
    old = Counting("calc-time-unit")
    await old.inspection().written(1.0)
    assert old.asked == {"calc-time": 1, "mode": "dirty-bitmap"}
    with pytest.raises(Unsupported, match=r"for 0\.5 s"):
        await old.inspection().written(0.5)


def test_free_memory_is_unknown_until_the_guest_tells() -> None:
    assert known_free({"stats": {"stat-free-memory": 123}, "last-update": 1}) == 123
    assert known_free({"stats": {"stat-free-memory": 2**64 - 1}, "last-update": 1}) is None
    assert known_free({}) is None

from dataclasses import replace

import pytest

from whimbrel.model.check import Result
from whimbrel.model.preflight import DiskState, PlaceFacts
from whimbrel.model.units import GIB
from whimbrel.theory.checks import copies

DISK = DiskState("vda", ("/srv/vda.img",), size=4 * GIB, allocated=GIB)
PLACE = PlaceFacts("/vms/vda.img", "missing", real="/vms/vda.img", free=8 * GIB, volume="8:1")


def test_a_copy_is_made_where_nothing_lies() -> None:
    assert copies.place_free(DISK, PLACE, "b").result is Result.PASS


@pytest.mark.parametrize(
    "place",
    [
        replace(PLACE, kind="file"),
        replace(PLACE, folder_exists=False),
        replace(PLACE, folder_writable=False),
        replace(PLACE, kind="block", size=DISK.size - 1),
        replace(PLACE, kind="block", size=DISK.size, holders=((7, "qemu"),)),
        replace(PLACE, kind="block", size=DISK.size, writable=False),
    ],
)
def test_a_copy_overwrites_nothing_and_needs_a_place_to_be_written(place: PlaceFacts) -> None:
    assert copies.place_free(DISK, place, "b").result is Result.FAIL


def test_what_a_device_holds_will_be_overwritten_with_a_warning() -> None:
    device = replace(PLACE, kind="block", size=DISK.size)
    assert copies.place_free(DISK, device, "b").result is Result.WARN


@pytest.mark.parametrize(
    ("path", "size", "words", "result"),
    [
        ("iscsi://store/iqn.2026-01.example:store/1", DISK.size, "", Result.WARN),
        ("iscsi://store/iqn.2026-01.example:store/1", DISK.size - 1, "", Result.FAIL),
        ("iscsi://store/iqn.2026-01.example:store/1", 0, "no such unit", Result.FAIL),
        ("nfs://store/export/vda.img", DISK.size, "", Result.FAIL),
        ("nfs://store/export/vda.img", 0, "No such file", Result.WARN),
    ],
)
def test_an_iscsi_unit_must_be_there_and_an_nfs_file_must_not(
    path: str, size: int, words: str, result: Result
) -> None:
    place = PlaceFacts(path, "address", size=size, words=words)
    assert copies.place_free(DISK, place, "b").result is result


@pytest.mark.parametrize(
    ("free", "result"),
    [(8 * GIB, Result.PASS), (2 * GIB, Result.WARN), (GIB - 1, Result.FAIL)],
)
def test_room_is_judged_by_what_is_allocated_now_and_by_what_may_be(
    free: int, result: Result
) -> None:
    assert copies.room([(DISK, replace(PLACE, free=free))], "b").result is result


def test_copies_on_one_file_system_share_its_room() -> None:
    place = replace(PLACE, free=3 * GIB // 2)
    assert copies.room([(DISK, place)], "b").result is Result.WARN
    assert copies.room([(DISK, place), (DISK, place)], "b").result is Result.FAIL
    elsewhere = replace(place, volume="8:2")
    assert copies.room([(DISK, place), (DISK, elsewhere)], "b").result is Result.WARN


def test_snapshots_inside_an_image_would_be_left_behind() -> None:
    assert copies.no_snapshots(DISK).result is Result.PASS
    check = copies.no_snapshots(replace(DISK, snapshots=("before-upgrade",)))
    assert check.result is Result.FAIL
    assert "before-upgrade" in check.detail

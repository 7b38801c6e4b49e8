from dataclasses import replace

import pytest

from whimbrel.model.check import Check, Result
from whimbrel.model.preflight import DiskState, ImageSight, PlaceFacts
from whimbrel.theory.checks import disks

DISK = DiskState("vda", ("/srv/vda.img",), size=1 << 30)
FILE = PlaceFacts(
    "/srv/vda.img",
    "file",
    real="/srv/vda.img",
    size=1 << 30,
    identities=frozenset({"inode boot-a 8:77"}),
    regions=("one", "", "two"),
)
OTHER = replace(FILE, identities=frozenset({"inode boot-b 8:99"}))
DEVICE = PlaceFacts(
    "/dev/sdb",
    "block",
    size=1 << 30,
    identities=frozenset({"device boot-a 8:16", "600c0ff0001"}),
    regions=("one", "", "two"),
)
SAME_DEVICE = replace(DEVICE, identities=frozenset({"device boot-b 8:32", "600c0ff0001"}))


def judged(sight: ImageSight, *, written: bool = True) -> Check:
    return disks.same_bytes(DISK, sight, ("a", "b"), written=written)


def test_a_probe_that_was_seen_proves_the_file() -> None:
    assert judged(ImageSight(FILE, OTHER, probe=True)).result is Result.PASS


def test_an_equal_path_is_no_proof_and_the_remedy_names_a_share_or_a_copy() -> None:
    check = judged(ImageSight(FILE, OTHER, probe=False))
    assert check.result is Result.FAIL
    assert "Mount the share" in check.remedy
    assert "--storage" in check.remedy


def test_another_name_in_the_same_folder_is_another_file() -> None:
    other = replace(FILE, real="/srv/vdb.img")
    assert judged(ImageSight(FILE, other, probe=True)).result is Result.FAIL


def test_where_no_probe_can_be_written_the_same_inode_of_one_kernel_proves() -> None:
    assert judged(ImageSight(FILE, FILE, probe=None)).result is Result.PASS
    assert judged(ImageSight(FILE, OTHER, probe=None)).result is Result.FAIL


def test_what_is_only_read_may_be_an_equal_copy_with_a_warning() -> None:
    sight = ImageSight(FILE, OTHER, probe=False)
    assert judged(sight, written=False).result is Result.WARN
    unequal = replace(OTHER, regions=("one", "", "three"))
    assert judged(replace(sight, there=unequal), written=False).result is Result.FAIL
    longer = replace(OTHER, size=FILE.size + 1)
    assert judged(replace(sight, there=longer), written=False).result is Result.FAIL


def test_all_bytes_read_and_equal_prove_what_is_only_read_and_others_refute_it() -> None:
    sight = ImageSight(FILE, OTHER, probe=False, equal=True)
    assert judged(sight, written=False).result is Result.PASS
    assert judged(replace(sight, equal=False), written=False).result is Result.FAIL


def test_the_remedy_of_a_backing_file_that_is_not_there_is_to_copy_it_or_the_whole_chain() -> None:
    sight = ImageSight(FILE, replace(OTHER, kind="missing"))
    check = disks.same_bytes(DISK, sight, ("a", "b"), written=False, copied=True)
    assert check.result is Result.FAIL
    assert "to the same path on b" in check.remedy
    assert "--chain top" in check.remedy


@pytest.mark.parametrize("kind", ["missing", "unreadable", "other", "block"])
def test_what_is_not_there_or_is_something_else_fails(kind: str) -> None:
    assert judged(ImageSight(FILE, replace(FILE, kind=kind))).result is Result.FAIL


def test_a_device_is_known_by_its_serial() -> None:
    assert judged(ImageSight(DEVICE, SAME_DEVICE)).result is Result.PASS
    clone = replace(SAME_DEVICE, identities=frozenset({"device boot-b 8:32", "600c0ff0002"}))
    assert judged(ImageSight(DEVICE, clone)).result is Result.FAIL


def test_a_device_whose_bytes_contradict_its_serial_fails() -> None:
    other = replace(SAME_DEVICE, regions=("three", "", "four"))
    assert judged(ImageSight(DEVICE, other)).result is Result.FAIL


def test_a_guest_may_write_while_a_device_is_compared() -> None:
    written = replace(SAME_DEVICE, regions=("one", "", "changed"))
    assert judged(ImageSight(DEVICE, written)).result is Result.PASS


def test_a_device_of_another_size_fails() -> None:
    assert judged(ImageSight(DEVICE, replace(SAME_DEVICE, size=1))).result is Result.FAIL


def test_equal_bytes_without_a_serial_may_be_a_copy() -> None:
    nameless = replace(DEVICE, identities=frozenset({"device boot-a 8:16"}))
    there = replace(DEVICE, identities=frozenset({"device boot-b 8:16"}))
    sight = ImageSight(nameless, there)
    assert judged(sight).result is Result.WARN
    # Beneath a top image that travels alone, that is not enough.
    base = disks.same_bytes(DISK, sight, ("a", "b"), written=False, copied=True)
    assert base.result is Result.FAIL


def address(path: str, size: int = 1 << 30, words: str = "", network: str = "a") -> PlaceFacts:
    names = frozenset({f"network {network}"})
    return PlaceFacts(path, "address", size=size, words=words, identities=names)


def test_an_address_must_be_opened_at_the_destination_and_have_the_same_size() -> None:
    here = address("nfs://store/export/vda.img")
    there = replace(here, identities=frozenset({"network b"}))
    assert judged(ImageSight(here, there)).result is Result.PASS
    refused = judged(ImageSight(here, replace(there, words="Permission denied")))
    assert refused.result is Result.FAIL
    assert refused.remedy.startswith("qemu-img info --force-share nfs://store")
    assert judged(ImageSight(here, replace(there, size=1))).result is Result.FAIL


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_localhost_is_another_server_on_another_host(host: str) -> None:
    here = address(f"iscsi://{host}/iqn.2026-01.example:store/1")
    there = replace(here, identities=frozenset({"network b"}))
    assert judged(ImageSight(here, there)).result is Result.FAIL
    assert judged(ImageSight(here, here)).result is Result.PASS


def test_what_the_disk_rests_on_has_a_check_of_its_own() -> None:
    base = replace(FILE, path="/srv/base.qcow2")
    check = judged(ImageSight(base, base, probe=True), written=False)
    assert check.name == "disk vda: base base.qcow2"


def test_unflushed_writes_fail_and_page_caches_are_warned_of() -> None:
    sight = ImageSight(FILE, FILE)
    assert disks.cache_mode(DISK, sight).result is Result.PASS
    assert disks.cache_mode(replace(DISK, no_flush=True), sight).result is Result.FAIL
    cached = replace(DISK, direct=False)
    assert disks.cache_mode(cached, sight).result is Result.WARN
    assert disks.cache_mode(replace(cached, read_only=True), sight).result is Result.PASS
    remote = ImageSight(address("nfs://s/e/f"), address("nfs://s/e/f"))
    assert disks.cache_mode(cached, remote).result is Result.PASS


def test_a_disk_is_held_by_its_vm_alone_on_both_hosts() -> None:
    held = replace(FILE, holders=((42, "qemu-system-x86"),))
    twice = replace(FILE, holders=((42, "qemu-system-x86"), (77, "qemu-nbd")))
    assert disks.held_once(DISK, ImageSight(held, held), 42, "a", "b").result is Result.PASS
    check = disks.held_once(DISK, ImageSight(held, twice), 42, "a", "b")
    assert check.result is Result.FAIL
    assert "qemu-nbd (pid 77) on b" in check.detail
    assert disks.held_once(DISK, ImageSight(twice, held), 42, "a", "b").result is Result.FAIL
    reads = replace(DISK, read_only=True)
    assert disks.held_once(reads, ImageSight(twice, held), 42, "a", "b").result is Result.PASS


def test_locks_that_stay_on_one_host_of_a_share_are_warned_of() -> None:
    local = replace(FILE, local_locks=True, shared=True)
    assert disks.held_once(DISK, ImageSight(FILE, local), 42, "a", "b").result is Result.WARN


def test_qemus_user_must_be_allowed_to_write() -> None:
    assert disks.writable(DISK, FILE, 0, "b").result is Result.PASS
    denied = replace(FILE, writable=False)
    check = disks.writable(DISK, denied, 107, "b")
    assert check.result is Result.FAIL
    assert "chown 107" in check.remedy
    assert disks.writable(replace(DISK, read_only=True), denied, 107, "b").result is Result.PASS

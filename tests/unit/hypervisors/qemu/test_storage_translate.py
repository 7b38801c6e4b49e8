from typing import Any

import pytest

from whimbrel.hypervisors.qemu.storage_translate import (
    client_node,
    copying_from,
    device_of,
    disks_from,
    mirror_arguments,
    server_arguments,
    writes_from,
)
from whimbrel.model.inventory import X509, MigrationAddress
from whimbrel.model.storage import CopyMode, DiskWrites, Extent
from whimbrel.model.units import GIB, MIB


def device(name: str, image: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "device": "",
        "qdev": f"/machine/peripheral/disk-{name}/virtio-backend",
        "inserted": {"node-name": name, "ro": False, "image": image, **more},
    }


RAW = {"filename": "/a.raw", "format": "raw", "virtual-size": GIB, "actual-size": 5 * MIB}
TOP = {
    "filename": "/top.qcow2",
    "format": "qcow2",
    "virtual-size": GIB,
    "actual-size": MIB,
    "backing-image": RAW,
}


def test_a_chain_is_told_from_the_top_down() -> None:
    [found] = disks_from([device("vda", TOP)], [], ["vda"])
    assert [(image.path, image.format) for image in found.chain] == [
        ("/top.qcow2", "qcow2"),
        ("/a.raw", "raw"),
    ]
    assert found.allocated == 6 * MIB
    assert found.size == GIB
    assert found.top.path == "/top.qcow2"


def test_disks_come_in_the_vms_order_and_empty_drives_are_left_out() -> None:
    devices = [device("vdb", RAW), {"device": "", "qdev": "disk-cd"}, device("vda", RAW, ro=True)]
    found = list(disks_from(devices, [], ["vda", "cd", "vdb"]))
    assert [disk.name for disk in found] == ["vda", "vdb"]
    assert found[0].read_only


def test_a_device_without_sizes_counts_as_full() -> None:
    images = [
        {"filename": "json:{...}", "format": "raw", "virtual-size": GIB},
        {"filename": "/dev/vg/lv", "format": "raw", "virtual-size": GIB, "actual-size": 0},
    ]
    for image in images:
        [found] = disks_from([device("vda", image)], [], ["vda"])
        assert found.allocated == GIB


def test_jobs_that_are_not_ours_are_told_of_every_disk_and_ours_of_their_own() -> None:
    jobs = [
        {"device": "whimbrel-vda", "type": "mirror"},
        {"device": "nightly", "type": "backup"},
    ]
    devices = [device("vda", RAW), device("vdb", RAW)]
    first, second = disks_from(devices, jobs, ["vda", "vdb"])
    assert first.busy == "mirror whimbrel-vda, backup nightly"
    assert second.busy == "backup nightly"


def test_a_disk_is_found_by_its_device_since_a_copy_renames_its_node() -> None:
    moved = device("vda", RAW)
    moved["inserted"]["node-name"] = "whimbrel-1234"
    assert device_of([device("vda1", RAW), moved], "vda") is moved
    assert device_of([{"device": "ide0", "qdev": "x"}], "ide0") is not None
    assert device_of([moved], "vdc") is None


def test_progress_is_read_as_what_was_copied_and_what_is_left() -> None:
    found = copying_from({"offset": 30, "len": 100, "ready": True}, CopyMode.WRITE_BLOCKING)
    assert (found.done, found.left, found.ready) == (30, 70, True)
    assert found.mode is CopyMode.WRITE_BLOCKING
    assert copying_from({"error": "No space left on device"}, CopyMode.BACKGROUND).failure


def test_writes_are_read_by_disk() -> None:
    stats = {"wr_bytes": 4096, "wr_operations": 1}
    devices = [{**device("vda", RAW), "stats": stats}]
    assert writes_from(devices, ["vda", "vdb"]) == {"vda": DiskWrites(4096, 1)}


@pytest.mark.parametrize(("rate", "speed"), [(None, 0), (0.2, 1), (1e6, 1_000_000)])
def test_no_limit_is_zero_to_qemu_and_a_limit_never(rate: float | None, speed: int) -> None:
    assert mirror_arguments("j", "a", "b", Extent.WHOLE, rate)["speed"] == speed


def test_whole_chains_are_copied_full_and_top_images_alone() -> None:
    assert mirror_arguments("j", "a", "b", Extent.WHOLE, None)["sync"] == "full"
    assert mirror_arguments("j", "a", "b", Extent.TOP, None)["sync"] == "top"


def test_credentials_are_named_at_both_ends_and_nowhere_without() -> None:
    address = MigrationAddress("10.0.0.2", 49152)
    assert "tls-creds" not in client_node("n", "vda", address)
    assert client_node("n", "vda", address, "k")["tls-creds"] == "k"
    assert "tls-creds" not in server_arguments("h", 1, 2)
    assert server_arguments("h", 1, 2, "k")["tls-creds"] == "k"


def test_a_certificate_is_checked_against_the_destinations_name() -> None:
    address = MigrationAddress("10.0.0.2", 1, credentials=X509("/pki", "/pki"))
    assert client_node("n", "vda", address, "k")["tls-hostname"] == "10.0.0.2"

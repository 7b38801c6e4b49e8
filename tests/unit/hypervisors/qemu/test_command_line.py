import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from whimbrel.errors import ConfigError
from whimbrel.hypervisors.qemu.block_devices import protocol_options
from whimbrel.hypervisors.qemu.command_line import (
    CONDUCT,
    FOLDER_MARK,
    LOOK,
    TERMINAL,
    channel_socket,
    command_line,
    monitor_socket,
)
from whimbrel.hypervisors.qemu.network_devices import mac_address, taps
from whimbrel.model.inventory import Disk, Nic, Vm
from whimbrel.model.method import PreparedMemory

FOLDER = Path("/run/x")
VM = Vm("vm", 1 << 30, channels=("one", "two"))


def test_both_sides_build_the_same_devices() -> None:
    source = command_line(VM, FOLDER)
    destination = command_line(VM, FOLDER, incoming=True)
    assert destination == [*source, "-incoming", "defer", "-S"]


def test_prepared_memory_changes_the_backend_and_nothing_else() -> None:
    plain, prepared = command_line(VM, FOLDER), command_line(VM, FOLDER, PreparedMemory(3))
    different = [(a, b) for a, b in zip(plain, prepared, strict=True) if a != b]
    assert len(different) == 1
    assert different[0][1] == f"{different[0][0]},prealloc=on,prealloc-threads=3"


def test_every_socket_lies_in_the_private_folder() -> None:
    words = " ".join(command_line(VM, FOLDER))
    assert str(monitor_socket(FOLDER)) in words
    assert str(channel_socket(FOLDER, 1)) in words
    assert "tcp" not in words.replace("tcg", "")


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    words = command_line(VM, Path("/run/a,b"))
    assert any("path=/run/a,,b/qmp" in word for word in words)


def test_free_page_hints_bring_a_balloon() -> None:
    assert not any("balloon" in word for word in command_line(VM, FOLDER))
    hinted = command_line(replace(VM, free_page_hints=True), FOLDER)
    assert any("free-page-hint=on" in word for word in hinted)


def test_qemu_is_confined_and_gets_nothing_by_default() -> None:
    words = command_line(VM, FOLDER)
    assert {"-nodefaults", "-no-user-config", "-sandbox"} <= set(words)


DISK = Disk("vda", "/srv/a,b.img")


def blockdevs(words: list[str]) -> list[dict[str, object]]:
    return [json.loads(value) for word, value in pairwise(words) if word == "-blockdev"]


def test_a_resident_vm_starts_again_when_its_guest_reboots_and_has_sockets_to_spare() -> None:
    lab, resident = command_line(VM, FOLDER), command_line(VM, FOLDER, resident=True)
    assert "-no-reboot" in lab
    assert "-no-reboot" not in resident
    for name in (*CONDUCT, LOOK, TERMINAL):
        assert any(f"path={FOLDER}/{name}," in word for word in resident)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/srv/x.img", {"driver": "file", "filename": "/srv/x.img"}),
        ("/dev/vg/x", {"driver": "host_device", "filename": "/dev/vg/x"}),
        ("/dev/shm/x", {"driver": "file", "filename": "/dev/shm/x"}),  # noqa: S108
        (
            "nfs://nas/srv/x.img?uid=7",
            {
                "driver": "nfs",
                "server": {"type": "inet", "host": "nas"},
                "path": "/srv/x.img",
                "user": 7,
            },
        ),
        (
            "iscsi://[::1]:3261/iqn.2026-01.example:store/2",
            {
                "driver": "iscsi",
                "transport": "tcp",
                "portal": "[::1]:3261",
                "target": "iqn.2026-01.example:store",
                "lun": 2,
            },
        ),
    ],
)
def test_a_path_says_how_a_disk_is_opened(path: str, options: dict[str, object]) -> None:
    assert protocol_options(replace(DISK, path=path)) == options


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "x.img"},
        {"path": "http://nas/x.img"},
        {"path": "iscsi://nas/iqn"},
        {"path": "iscsi://user%secret@nas/iqn/1"},
        {"path": "nfs://nas/x?debug=1"},
        {"path": "nfs://nas/x?uid=me"},
        {"format": "vmdk"},
        {"cache": "fast"},
    ],
)
def test_a_disk_that_means_nothing_to_qemu_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        command_line(replace(VM, disks=(replace(DISK, **wrong),)), FOLDER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cache", "direct", "careless", "device"),
    [
        ("none", True, False, "on"),
        ("directsync", True, False, "off"),
        ("writeback", False, False, "on"),
        ("writethrough", False, False, "off"),
        ("unsafe", False, True, "on"),
    ],
)
def test_a_cache_mode_is_what_qemu_means_by_it(
    cache: str, direct: bool, careless: bool, device: str
) -> None:
    words = command_line(replace(VM, disks=(replace(DISK, cache=cache),)), FOLDER)
    for options in blockdevs(words):
        assert options["cache"] == {"direct": direct, "no-flush": careless}
    assert words[-1].endswith(f"write-cache={device}")


def test_disks_are_found_by_names_that_follow_theirs() -> None:
    disks = (DISK, Disk("vdb", "/srv/b.qcow2", format="qcow2", read_only=True))
    words = command_line(replace(VM, disks=disks), FOLDER)
    names = [options["node-name"] for options in blockdevs(words)]
    assert names == ["vda-file", "vda", "vdb-file", "vdb"]
    assert [options["read-only"] for options in blockdevs(words)] == [False, False, True, True]
    devices = [word for word in words if word.startswith("virtio-blk-pci")]
    assert [word.split(",")[1:3] for word in devices] == [
        ["id=disk-vda", "drive=vda"],
        ["id=disk-vdb", "drive=vdb"],
    ]


def test_a_nic_on_a_bridge_has_a_tap_of_its_own_on_each_host_and_the_same_address() -> None:
    vm = replace(VM, nics=(Nic("n0", bridge="br0"), Nic("n1")))
    here, there = (Path(f"/run/{host}/vms/vm") for host in "ab")
    [(tap, bridge)] = taps(vm, here)
    assert bridge == "br0"
    assert len(tap) <= 15
    assert taps(vm, there)[0][0] != tap
    words = command_line(vm, here)
    assert f"tap,id=net-n0,ifname={tap},script=no,downscript=no" in words
    assert "hubport,id=net-n1,hubid=1" in words
    addresses = [mac_address(vm, nic) for nic in vm.nics]
    assert len(set(addresses)) == 2
    devices = [word for word in words if word.startswith("virtio-net-pci")]
    assert devices == [word for word in command_line(vm, there) if word.startswith("virtio-net-")]
    assert mac_address(vm, Nic("n0", mac="52:54:00:00:00:01")) == "52:54:00:00:00:01"


def test_machine_processor_firmware_and_identity_are_said_where_they_are_known() -> None:
    vm = replace(VM, machine="pc-q35-10.0", cpu="Nehalem", firmware=Path("/fw"), uuid="1-2")
    words = command_line(vm, FOLDER)
    for pair in (("-cpu", "Nehalem"), ("-bios", "/fw"), ("-uuid", "1-2")):
        assert pair in pairwise(words)
    assert "pc-q35-10.0,memory-backend=memory" in words


def test_an_adopted_vm_keeps_its_words_and_gets_whimbrels_sockets() -> None:
    own = ("qemu-system-x86_64", "-qmp", f"unix:{FOLDER_MARK}/own1-qmp,server=on")
    words = command_line(Vm("x", 1 << 20, words=own), Path("/run/a,b"), incoming=True)
    assert words[:3] == [own[0], "-qmp", "unix:/run/a,,b/own1-qmp,server=on"]
    assert any("path=/run/a,,b/qmp-look," in word for word in words)
    assert words[-3:] == ["-incoming", "defer", "-S"]

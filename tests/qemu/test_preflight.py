"""Preflights of a real VM: two hosts of this machine, with a folder each."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.hypervisors.qemu.compare import QemuExaminer
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.model.check import Check, Result, obstacles
from whimbrel.model.inventory import Disk, MigrationAddress, Nic, Vm
from whimbrel.model.units import MIB
from whimbrel.practice.claims import Claims
from whimbrel.practice.preflight import PreflightSubject, preflight
from whimbrel.practice.preflight_storage import preflight_storage
from whimbrel.practice.storage_places import placed_copies
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

needs_namespaces = pytest.mark.skipif(os.getuid() != 0, reason="namespaces need root")


@dataclass(frozen=True)
class Ready:
    """A VM that runs on a and could move to b."""

    folder: Path
    host: ResidentHost
    subject: PreflightSubject

    @property
    def machine(self) -> QemuMachine:
        assert isinstance(self.subject.machine, QemuMachine)
        return self.subject.machine


@asynccontextmanager
async def running(vm: Vm, folder: Path, enter_b: Sequence[str] = ()) -> AsyncIterator[Ready]:
    """Boot a VM on a; every command of b runs behind the words `enter_b`."""
    b_shell = LocalShell("b", lambda words: [*enter_b, *words])
    async with (
        OnSite(LocalShell("a"), str(folder / "a")) as a,
        OnSite(b_shell, str(folder / "b")) as b,
        ResidentHost("a", a) as host,
    ):
        machine = await host.start(vm)
        try:
            yield Ready(
                folder,
                host,
                PreflightSubject(
                    machine, a, b, QemuExaminer(a), QemuExaminer(b), MigrationAddress("127.0.0.1")
                ),
            )
        finally:
            await machine.stop()


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    # Not tmp_path: UNIX socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="preflight-") as name:
        yield Path(name)


def vm_in(folder: Path) -> Vm:
    (folder / "share").mkdir()
    # The folder may lie in memory, where files cannot be opened past the cache.
    disk = Disk("vda", str(folder / "share/vda.img"), size=4 * MIB, cache="writeback")
    return Vm("web", 128 * MIB, disks=(disk,), free_page_hints=True)


@pytest.fixture
async def ready(folder: Path) -> AsyncIterator[Ready]:
    async with running(vm_in(folder), folder) as ready:
        yield ready


async def copied(ready: Ready, place: Path) -> PreflightSubject:
    facts = await ready.machine.storage().disks()
    return replace(ready.subject, copies=placed_copies(ready.machine.vm, facts, [f"vda={place}"]))


def found(checks: tuple[Check, ...], name: str) -> Check:
    [check] = [check for check in checks if check.name == name]
    return check


async def test_a_vm_that_can_move_meets_no_obstacle_and_nothing_is_left(ready: Ready) -> None:
    checks = await preflight(ready.subject)
    assert obstacles(checks) == ()
    assert found(checks, "disk vda: same bytes").result is Result.PASS
    assert found(checks, "disk vda: cache mode").result is Result.WARN
    assert [path.name for path in (ready.folder / "share").iterdir()] == ["vda.img"]
    assert not (ready.folder / "b").exists()


async def test_a_host_is_not_its_own_destination(ready: Ready) -> None:
    checks = await preflight(replace(ready.subject, destination=ready.subject.source))
    assert found(checks, "different hosts").result is Result.FAIL
    assert found(checks, "name").result is Result.FAIL


@needs_namespaces
async def test_an_equal_path_to_another_file_fails_with_a_remedy(folder: Path) -> None:
    vm = vm_in(folder)
    other = folder / "other"
    other.mkdir()
    (other / "vda.img").write_bytes(bytes(4 * MIB))
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    enter = ["unshare", "--mount", "sh", "-c", script, "-", str(other), str(folder / "share")]
    async with running(vm, folder, enter) as ready:
        check = found(await preflight(ready.subject), "disk vda: same bytes")
    assert check.result is Result.FAIL
    assert "another file on b" in check.detail
    assert "--storage vda" in check.remedy


async def test_a_disk_that_is_not_there_fails(ready: Ready) -> None:
    [disk] = ready.machine.vm.disks
    elsewhere = replace(ready.machine.vm, disks=(replace(disk, path="/no/such/vda.img"),))
    checks = await preflight(replace(ready.subject, arrival=elsewhere))
    assert found(checks, "disk vda: same bytes").result is Result.FAIL


async def test_a_disk_that_another_program_writes_too_is_not_moved(ready: Ready) -> None:
    with (ready.folder / "share/vda.img").open("r+b"):
        check = found(await preflight(ready.subject), "disk vda: lock")
    assert check.result is Result.FAIL
    assert f"(pid {os.getpid()})" in check.detail


async def test_a_copy_is_not_made_over_what_lies_there(ready: Ready) -> None:
    place = ready.folder / "copy.img"
    move = await copied(ready, place)
    assert obstacles(await preflight(move)) == ()
    place.write_bytes(b"precious")
    check = found(await preflight(move), "disk vda: place")
    assert check.result is Result.FAIL
    assert "overwritten" in check.detail


@needs_namespaces
async def test_a_copy_needs_room_for_what_is_allocated_and_perhaps_for_more(folder: Path) -> None:
    vm = vm_in(folder)
    small = folder / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'
    enter = ["unshare", "--mount", "sh", "-c", script, "-", str(small)]
    async with running(vm, folder, enter) as ready:
        move = await copied(ready, small / "vda.img")
        sparse = found(await preflight(move), "room for copies")
        with (folder / "share/vda.img").open("r+b") as image:
            image.write(b"x" * 2 * MIB)
        full = found(await preflight(move), "room for copies")
    assert sparse.result is Result.WARN
    assert full.result is Result.FAIL


async def test_memory_that_another_move_reserved_is_missing(ready: Ready) -> None:
    vm, b = ready.machine.vm, ready.subject.destination
    free = (await b.ask("memory_left", folder=b.folder, vm=vm.name, page_size=0))["free"]
    large = replace(ready.subject, arrival=replace(vm, memory=free * 6 // 10))
    async with Claims(b, Vm("mail", free * 6 // 10)):
        check = found(await preflight(large), "memory")
    assert check.result is Result.FAIL
    assert "reserved for mail" in check.detail
    assert found(await preflight(large), "memory").result is Result.PASS


async def test_a_name_that_is_taken_at_the_destination_fails(ready: Ready) -> None:
    shutil.copytree(
        ready.folder / "a/vms/web",
        ready.folder / "b/vms/web",
        ignore=lambda place, names: {name for name in names if (Path(place) / name).is_socket()},
    )
    (ready.folder / "b").chmod(0o700)
    assert found(await preflight(ready.subject), "name").result is Result.FAIL
    (ready.folder / "a/moves").mkdir(mode=0o700)
    (ready.folder / "a/moves/web.json").write_text(json.dumps({"to": "c"}))
    assert found(await preflight(ready.subject), "other moves").result is Result.FAIL


async def test_a_port_that_is_taken_fails(ready: Ready) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = MigrationAddress("127.0.0.1", taken.getsockname()[1])
        check = found(await preflight(replace(ready.subject, address=address)), "migration address")
    assert check.result is Result.FAIL
    assert "is taken on b" in check.detail


async def test_an_address_that_the_destination_has_not_fails(ready: Ready) -> None:
    nobodys = MigrationAddress("192.0.2.1")  # TEST-NET-1 (RFC 5737)
    check = found(await preflight(replace(ready.subject, address=nobodys)), "migration address")
    assert check.result is Result.FAIL
    assert "is no address of b" in check.detail


async def test_a_bridge_that_is_not_there_fails(ready: Ready) -> None:
    plugged = replace(ready.machine.vm, nics=(Nic("lan", "no-such-bridge"),))
    check = found(await preflight(replace(ready.subject, arrival=plugged)), "NIC lan")
    assert check.result is Result.FAIL
    assert "ip link add no-such-bridge type bridge" in check.remedy


@needs_namespaces
async def test_a_bridge_on_another_network_is_found_and_the_way_there_is_not(
    folder: Path,
) -> None:
    script = (
        'ip link add wbr type bridge && ip link set wbr mtu 1400 up && exec "$@"'  # its own network
    )
    enter = ["unshare", "--net", "sh", "-c", script, "-"]
    async with running(vm_in(folder), folder, enter) as ready:
        plugged = replace(ready.machine.vm, nics=(Nic("lan", "wbr"),))
        checks = await preflight(replace(ready.subject, arrival=plugged))
    assert found(checks, "NIC lan").result is Result.WARN
    assert found(checks, "migration address").result is Result.FAIL


async def test_features_that_the_guest_sees_are_named_where_they_are_missing(
    folder: Path,
) -> None:
    vm = replace(vm_in(folder), cpu="max")
    async with running(vm, folder) as ready:
        facts = await ready.subject.source_examiner.machine(ready.machine)
        there = await ready.subject.destination_examiner.hypervisor(vm)
        checks = await preflight(ready.subject)
    assert {"avx2", "sse4.2", "nx"} <= facts.cpu_features <= there.cpu_features
    assert found(checks, "CPU features").result is Result.PASS


async def test_features_that_the_accelerator_filtered_are_not_missed(folder: Path) -> None:
    # TCG has no AVX-512: the model promises it, the guest does not see it.
    vm = replace(vm_in(folder), cpu="Skylake-Server")
    async with running(vm, folder) as ready:
        facts = await ready.subject.source_examiner.machine(ready.machine)
        checks = await preflight(ready.subject)
    assert facts.cpu_model == "Skylake-Server"
    assert "avx2" in facts.cpu_features
    assert "avx512f" not in facts.cpu_features
    assert found(checks, "CPU features").result is Result.PASS


async def test_a_backup_that_runs_and_a_guest_that_stands_still_are_noticed(ready: Ready) -> None:
    execute = ready.machine.process.monitor.execute
    await execute("blockdev-add", {"driver": "null-co", "node-name": "void", "size": 4 * MIB})
    job = {"job-id": "nightly", "device": "vda", "target": "void", "sync": "full", "speed": 1}
    await execute("blockdev-backup", job)
    await execute("block-dirty-bitmap-add", {"node": "vda", "name": "weekly"})
    await execute("stop")
    checks = await preflight(ready.subject)
    await execute("job-cancel", {"id": "nightly"})
    assert found(checks, "block jobs").result is Result.FAIL
    assert "nightly" in found(checks, "block jobs").detail
    assert found(checks, "backup").result is Result.WARN
    assert found(checks, "guest").result is Result.WARN


async def test_the_machines_facts_are_those_it_was_built_with(ready: Ready) -> None:
    facts = await ready.subject.source_examiner.machine(ready.machine)
    assert facts.machine_type == ready.machine.vm.machine
    assert facts.free_page_hints
    assert facts.state == "running"
    assert facts.blocked == ()
    [disk] = facts.disks
    assert disk.name == "vda"
    assert disk.chain == (str(ready.folder / "share/vda.img"),)
    assert disk.size == 4 * MIB
    assert not disk.direct


async def test_a_device_that_was_plugged_in_by_hand_is_named(folder: Path) -> None:
    vm = replace(vm_in(folder), cpu="qemu64", machine="pc")  # whose bus takes devices at any time
    async with running(vm, folder) as ready:
        assert found(await preflight(ready.subject), "devices as started").result is Result.PASS
        device = {"driver": "virtio-rng-pci", "id": "dice"}
        await ready.machine.process.monitor.execute("device_add", device)
        check = found(await preflight(ready.subject), "devices as started")
    assert check.result is Result.FAIL
    assert check.detail.startswith("dice ")


async def test_a_disk_may_move_on_its_own_host(ready: Ready) -> None:
    move = await copied(ready, ready.folder / "elsewhere.img")
    there = (ready.machine, move.source, move.source_examiner, move.copies)
    assert obstacles(await preflight_storage(*there)) == ()
    (ready.folder / "elsewhere.img").write_bytes(b"precious")
    assert [each.name for each in obstacles(await preflight_storage(*there))] == ["disk vda: place"]


@pytest.fixture
def devices(folder: Path) -> Iterator[list[str]]:
    """Two block devices of one size: the first with a boot sector, the second empty."""
    found: list[str] = []
    try:
        for name, content in (("one", b"boot"), ("two", b"")):
            image = folder / name
            image.write_bytes(content.ljust(4 * MIB, bytes(1)))
            words = ["losetup", "--find", "--show", str(image)]
            made = subprocess.run(words, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no loop devices here: {made.stderr.strip()}")
            found.append(made.stdout.strip())
        yield found
    finally:
        for device in found:
            subprocess.run(["losetup", "--detach", device], check=False)


@needs_namespaces
async def test_a_block_device_is_known_by_itself_and_not_by_its_path(
    folder: Path, devices: list[str]
) -> None:
    one, two = devices
    vm = Vm("web", 128 * MIB, disks=(Disk("vda", one),))
    async with running(vm, folder) as ready:
        same = await preflight(ready.subject)
        other = replace(ready.machine.vm, disks=(Disk("vda", two),))
        apart = await preflight(replace(ready.subject, arrival=other))
    assert obstacles(same) == ()
    assert found(same, "disk vda: same bytes").result is Result.PASS
    assert found(apart, "disk vda: same bytes").result is Result.FAIL
    assert "holds other bytes" in found(apart, "disk vda: same bytes").detail


def chain(share: Path) -> tuple[Path, Path]:
    """Make an image with a snapshot inside that rests on another; return both."""
    share.mkdir()
    base, top = share / "base.qcow2", share / "top.qcow2"
    for words in (
        ["create", "-q", "-f", "qcow2", str(base), "4M"],
        ["create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(top)],
        ["snapshot", "-q", "-c", "before", str(top)],
    ):
        subprocess.run(["qemu-img", *words], check=True)
    return top, base


async def test_each_image_of_a_chain_is_proved_and_snapshots_inside_are_seen(
    folder: Path,
) -> None:
    top, base = chain(folder / "share")
    disk = Disk("vda", str(top), "qcow2", cache="writeback")
    async with running(Vm("web", 128 * MIB, disks=(disk,)), folder) as ready:
        [facts] = (await ready.subject.source_examiner.machine(ready.machine)).disks
        shared = await preflight(ready.subject)
        move = await copied(ready, folder / "copy.qcow2")
        along = await preflight(move)
    assert facts.chain == (str(top), str(base))
    assert facts.snapshots == ("before",)
    assert obstacles(shared) == ()
    assert found(shared, "disk vda: base base.qcow2").result is Result.PASS
    assert [each.name for each in obstacles(along)] == ["disk vda: snapshots"]

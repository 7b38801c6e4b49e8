"""VMs that outlive whimbrel, on real QEMU: two hosts of this machine with a folder each."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from whimbrel.errors import ConfigError, HostError, HostUnreachable
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.network_devices import taps
from whimbrel.hypervisors.qemu.resident_process import Birth, ResidentProcess
from whimbrel.lab.hosts import two_hosts
from whimbrel.model.inventory import Disk, MigrationAddress, Nic, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Phase, PhaseChange
from whimbrel.model.units import MIB
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

VM = Vm("vm", 128 * MIB)
SOMEWHERE = MigrationAddress("127.0.0.1")


@asynccontextmanager
async def whimbrel(folder: Path) -> AsyncIterator[ResidentHost]:
    """Yield what one run of whimbrel has of a host; its VMs go on when that run ends."""
    name = folder.name
    async with OnSite(LocalShell(name), str(folder)) as site, ResidentHost(name, site) as host:
        yield host


@dataclass(frozen=True)
class Pair:
    folder: Path
    a: ResidentHost
    b: ResidentHost


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="resident-") as name:
        folder = Path(name)
        async with whimbrel(folder / "a") as a, whimbrel(folder / "b") as b:
            try:
                yield Pair(folder, a, b)
            finally:
                for host in (a, b):
                    for resident in await host.machines():
                        await host.remove(resident.name)


def disk(pair: Pair, name: str = "vda", **more: object) -> Disk:
    # The test's folder may lie in memory, where files cannot be opened past the cache.
    image = Disk(name, str(pair.folder / f"{name}.img"), size=4 * MIB, cache="writeback")
    return replace(image, **more)  # type: ignore[arg-type]


async def test_a_vm_outlives_the_whimbrel_that_started_it_and_is_found_again(pair: Pair) -> None:
    async with whimbrel(pair.folder / "a") as first:
        began = (await first.start(replace(VM, channels=("one",)))).pid
    [found] = await pair.a.machines()
    assert (found.name, found.role, found.alive, found.pid) == ("vm", "running", True, began)
    machine = await pair.a.find("vm")
    assert machine.vm == found.vm
    assert machine.channel("one").is_socket()
    assert await machine.running()
    await machine.stop()
    assert await pair.a.machines() == ()
    assert list((pair.folder / "a/vms").iterdir()) == []


async def test_the_machine_type_is_kept_as_the_versioned_one(pair: Pair) -> None:
    machine = await pair.a.start(VM)
    assert machine.vm.machine.startswith("pc-q35-")
    [resident] = await pair.a.machines()
    assert resident.vm.machine == machine.vm.machine
    [seen] = await pair.a.look("vm", ("qom-get", {"path": "/machine", "property": "type"}))
    assert seen == f"{machine.vm.machine}-machine"


async def test_a_second_vm_of_the_same_name_is_refused_and_the_first_goes_on(pair: Pair) -> None:
    machine = await pair.a.start(VM)
    with pytest.raises(HostError, match="here already"):
        await pair.a.start(VM)
    assert await machine.running()


async def test_a_vm_that_has_ended_is_named_as_such_and_may_be_started_again(pair: Pair) -> None:
    machine = await pair.a.start(VM)
    os.kill(machine.pid, signal.SIGKILL)
    assert await machine.process.ends_within(30.0)
    [resident] = await pair.a.machines()
    assert not resident.alive
    with pytest.raises(HostError, match="has ended"):
        await pair.a.find("vm")
    again = await pair.a.start(VM)
    assert await again.running()
    await machine.stop()  # the one that had ended; the new one bears the same name
    assert await again.running()


async def test_a_vm_that_is_not_there_is_refused_with_the_nearest_name(pair: Pair) -> None:
    await pair.a.start(VM)
    with pytest.raises(ConfigError) as caught:
        await pair.a.find("vm1")
    assert "vm?" in caught.value.hint
    with pytest.raises(ConfigError):
        await pair.a.find("../vm")


async def test_onlookers_ask_beside_whoever_conducts_and_can_change_nothing(pair: Pair) -> None:
    await pair.a.start(VM)
    answers = await asyncio.gather(*(pair.a.look("vm", "query-status") for _ in range(8)))
    assert all(status["running"] for [status] in answers)
    for command in ("quit", "stop", "human-monitor-command"):
        with pytest.raises(HostError, match="only look on"):
            await pair.a.look("vm", command)


async def test_one_lost_conductor_is_borne_and_of_the_next_it_is_said_who_is_in_the_way(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whimbrel.hypervisors.qemu.resident_process.GREETS_WITHIN", 1.0)
    await pair.a.start(VM)
    async with whimbrel(pair.folder / "a") as second, whimbrel(pair.folder / "a") as third:
        assert await (await second.find("vm")).running()
        with pytest.raises(HostUnreachable, match="held by other clients"):
            await third.find("vm")
        [status] = await third.look("vm", "query-status")
        assert status["running"]
        await second.close()
        assert await (await third.find("vm")).running()


async def test_a_lost_connection_is_made_anew_when_the_vm_is_asked_for_again(pair: Pair) -> None:
    first = await pair.a.start(VM)
    assert await pair.a.find("vm") is first
    await first.process.monitor.close()
    second = await pair.a.find("vm")
    assert second is not first
    assert await second.running()


async def test_a_destination_is_incoming_until_its_guest_has_arrived(pair: Pair) -> None:
    machine = await pair.a.start(VM)
    reception = await pair.b.receive(machine.vm, Tuning(), SOMEWHERE)
    assert [each.role for each in await pair.b.machines()] == ["incoming"]
    migration = await pair.a.send(machine, Tuning(), reception.address)
    async for event in migration.watch():
        if isinstance(event, PhaseChange) and event.phase is Phase.COMPLETED:
            await reception.run()
    assert [each.role for each in await pair.b.machines()] == ["running"]
    await machine.stop()
    assert await pair.a.machines() == ()
    await pair.b.close()
    assert await (await pair.b.find("vm")).running()


async def test_a_start_that_is_called_off_leaves_nothing(pair: Pair) -> None:
    await pair.a.capabilities()
    starting = asyncio.ensure_future(pair.a.start(VM))
    await asyncio.sleep(0.01)  # somewhere on the way; which moment it is must not matter
    starting.cancel()
    await asyncio.wait([starting])
    assert await pair.a.machines() == ()
    assert list((pair.folder / "a").glob("vms/*")) == []


async def test_a_missing_image_is_made_once_and_never_again(pair: Pair) -> None:
    image = disk(pair)
    machine = await pair.a.start(replace(VM, disks=(image,)))
    path = Path(image.path)
    assert path.stat().st_size == 4 * MIB
    assert path.stat().st_mode & 0o777 == 0o600
    [devices] = await pair.a.look("vm", "query-block")
    [device] = [each for each in devices if "disk-vda" in each.get("qdev", "")]
    assert device["inserted"]["node-name"] == "vda"
    await machine.stop()
    path.write_bytes(b"dear" + bytes(4 * MIB - 4))
    await pair.a.start(replace(VM, disks=(image,)))
    assert path.read_bytes()[:4] == b"dear"


async def test_a_missing_image_without_a_size_is_said_and_leaves_nothing(pair: Pair) -> None:
    with pytest.raises(HostError, match=r"vda\.img"):
        await pair.a.start(replace(VM, disks=(disk(pair, size=None),)))
    assert await pair.a.machines() == ()


async def test_two_vms_cannot_write_one_image_but_a_destination_waits_beside_the_source(
    pair: Pair,
) -> None:
    vm = replace(VM, disks=(disk(pair), disk(pair, "vdb", format="qcow2")))
    machine = await pair.a.start(vm)
    with pytest.raises(HostError, match="lock"):
        await pair.b.start(replace(vm, name="other"))
    reception = await pair.b.receive(machine.vm, Tuning(), SOMEWHERE)
    migration = await pair.a.send(machine, Tuning(), reception.address)
    async for event in migration.watch():
        if isinstance(event, PhaseChange) and event.phase is Phase.COMPLETED:
            await reception.run()
    assert await reception.machine.running()


async def test_identity_and_processor_are_as_they_are_described(pair: Pair) -> None:
    uuid = "8a53b2c4-6c1a-4f0e-9d52-0a5f6a1b2c3d"
    await pair.a.start(replace(VM, uuid=uuid, cpu="Nehalem,-aes", nics=(Nic("n0"),)))
    said, nics = await pair.a.look("vm", "query-uuid", "query-rx-filter")
    assert said["UUID"] == uuid
    assert nics[0]["main-mac"].startswith("52:54:00:")


async def test_processes_are_told_apart_by_their_start_time(pair: Pair) -> None:
    machine = await pair.a.start(VM)
    process = machine.process
    assert isinstance(process, ResidentProcess)
    birth = process.birth
    other = Birth(birth.pid, birth.start + 1)
    site = pair.a.site
    found = await site.ask("machine_ends", pid=other.pid, start=other.start, within_seconds=0.0)
    assert found["ended"]
    await site.ask(
        "machine_stop",
        folder=site.folder,
        place=process.place.folder,
        pid=other.pid,
        start=other.start,
    )
    assert await machine.running()


@asynccontextmanager
async def by_hand(folder: Path, *more: str) -> AsyncIterator[str]:
    """Start a VM as an administrator would, and yield its QMP socket."""
    socket, pid, image = folder / "by hand", folder / "pid", folder / "hand.img"
    image.write_bytes(bytes(MIB))
    words = ["qemu-system-x86_64", "-M", "q35", "-m", "64", "-display", "none", "-name", "hand"]
    words += ["-qmp", f"unix:{socket},server=on,wait=off", "-daemonize", "-pidfile", str(pid)]
    words += [
        "-drive",
        f"if=none,id=d,format=raw,file={image}",
        "-device",
        "virtio-blk-pci,drive=d",
    ]
    process = await asyncio.create_subprocess_exec(*words, *more)
    assert await process.wait() == 0
    began = int(pid.read_text())
    try:
        yield str(socket)
    finally:
        with suppress(ProcessLookupError):
            os.kill(began, signal.SIGKILL)


async def moved(
    a: ResidentHost,
    b: ResidentHost,
    machine: QemuMachine,
    address: MigrationAddress = SOMEWHERE,
) -> QemuMachine:
    reception = await b.receive(machine.vm, Tuning(), address)
    migration = await a.send(machine, Tuning(), reception.address)
    async for event in migration.watch():
        if isinstance(event, PhaseChange) and event.phase is Phase.COMPLETED:
            await reception.run()
    await machine.stop()
    return reception.machine


@asynccontextmanager
async def told_of(folder: Path, socket: str) -> AsyncIterator[ResidentHost]:
    """Yield what a whimbrel has of host a whose file names a socket."""
    async with (
        OnSite(LocalShell("a"), str(folder / "a")) as site,
        ResidentHost("a", site, sockets=(str(folder / "nothing"), socket)) as host,
    ):
        yield host


async def test_a_vm_started_by_hand_is_adopted_and_moves_on_from_host_to_host(pair: Pair) -> None:
    async with by_hand(pair.folder) as socket, told_of(pair.folder, socket) as host:
        machine = await host.find("hand")
        assert await host.find("hand") is machine
        assert host.hindrances(machine) == ()
        assert (machine.vm.memory, machine.vm.disks[0].path) == (
            64 * MIB,
            f"{pair.folder}/hand.img",
        )
        assert await host.machines() == ()  # so far nothing was written
        there = await moved(host, pair.b, machine)
        assert await there.running()
        assert await host.machines() == ()
        [status] = await pair.b.look("hand", "query-status")
        assert status["running"]
        back = await moved(pair.b, pair.a, await pair.b.find("hand"))
        assert await back.running()


async def test_what_was_plugged_in_after_its_start_prevents_a_move(pair: Pair) -> None:
    more = ("-device", "pcie-root-port,id=root1")
    async with by_hand(pair.folder, *more) as socket, told_of(pair.folder, socket) as host:
        machine = await host.find("hand")
        plug = {"driver": "virtio-rng-pci", "id": "late", "bus": "root1"}
        await machine.process.monitor.execute("device_add", plug)
        await host.close()
        machine = await host.find("hand")
        assert host.hindrances(machine) == ("its device late was plugged in after its start",)
        with pytest.raises(HostError, match="late"):
            await host.send(machine, Tuning(), SOMEWHERE)
        assert await machine.running()


async def test_a_socket_where_nobody_listens_is_said_to_be_so(pair: Pair) -> None:
    with pytest.raises(HostUnreachable, match="No QEMU answers"):
        await pair.a.adopt(str(pair.folder / "nothing"))


@pytest.mark.skipif(os.getuid() != 0, reason="bridges and taps need root")
async def test_a_nic_joins_its_bridge_on_each_host_and_leaves_nothing(pair: Pair) -> None:
    vm = replace(VM, nics=(Nic("n0", bridge="br7"),))
    with two_hosts(None) as hosts:
        async with AsyncExitStack() as stack:
            found = []
            for lab in hosts:
                shell = LocalShell(lab.name, lab.enter)
                await shell.run(["ip", "link", "add", "br7", "type", "bridge"])
                site = await stack.enter_async_context(OnSite(shell, f"{pair.folder}/{lab.name}"))
                host = await stack.enter_async_context(ResidentHost(lab.name, site))
                found.append((host, shell))
            (a, shell_a), (b, shell_b) = found
            machine = await a.start(vm)
            assert await ports(shell_a) == [tap for tap, _ in taps(machine.vm, place(pair, "a"))]
            there = await moved(a, b, machine, MigrationAddress(hosts[1].addresses[0]))
            assert await there.running()
            assert await ports(shell_a) == []
            assert await ports(shell_b) == [tap for tap, _ in taps(machine.vm, place(pair, "b"))]
            await b.remove("vm")
            assert await ports(shell_b) == []
            with pytest.raises(HostError, match="br8"):
                await a.start(replace(vm, nics=(Nic("n0", bridge="br8"),)))
            assert await a.machines() == ()


def place(pair: Pair, host: str) -> Path:
    return pair.folder / host / "vms/vm"


async def ports(shell: LocalShell) -> list[str]:
    done = await shell.run(["ip", "-json", "link", "show", "type", "tun"])
    return [each["ifname"] for each in json.loads(done.output or b"[]") if each.get("master")]

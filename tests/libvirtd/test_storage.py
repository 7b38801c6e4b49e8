"""VMs that libvirt runs move with their disks, or their disks alone; a real guest checks them."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirt, Libvirts, said
from storage.guests import disk_vm, redline, sparse, verified
from storage.pair import Watched, disk
from unit.practice.fakes import Silent
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.journal import Step
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import Event, Observation, Phase, Side
from whimbrel.model.outcome import Ending
from whimbrel.model.storage import Extent
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice import storage
from whimbrel.practice.move import Request, move
from whimbrel.practice.record import Record, Unwritten
from whimbrel.practice.repair import Deserted, repair
from whimbrel.practice.settle import Moved
from whimbrel.practice.storage import StorageBeside, StorageWish, storage_beside
from whimbrel.practice.storage_only import move_storage
from whimbrel.practice.storage_recover import recover_storage
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

SIZE, FILL = 256 * MIB, 32 * MIB
PLAIN, SLOW = Tuning(), Tuning(bandwidth_limit=1.0 * MIB)
NAME = "writer"
DOOMED = Path(__file__).with_name("doomed.py")


@dataclass
class Place:
    """Both hosts, each with a folder for images."""

    hosts: Hosts
    libvirts: Libvirts
    sites: storage.Hosts
    images_a: Path
    images_b: Path
    watched: Watched = field(default_factory=Watched)

    def left_at_b(self) -> list[str]:
        """Name the images at b, and the records of images there."""
        records = self.libvirts.b.folder / "site" / "images"
        return sorted(path.name for path in (*self.images_b.iterdir(), *records.glob("*")))

    async def move(
        self,
        machine: Machine,
        tuning: Tuning = PLAIN,
        *,
        within: float = 60.0,
        watcher: Silent | None = None,
        extent: Extent = Extent.WHOLE,
        port: int = 0,
    ) -> tuple[Moved, StorageBeside]:
        wish = StorageWish((str(self.images_b),), extent=extent, port=port)
        address = MigrationAddress(self.libvirts.b.lab.addresses[0])
        async with storage_beside(machine, self.sites, wish, self.watched) as beside:
            request = Request(
                self.hosts.a,
                machine,
                self.hosts.b,
                address,
                tuning,
                within,
                companions=(beside,),
                vm=beside.vm,
            )
            return await move(request, watcher or Silent()), beside


@pytest.fixture
async def place(libvirts: Libvirts, hosts: Hosts, tmp_path: Path) -> AsyncIterator[Place]:
    images_a, images_b = tmp_path / "a", tmp_path / "b"
    for images in (images_a, images_b):
        images.mkdir()
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(site(each)) for each in (libvirts.a, libvirts.b)]
        yield Place(hosts, libvirts, storage.Hosts(*both), images_a, images_b)


def site(libvirt: Libvirt) -> OnSite:
    return OnSite(LocalShell(libvirt.name, libvirt.enter), str(libvirt.folder / "site"))


def create(size: str, image: Path, *words: str) -> None:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *words, str(image), size]
    subprocess.run(command, check=True)


async def writer(place: Place, *disks: Disk) -> LibvirtMachine:
    """Start a guest at a that keeps writing its first disk, and that libvirt remembers."""
    machine = await place.hosts.a.start(disk_vm(disks))
    domain = await machine.domain()
    await domain.connection.define(await domain.kept_xml())
    async with redline(machine) as guest:
        await guest.fill_disk("/dev/vda", FILL, at=8 * MIB)
        await guest.load_disk("/dev/vda", 4 * MIB, MIB)
    return machine


@asynccontextmanager
async def one_disk(place: Place) -> AsyncIterator[LibvirtMachine]:
    """Yield such a guest, and let it be as it was when the block is left."""
    image = place.images_a / "root.raw"
    sparse(image, SIZE)
    yield await writer(place, disk("vda", image))


async def as_it_was(place: Place, machine: LibvirtMachine) -> bool:
    """Tell whether a guest runs at a on its old disk, and nothing is left at b."""
    [facts] = await machine.storage().disks()
    [found] = await verified(machine, "/dev/vda")
    virsh = ["virsh", "--quiet", "--connect", place.libvirts.b.uri, "list", "--all", "--name"]
    return (
        await machine.running()
        and found.intact
        and (facts.top.path, facts.busy) == (str(place.images_a / "root.raw"), "")
        and place.left_at_b() == []
        and (await said(virsh)).strip() == ""
    )


async def test_a_vm_moves_with_the_disk_that_it_writes(place: Place) -> None:
    async with one_disk(place) as machine:
        moved, beside = await place.move(machine)
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    there = moved.machine
    assert isinstance(there, LibvirtMachine)
    [found] = await verified(there, "/dev/vda")
    assert found.intact
    assert found.blocks_checked * 4096 >= FILL
    [facts] = await there.storage().disks()
    assert (facts.top.path, facts.size) == (str(place.images_b / "root.raw"), SIZE)
    assert facts.allocated < SIZE // 2  # holes stay holes
    kept = await (await there.domain()).kept_xml()
    assert str(place.images_b / "root.raw") in kept
    assert str(place.images_a) not in kept
    assert place.left_at_b() == ["root.raw"]
    assert "still there" in beside.report[0]
    writes = await there.storage().writes()
    while (await there.storage().writes())["vda"].count <= writes["vda"].count:
        pass  # every question waits for its answer


async def test_disks_go_along_but_for_one_that_nobody_writes_and_both_hosts_see(
    place: Place, tmp_path: Path
) -> None:
    first, second = place.images_a / "root.raw", place.images_a / "data.qcow2"
    sparse(first, SIZE)
    create("64M", second)
    seen_by_both = Disk("vdc", sparse(tmp_path / "tools.raw", MIB), read_only=True)
    machine = await writer(place, disk("vda", first), disk("vdb", second, "qcow2"), seen_by_both)
    async with redline(machine) as guest:
        await guest.fill_disk("/dev/vdb", 4 * MIB)
    moved, _ = await place.move(machine, Tuning(channels=2))
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    found = await verified(moved.machine, "/dev/vda", "/dev/vdb")
    assert all(each.intact for each in found)
    assert place.left_at_b() == ["data.qcow2", "root.raw"]
    assert moved.machine.vm.disks[2] == seen_by_both


class PortSeeker(Silent):
    """Notes the local ports on which a host has TCP connections while disks are copied."""

    def __init__(self, libvirt: Libvirt) -> None:
        super().__init__()
        self._libvirt, self.ports = libvirt, set[int]()

    def happened(self, event: Event) -> None:
        super().happened(event)
        with suppress(FileNotFoundError):  # libvirt has not built its QEMU yet, or ended it
            table = Path(f"/proc/{self._libvirt.pid(NAME)}/net/tcp").read_text().splitlines()[1:]
            self.ports |= {int(line.split()[1].rpartition(":")[2], 16) for line in table}


async def test_disks_go_to_the_port_that_was_chosen_for_them(place: Place) -> None:
    watcher = PortSeeker(place.libvirts.b)
    async with one_disk(place) as machine:
        moved, _ = await place.move(
            machine, Tuning(bandwidth_limit=16.0 * MIB), watcher=watcher, port=48123
        )
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    assert 48123 in watcher.ports
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact


async def test_a_port_that_is_taken_keeps_the_guest_and_leaves_nothing(place: Place) -> None:
    said = "import socket; s = socket.create_server(('', 48124)); print('up', flush=True); input()"
    words = place.libvirts.b.enter([sys.executable, "-c", said])
    taken = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE)
    try:
        async with one_disk(place) as machine:
            assert taken.stdout is not None
            assert await taken.stdout.readline() == b"up\n"
            moved, _ = await place.move(machine, port=48124)
            assert moved.outcome.ending is Ending.FAILED
            assert await as_it_was(place, machine)
    finally:
        taken.kill()
        await taken.wait()


async def test_disks_are_whole_when_a_guest_goes_over_by_post_copy(place: Place) -> None:
    tuning = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, downtime_limit=0.001)
    async with one_disk(place) as machine:
        moved, _ = await place.move(machine, tuning)
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact


async def test_of_a_chain_only_the_top_travels_where_its_base_is_already(place: Place) -> None:
    base, top = place.images_a / "base.raw", place.images_a / "top.qcow2"
    base.write_bytes(os.urandom(8 * MIB))
    create(str(SIZE), top, "-b", str(base), "-F", "raw")
    machine = await writer(place, disk("vda", top, "qcow2"))
    moved, _ = await place.move(machine, extent=Extent.TOP)
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact
    [facts] = await moved.machine.storage().disks()
    assert [image.path for image in facts.chain] == [str(place.images_b / "top.qcow2"), str(base)]


async def test_a_move_whose_disks_take_too_long_is_called_back_and_leaves_nothing(
    place: Place,
) -> None:
    async with one_disk(place) as machine:
        moved, _ = await place.move(machine, SLOW, within=4.0)
        assert moved.outcome.ending is Ending.TIMEOUT, moved.outcome.reason
        shares = [seen.copied for seen in place.watched.seen]
        assert len(shares) > 1
        assert shares == sorted(shares)
        assert 0 < shares[-1] < FILL
        assert moved.left == ()
        assert await as_it_was(place, machine)


class Killer(Silent):
    """Ends the destination's QEMU while disks are copied."""

    def __init__(self, libvirt: Libvirt) -> None:
        super().__init__()
        self._libvirt, self.killed = libvirt, False

    def happened(self, event: Event) -> None:
        super().happened(event)
        if isinstance(event, Observation) and not self.killed:
            self.killed = True
            os.kill(self._libvirt.pid(NAME), signal.SIGKILL)


async def test_a_destination_that_dies_amid_the_disks_leaves_the_guest_and_nothing_there(
    place: Place,
) -> None:
    watcher = Killer(place.libvirts.b)
    async with one_disk(place) as machine:
        moved, _ = await place.move(machine, SLOW, watcher=watcher)
        assert watcher.killed
        assert moved.outcome.ending is Ending.FAILED
        assert moved.left == ()
        assert await as_it_was(place, machine)


async def killed_amid_the_disks(place: Place, peer: str = "") -> None:
    """Let a whimbrel begin to move the guest from a to b, and kill it."""
    libvirts, address = place.libvirts, place.libvirts.b.lab.addresses[0]
    places = [
        " ".join([str(each.folder / "site"), *each.enter([])]) for each in (libvirts.a, libvirts.b)
    ]
    words = [libvirts.a.uri, libvirts.b.uri, address, *places, str(place.images_b)]
    command = [sys.executable, str(DOOMED), *words, *filter(None, [peer])]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"under way\n"
    process.kill()
    await process.wait()


def lost(place: Place) -> Deserted:
    """Return that move as its journal tells of it."""
    address = MigrationAddress(place.libvirts.b.lab.addresses[0])
    a, b = place.hosts.a, place.hosts.b
    return Deserted(NAME, a, b, address, last=Step.SENDING, exact=True)


async def called_back(machine: LibvirtMachine) -> None:
    """Wait until libvirt has called a move back whose client has gone."""
    async with asyncio.timeout(60):
        while (await machine.standing()).phase is Phase.PRECOPY:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("when", ["at once", "when libvirt has noticed it"])
async def test_what_a_killed_whimbrel_left_of_its_disks_is_cleared_away(
    place: Place, when: str
) -> None:
    async with one_disk(place) as machine:
        await killed_amid_the_disks(place)
        assert place.left_at_b()
        if when != "at once":
            await called_back(machine)
        repaired = await repair(lost(place), Record(Unwritten()))
        assert repaired.runs_on is Side.SOURCE
        assert repaired.left == ()
        told = await recover_storage(machine, place.sites.source, place.sites.destination)
        assert told == [f"{place.images_b}/root.raw on b, made for the move, was removed."]
        assert await as_it_was(place, machine)


async def test_a_source_that_leads_by_itself_brings_the_disks_over_without_whimbrel(
    place: Place,
) -> None:
    async with one_disk(place) as machine:
        await killed_amid_the_disks(place, place.libvirts.b.remote)
        async with asyncio.timeout(120):
            while (await machine.state()).lives:  # noqa: ASYNC110 - libvirt is asked
                await asyncio.sleep(0.1)
    repaired = await repair(lost(place), Record(Unwritten()))
    assert repaired.runs_on is Side.DESTINATION
    assert isinstance(repaired.machine, LibvirtMachine)
    await recover_storage(repaired.machine, place.sites.destination, place.sites.source)
    assert place.left_at_b() == ["root.raw"]
    await repaired.machine.attach()
    [found] = await verified(repaired.machine, "/dev/vda")
    assert found.intact


async def test_a_disk_moves_alone_and_back_and_libvirt_remembers_where_it_is(
    place: Place,
) -> None:
    async with one_disk(place) as machine:
        wishes = [place.images_b / "root.raw", place.images_a / "again.qcow2"]
        for path in wishes:
            wish = StorageWish((f"vda={path}",))
            watched = Watched()
            [gone] = await move_storage(machine, place.sites.source, wish, watched)
            assert gone.new == str(path)
            assert watched.seen[-1].ready
            [facts] = await machine.storage().disks()
            assert (facts.top.path, facts.busy) == (str(path), "")
            assert facts.allocated < SIZE // 2  # holes stay holes
            assert str(path) in await (await machine.domain()).kept_xml()
            [found] = await verified(machine, "/dev/vda")
            assert found.intact


async def test_a_copy_that_is_given_up_leaves_the_disk_where_it_was(place: Place) -> None:
    async with one_disk(place) as machine:
        wish = StorageWish((f"vda={place.images_b}/root.raw",), rate=1.0 * MIB)
        watched = Watched()
        copying = asyncio.create_task(move_storage(machine, place.sites.source, wish, watched))
        await watched.until(lambda seen: not seen.ready)
        copying.cancel()
        with suppress(asyncio.CancelledError):
            await copying
        assert await as_it_was(place, machine)


async def test_without_a_shell_disks_are_seen_all_the_same(place: Place) -> None:
    async with (
        one_disk(place),
        LibvirtHost("far", place.libvirts.a.uri) as without_shell,
    ):
        found = await without_shell.seek(NAME)
        assert found is not None
        [facts] = await found.storage().disks()
        assert (facts.size, facts.allocated) == (SIZE, SIZE)
        assert (await found.storage().writes())["vda"].size > 0

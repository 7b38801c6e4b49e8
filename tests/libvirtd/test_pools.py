"""Disks as libvirt's own tools make them, with the real command: volumes of pools, files and
units that QEMU opens by itself on a share, devices. A real guest checks every block.

This kernel has no NFS client and no iSCSI initiator. So the netfs pool finds its share mounted
already (a tmpfs under the share's name: libvirt then mounts nothing), and units are opened by
QEMU; the NFS and iSCSI servers are real.
"""

import filecmp
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Tree  # noqa: ICN001

import pytest

from far.hosts import SSHD
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirt, Libvirts, held_libvirts, lacking
from libvirtd.person import Person, person
from libvirtd.test_moves import still
from storage.guests import disk_vm, redline, sparse
from storage.pair import Watched
from storage.shares import UNIT, Share, needs_shares, shares
from unit.practice.fakes import Silent
from whimbrel.errors import ExitCode
from whimbrel.hypervisors.libvirt.disk_places import put
from whimbrel.hypervisors.libvirt.domain_xml import domain_xml
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice.move import Request, move
from whimbrel.practice.storage import StorageWish
from whimbrel.practice.storage_only import move_storage
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd"),
]

VM, POOL, IMAGE, SIZE = "writer", "vms", "root.raw", 64 * MIB
SHARE = ("nfs.example", "/export")
FAST = ("--survey", "none")
MOVED = {ExitCode.DONE, ExitCode.GOAL_MISSED}


@contextmanager
def mounted() -> Iterator[Path]:
    """Mount what stands for a share, before any libvirtd has a view of mounts of its own."""
    with tempfile.TemporaryDirectory(prefix="lv-share-", dir="/tmp") as name:
        subprocess.run(["mount", "-t", "tmpfs", ":".join(SHARE), name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@pytest.fixture(scope="module")
def share_folder() -> Iterator[Path]:
    if reason := lacking():
        pytest.skip(reason)
    with mounted() as folder:
        yield folder


@pytest.fixture(scope="module")
def libvirts(share_folder: Path) -> Iterator[Libvirts]:
    del share_folder  # mounted first
    with held_libvirts() as pair:
        yield pair


@pytest.fixture
async def at(libvirts: Libvirts, tmp_path: Path) -> AsyncIterator[Person]:
    folder = libvirts.folder / tmp_path.name  # short: sockets lie in it
    folder.mkdir()
    async with person(libvirts, folder) as somebody:
        yield somebody
    for libvirt in (libvirts.a, libvirts.b):
        await libvirt.clear()  # VMs that hold volumes end first
        for word in ("pool-destroy", "pool-undefine"):
            virsh(libvirt, word, POOL, check=False)


@pytest.fixture
async def share(libvirts: Libvirts) -> AsyncIterator[Share]:
    with tempfile.TemporaryDirectory(prefix="lv-nfs-", dir="/tmp") as name:
        async with shares(Path(name), libvirts.a.lab) as served:
            yield served


def virsh(libvirt: Libvirt, *words: str, check: bool = True) -> None:
    command = ["virsh", "--quiet", "--connect", libvirt.uri, *words]
    done = subprocess.run(command, capture_output=True, check=False)
    assert not (check and done.returncode), done.stderr.decode()


def pool_file(at: Person, kind: str, folder: Path) -> str:
    """Write a pool down as people define one."""
    root = Tree.Element("pool", type=kind)
    Tree.SubElement(root, "name").text = POOL
    if kind == "netfs":
        source = Tree.SubElement(root, "source")
        Tree.SubElement(source, "host", name=SHARE[0])
        Tree.SubElement(source, "dir", path=SHARE[1])
        Tree.SubElement(source, "format", type="nfs")
    Tree.SubElement(Tree.SubElement(root, "target"), "path").text = str(folder)
    file = at.folder / "pool.xml"
    file.write_text(Tree.tostring(root, encoding="unicode"))
    return str(file)


async def started(hosts: Hosts, at: Person, *disks: Tree.Element) -> LibvirtMachine:
    """Start a guest with such disks, and one that libvirt remembers; each disk is written."""
    names = [f"vd{letter}" for letter, _ in zip("abc", disks, strict=False)]
    vm = replace(disk_vm([Disk(name, "/none") for name in names]), name=VM)
    root = Tree.fromstring(domain_xml(vm, f"{at.libvirts.a.folder}/sockets/{VM}-"))  # noqa: S314
    for made, disk in zip(root.findall("devices/disk"), disks, strict=True):
        for old in made.findall("source"):
            made.remove(old)
        made.set("type", disk.attrib["type"])
        made.extend(disk)
    connection = await hosts.a.connection()
    domain = await connection.boot(Tree.tostring(root, encoding="unicode"))
    await connection.define(await domain.kept_xml())
    machine = await hosts.a.seek(VM)
    assert machine is not None
    async with redline(machine) as guest:
        for name in names:
            await guest.fill_disk(f"/dev/{name}", 8 * MIB)
            await guest.load_disk(f"/dev/{name}", 4 * MIB, MIB)
    return machine


def volume(name: str = IMAGE) -> Tree.Element:
    made = Tree.Element("disk", type="volume")
    Tree.SubElement(made, "source", pool=POOL, volume=name)
    return made


def lying(place: str) -> Tree.Element:
    made = Tree.Element("disk")
    put(made, place)
    return made


async def whole(at: Person, on: str, *disks: str) -> None:
    async with at.redline(VM, on) as guest:
        for disk in disks or ("/dev/vda",):
            assert (await guest.verify_disk(disk)).intact


async def kinds(hosts: Hosts, on: str, vm: str = VM) -> list[list[str]]:
    """Return how libvirt has the disks of the guest: alive, and remembered."""
    connection = await (hosts.a if on == "a" else hosts.b).connection()
    domain = await connection.domain(vm)
    assert domain is not None
    roots = [Tree.fromstring(each) for each in (await domain.xml(), await domain.kept_xml())]  # noqa: S314
    return [[made.get("type", "") for made in root.findall("devices/disk")] for root in roots]


async def places(at: Person) -> list[str]:
    said = await at.whimbrel("vms", "--json")
    [seen] = [each for each in said.json["vms"] if (each["name"], each["state"]) == (VM, "running")]
    return [str(each) for each in seen["disks"]]


async def refused(at: Person, *words: str) -> None:
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code == ExitCode.NO_PLAN, said.errors
    for word in words:
        assert word in said.errors.replace("\n", " ")
    assert await at.places(VM) == ["a"]


async def pooled(hosts: Hosts, at: Person, folder: Path, kind: str = "dir") -> str:
    """Start a guest on a volume that host a alone has, and return the file that tells its pool."""
    folder.mkdir(exist_ok=True)
    pool = pool_file(at, kind, folder)
    virsh(at.libvirts.a, "pool-create", pool)
    words = (POOL, IMAGE, str(SIZE), "--format", "raw", "--allocation", "0")
    virsh(at.libvirts.a, "vol-create-as", *words)
    await started(hosts, at, volume())
    assert await places(at) == [str(folder / IMAGE)]
    return pool


async def test_a_volume_of_a_pool_on_a_share_is_not_copied(
    hosts: Hosts, at: Person, share_folder: Path
) -> None:
    virsh(at.libvirts.b, "pool-create", await pooled(hosts, at, share_folder, "netfs"))
    for to in "ba":
        said = await at.whimbrel("move", VM, "--to", to, *FAST)
        assert said.code in MOVED, said.errors
        await whole(at, to)
        assert await kinds(hosts, to) == [["volume"], ["volume"]]
        assert [each.name for each in share_folder.iterdir()] == [IMAGE]


async def test_what_the_destination_lacks_of_a_pool_is_said_until_it_has_it(
    hosts: Hosts, at: Person
) -> None:
    folder, there = at.folder / "pool", at.libvirts.b
    pool = await pooled(hosts, at, folder)
    await refused(at, f"b has no pool {POOL}", "virsh pool-define")
    virsh(there, "pool-define", pool)
    await refused(at, f"The pool {POOL} on b", "virsh pool-start")
    (folder / IMAGE).rename(folder / "hidden")
    virsh(there, "pool-start", POOL)
    (folder / "hidden").rename(folder / IMAGE)
    await refused(at, f"knows no volume {IMAGE}", "virsh pool-refresh")
    virsh(there, "pool-refresh", POOL)
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code in MOVED, said.errors
    await whole(at, "b")
    assert await kinds(hosts, "b") == [["volume"], ["volume"]]
    assert [each.name for each in folder.iterdir()] == [IMAGE]


async def test_a_volume_goes_along_to_a_host_that_has_no_such_pool(
    hosts: Hosts, at: Person
) -> None:
    folder, there = at.folder / "pool", at.folder / "there"
    there.mkdir()
    await pooled(hosts, at, folder)
    said = await at.whimbrel("move", VM, "--to", "b", "--storage", str(there), *FAST)
    assert said.code in MOVED, said.errors
    await whole(at, "b")
    assert await kinds(hosts, "b") == [["file"], ["file"]]
    assert await places(at) == [str(there / IMAGE)]


async def test_a_volume_moves_alone_and_its_vm_is_told(hosts: Hosts, at: Person) -> None:
    folder, there = at.folder / "pool", at.folder / "there"
    there.mkdir()
    await pooled(hosts, at, folder)
    said = await at.whimbrel("move", VM, "--storage", f"{there}/", "--remove-source")
    assert said.code == ExitCode.DONE, said.errors
    await whole(at, "a")
    assert await kinds(hosts, "a") == [["file"], ["file"]]
    assert [list(folder.iterdir()), [each.name for each in there.iterdir()]] == [[], [IMAGE]]


async def test_a_volume_whose_pool_is_gone_keeps_its_vm(hosts: Hosts, at: Person) -> None:
    await pooled(hosts, at, at.folder / "pool")
    virsh(at.libvirts.a, "pool-destroy", POOL)
    await refused(at, f"vda is the volume {IMAGE} of the pool {POOL}", f"virsh pool-start {POOL}")


async def test_a_folder_shown_as_a_disk_keeps_its_vm(hosts: Hosts, at: Person) -> None:
    folder, image = at.folder / "files", at.folder / IMAGE
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    sparse(image, SIZE)
    await started(hosts, at, lying(str(image)))
    files = at.folder / "files.xml"
    files.write_text(
        f"<disk type='dir' device='disk'><driver name='qemu' type='fat'/><source dir='{folder}'/>"
        "<target dev='vdb' bus='virtio'/><readonly/></disk>"
    )
    virsh(at.libvirts.a, "attach-device", VM, str(files), "--live")
    await refused(at, f"vdb shows the folder {folder}", f"virsh detach-disk {VM} vdb --live")
    virsh(at.libvirts.a, "detach-disk", VM, "vdb", "--live")


@needs_shares
async def test_only_the_vm_moves_where_qemu_opens_its_disks_on_shares(
    hosts: Hosts, at: Person, share: Share
) -> None:
    sparse(share.folder / "data.raw", SIZE)
    await started(hosts, at, lying(share.unit), lying(share.file("data.raw")))
    assert await places(at) == [share.unit, share.file("data.raw")]
    for to in "ba":
        said = await at.whimbrel("move", VM, "--to", to, *FAST)
        assert said.code in MOVED, said.errors
        await whole(at, to, "/dev/vda", "/dev/vdb")
    assert await kinds(hosts, "a") == [["network"] * 2] * 2


@needs_shares
async def test_a_disk_goes_to_shares_and_back_while_its_vm_stays(
    hosts: Hosts, at: Person, share: Share
) -> None:
    sparse(at.folder / IMAGE, UNIT)
    await started(hosts, at, lying(str(at.folder / IMAGE)))
    for place in (share.file(IMAGE), share.unit, str(at.folder / "back.raw")):
        said = await at.whimbrel("move", VM, "--storage", f"vda={place}")
        assert said.code == ExitCode.DONE, said.errors
        assert await places(at) == [place]
        await whole(at, "a")


@needs_shares
async def test_a_disk_goes_along_to_a_share(hosts: Hosts, at: Person, share: Share) -> None:
    sparse(at.folder / IMAGE, UNIT)
    await started(hosts, at, lying(str(at.folder / IMAGE)))
    for to, place in (("b", share.file(IMAGE)), ("a", share.unit)):
        said = await at.whimbrel("move", VM, "--to", to, "--storage", f"vda={place}", *FAST)
        assert said.code in MOVED, said.errors
        await whole(at, to)
        assert await places(at) == [place]
        assert await kinds(hosts, to) == [["network"]] * 2


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """Make a device that both hosts see."""
    image = sparse(tmp_path / "device", SIZE)
    done = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    try:
        yield done.stdout.strip()
    finally:
        with suppress(OSError):
            subprocess.run(["losetup", "--detach", done.stdout.strip()], check=False)


async def test_a_device_that_both_hosts_see_is_not_copied(
    hosts: Hosts, at: Person, device: str
) -> None:
    await started(hosts, at, lying(device))
    for to in "ba":
        said = await at.whimbrel("move", VM, "--to", to, *FAST)
        assert said.code in MOVED, said.errors
        await whole(at, to)
        assert await kinds(hosts, to) == [["block"]] * 2


@needs_shares
async def test_places_on_shares_hold_what_was_copied_there(
    libvirts: Libvirts, hosts: Hosts, share: Share, tmp_path: Path
) -> None:
    """The same by the library, of a VM that writes nothing, so that images can be compared."""
    first, last = tmp_path / IMAGE, tmp_path / "back.raw"
    sparse(first, UNIT)
    with first.open("r+b") as image:
        image.write(os.urandom(MIB))
    vm = replace(still(libvirts), disks=(Disk("vda", str(first)),))
    machine: Machine = await hosts.a.start(vm)
    shell = LocalShell("a", libvirts.a.enter)
    async with OnSite(shell, str(libvirts.a.folder / "site")) as site:
        for place in (share.file(IMAGE), share.unit):
            wish = StorageWish((f"vda={place}",))
            [moved] = await move_storage(machine, site, wish, Watched())
            assert moved.new == machine.vm.disks[0].path == place
            [facts] = await machine.storage().disks()
            assert (facts.top.path, facts.size) == (place, UNIT)
            assert await kinds(hosts, "a", vm.name) == [["network"]] * 2
        address = MigrationAddress(libvirts.b.lab.addresses[0])
        machine = await sent(hosts, machine, address)
        assert machine.vm.disks[0].path == share.unit
        assert await kinds(hosts, "b", vm.name) == [["network"]] * 2
    shell = LocalShell("b", libvirts.b.enter)
    async with OnSite(shell, str(libvirts.b.folder / "site")) as site:
        await move_storage(machine, site, StorageWish((f"vda={last}",)), Watched())
    assert filecmp.cmp(first, last, shallow=False)


async def sent(hosts: Hosts, machine: Machine, address: MigrationAddress) -> Machine:
    """Move a VM whose disks both hosts open, as the preflight has proved elsewhere."""
    assert isinstance(machine, LibvirtMachine)
    machine.proven = True
    moved = await move(Request(hosts.a, machine, hosts.b, address, Tuning(), 60.0), Silent())
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    return moved.machine

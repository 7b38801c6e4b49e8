"""Disks on real shares: only the VM moves, or only the disk, and every block is right."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.guests import disk_vm, redline, sparse, verified
from storage.pair import HERE, Watched
from storage.shares import UNIT, Share, needs_shares, shares
from unit.practice.fakes import Silent
from whimbrel.hypervisors.qemu import QemuHost
from whimbrel.model.inventory import Disk
from whimbrel.model.method import Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice.move import move
from whimbrel.practice.request import Request
from whimbrel.practice.storage import StorageWish
from whimbrel.practice.storage_only import move_storage
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

pytestmark = [needs_shares, pytest.mark.timeout(120)]


@dataclass
class Shared:
    """Two hosts in the network of the shares."""

    share: Share
    folder: Path
    a: QemuHost
    b: QemuHost
    site: OnSite


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            share = await stack.enter_async_context(shares(folder))
            hosts = [
                await stack.enter_async_context(QemuHost(host, folder / "qemu", share.enter))
                for host in "ab"
            ]
            site = OnSite(LocalShell("a", share.enter), str(folder / "a"))
            await stack.enter_async_context(site)
            yield Shared(share, folder, hosts[0], hosts[1], site)


async def booted(shared: Shared, *disks: Disk) -> Machine:
    """Return a guest at a that keeps writing all of its disks."""
    machine = await shared.a.start(disk_vm(disks))
    async with redline(machine) as guest:
        for disk in disks:
            await guest.fill_disk(f"/dev/{disk.name}", 16 * MIB)
            await guest.load_disk(f"/dev/{disk.name}", 8 * MIB, 2 * MIB)
    return machine


async def test_a_vm_moves_alone_where_both_hosts_reach_its_disks_on_shares(
    shared: Shared,
) -> None:
    sparse(shared.share.folder / "data.raw", 64 * MIB)
    disks = (Disk("vda", shared.share.unit), Disk("vdb", shared.share.file("data.raw")))
    machine = await booted(shared, *disks)
    for source, destination in ((shared.a, shared.b), (shared.b, shared.a)):
        request = Request(source, machine, destination, HERE, Tuning(), 60.0)
        moved = await move(request, Silent())
        assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
        assert moved.machine is not None
        assert all(each.intact for each in await verified(moved.machine, "/dev/vda", "/dev/vdb"))
        machine = moved.machine
    facts = {disk.name: disk for disk in await machine.storage().disks()}
    assert facts["vda"].allocated == facts["vda"].size == UNIT
    assert facts["vdb"].allocated < 20 * MIB


async def test_a_disk_goes_to_a_share_and_comes_back_while_its_vm_stays(shared: Shared) -> None:
    home = shared.folder / "root.raw"
    sparse(home, UNIT)
    machine = await booted(shared, Disk("vda", str(home)))
    back = str(shared.folder / "back.raw")
    for place in (shared.share.file("root.raw"), shared.share.unit, back):
        wish = StorageWish((f"vda={place}",))
        [moved] = await move_storage(machine, shared.site, wish, Watched())
        assert moved.new == place
        assert machine.vm.disks[0].path == place
        [found] = await verified(machine, "/dev/vda")
        assert found.intact
    assert (shared.share.folder / "root.raw").stat().st_size == UNIT

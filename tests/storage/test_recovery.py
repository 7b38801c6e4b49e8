"""VMs that outlive whimbrel, their disks on the way: a whimbrel goes away, another comes."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.guests import disk_vm, redline, sparse, verified
from storage.pair import HERE, Watched, disk
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.model.journal import Step
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Side
from whimbrel.model.storage import Extent
from whimbrel.model.units import GIB, KIB, MIB
from whimbrel.ports import Machine
from whimbrel.practice.holder import myself
from whimbrel.practice.images import Images
from whimbrel.practice.recover import Hosts, Lost, recover
from whimbrel.practice.repair import Repaired
from whimbrel.practice.storage import StorageWish
from whimbrel.practice.storage_only import move_storage
from whimbrel.practice.storage_places import moved_vm, placed_copies
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

pytestmark = pytest.mark.timeout(120)


@dataclass
class Residents:
    """Two hosts on this machine whose VMs outlive whimbrel."""

    folder: Path
    sites: dict[str, OnSite]
    hosts: dict[str, ResidentHost]

    async def booted(self) -> Machine:
        """Return a guest at a that keeps writing its disk vda."""
        image = self.folder / "root.raw"
        sparse(image, GIB)
        machine = await self.hosts["a"].start(disk_vm([disk("vda", image)]))
        async with redline(machine) as guest:
            await guest.fill_disk("/dev/vda", 16 * MIB)
            await guest.load_disk("/dev/vda", 4 * MIB, MIB)
        return machine

    async def another_whimbrel(self) -> None:
        """Go away, without a word to anybody, and come again."""
        for name, host in self.hosts.items():
            await host.close()
            self.hosts[name] = ResidentHost(name, self.sites[name])

    async def recover(self, source: str, destination: str) -> Repaired:
        lost = Lost(
            move="0123456789abcdef",
            vm="writer",
            source=source,
            destination=destination,
            holder=myself(),
            alive=False,
            last=Step.OPENED,
            exact=False,
        )
        found = Hosts(self.hosts[source], self.hosts[destination], self.sites)
        return await recover(lost, found, folder=self.folder / "journals")


@pytest.fixture
async def residents() -> AsyncIterator[Residents]:
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-"))  # short: sockets' paths are limited
    sites = {name: OnSite(LocalShell(name), str(folder / name)) for name in "ab"}
    found = Residents(folder, sites, {n: ResidentHost(n, site) for n, site in sites.items()})
    try:
        yield found
    finally:
        for host in found.hosts.values():
            for resident in await host.machines():
                await host.remove(resident.name)
            await host.close()
        for site in sites.values():
            await site.close()
        shutil.rmtree(folder)


def left(residents: Residents) -> list[str]:
    """Name the images, and the records of images, that are there."""
    found = residents.folder.glob("*.raw"), residents.folder.glob("?/images/*")
    return sorted(path.name for paths in found for path in paths)


async def test_where_a_disk_went_is_known_to_whoever_comes_later(residents: Residents) -> None:
    machine = await residents.booted()
    site = residents.sites["a"]
    wish = StorageWish((f"vda={residents.folder}/new.raw",), remove_source=True)
    await move_storage(machine, site, wish, Watched())
    await residents.another_whimbrel()
    again = await residents.hosts["a"].seek("writer")
    assert again is not None
    assert again.vm.disks[0].path == f"{residents.folder}/new.raw"
    [found] = await verified(again, "/dev/vda")
    assert found.intact
    assert left(residents) == ["new.raw"]


async def test_a_disks_move_whose_whimbrel_died_is_undone_and_the_vm_left_alone(
    residents: Residents,
) -> None:
    machine = await residents.booted()
    site = residents.sites["a"]
    facts = await machine.storage().disks()
    [copy] = placed_copies(machine.vm, facts, [f"vda={residents.folder}/new.raw"])
    await Images(site, "writer").make([copy], site)
    await machine.storage().mirror("vda", copy.place, Extent.WHOLE, rate=64 * KIB)
    await residents.another_whimbrel()
    done = await residents.recover("a", "a")
    assert done.runs_on is Side.SOURCE
    assert done.machine is not None
    assert await done.machine.running()
    assert left(residents) == ["root.raw"]
    [found] = await verified(done.machine, "/dev/vda")
    assert found.intact
    [after] = await done.machine.storage().disks()
    assert not after.busy


async def test_a_move_with_disks_whose_whimbrel_died_leaves_no_image(residents: Residents) -> None:
    machine = await residents.booted()
    facts = await machine.storage().disks()
    copies = placed_copies(machine.vm, facts, [f"vda={residents.folder}/new.raw"])
    await Images(residents.sites["b"], "writer").make(copies, residents.sites["a"])
    reception = await residents.hosts["b"].receive(moved_vm(machine.vm, copies), Tuning(), HERE)
    export = await reception.machine.storage().export(HERE, ["vda"])
    await machine.storage().mirror("vda", export.address, Extent.WHOLE, rate=MIB)
    await residents.another_whimbrel()
    done = await residents.recover("a", "b")
    assert done.runs_on is Side.SOURCE
    assert done.machine is not None
    assert left(residents) == ["root.raw"]
    assert await residents.hosts["b"].machines() == ()
    [after] = await done.machine.storage().disks()
    assert not after.busy
    [found] = await verified(done.machine, "/dev/vda")
    assert found.intact

import asyncio
from dataclasses import replace

import pytest

from unit.practice.fakes import FakeReception
from unit.practice.storage_fakes import WEB, DiskMachine, FakeSite, FakeStorage, Heard
from whimbrel.errors import CommandRefused, ConfigError, HostError
from whimbrel.model.storage import Copying, Extent
from whimbrel.model.units import GIB, MIB
from whimbrel.practice import copying
from whimbrel.practice.storage import Hosts, StorageWish, storage_beside
from whimbrel.practice.storage_only import move_storage
from whimbrel.practice.storage_places import placed_copies
from whimbrel.practice.storage_recover import recover_storage
from whimbrel.practice.storage_survey import disk_loads


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "LOOK_EVERY", 0.0)


WISH = StorageWish(("/b",))
ENDLESS = [Copying(1, GIB)] * 1000


def hosts() -> tuple[Hosts, FakeSite, FakeSite]:
    here = FakeSite("a", images={"/a/root.raw": "web", "/a/data.raw": "web"})
    there = FakeSite("b")
    return Hosts(here, there), here, there


def reception() -> FakeReception:
    return FakeReception(DiskMachine(runs=False))


def disks_of(found: FakeReception) -> FakeStorage:
    assert isinstance(found.machine, DiskMachine)
    return found.machine.disks


async def test_disks_travel_in_order_and_are_the_vms_after_arrival() -> None:
    sites, here, there = hosts()
    machine, waiting = DiskMachine(), reception()
    async with storage_beside(machine, sites, WISH, Heard()) as beside:
        assert sorted(there.images) == ["/b/data.raw", "/b/root.raw"]
        assert [disk.path for disk in beside.vm.disks] == ["/b/root.raw", "/b/data.raw"]
        await beside.before_memory(waiting)
        mirrors = machine.disks.mirrors
        assert disks_of(waiting).exported == ["vda", "vdb"]
        assert all(mirror.done == [] for mirror in mirrors.values())
        await beside.before_handover()
        assert all(mirror.done == ["finish"] for mirror in mirrors.values())
        assert disks_of(waiting).exports[0].stopped
        await beside.after_arrival()
    assert there.made == {}
    assert sorted(there.images) == ["/b/data.raw", "/b/root.raw"]
    assert sorted(here.images) == ["/a/data.raw", "/a/root.raw"]
    assert "/a/root.raw on a" in beside.report[0]
    first = beside.copied[0]
    assert (first.name, first.old, first.new) == ("vda", "/a/root.raw", "/b/root.raw")
    assert first.data == 10 * MIB
    assert first.time is not None
    assert [each.note for each in beside.copied] == list(beside.report)


async def test_the_sources_images_go_only_where_that_was_asked() -> None:
    sites, here, _ = hosts()
    wish = replace(WISH, remove_source=True)
    async with storage_beside(DiskMachine(), sites, wish, Heard()) as beside:
        await beside.before_memory(reception())
        await beside.before_handover()
        await beside.after_arrival()
    assert here.images == {}
    assert beside.report[0] == "The old image /a/root.raw on a was removed."


async def test_a_failed_move_leaves_no_image_and_no_copy() -> None:
    sites, here, there = hosts()
    machine, waiting = DiskMachine(), reception()
    async with storage_beside(machine, sites, WISH, Heard()) as beside:
        await beside.before_memory(waiting)
        await beside.after_failure(machine)
    assert there.images == {}
    assert there.made == {}
    assert len(here.images) == 2
    assert disks_of(waiting).exports[0].stopped
    assert all("abandon" in mirror.done for mirror in machine.disks.mirrors.values())


async def test_a_move_that_never_began_leaves_no_image() -> None:
    sites, _, there = hosts()
    with pytest.raises(HostError, match="cannot receive"):
        async with storage_beside(DiskMachine(), sites, WISH, Heard()):
            raise HostError("cannot receive")
    assert there.images == {}


async def test_images_stay_where_nobody_knows_how_the_move_ended() -> None:
    sites, _, there = hosts()
    async with storage_beside(DiskMachine(), sites, WISH, Heard()) as beside:
        await beside.before_memory(reception())
        await beside.before_handover()
    assert len(there.images) == len(there.made) == 2


async def test_an_image_that_cannot_be_made_takes_the_others_back() -> None:
    sites, _, there = hosts()
    there.images["/b/data.raw"] = "somebody's"
    with pytest.raises(CommandRefused, match="there already"):
        async with storage_beside(DiskMachine(), sites, WISH, Heard()):
            pass
    assert there.images == {"/b/data.raw": "somebody's"}


async def test_a_second_mirror_that_does_not_begin_gives_the_first_up() -> None:
    sites, _, there = hosts()
    machine = DiskMachine(disks=FakeStorage(fails={"vdb": "mirror"}))
    async with storage_beside(machine, sites, WISH, Heard()) as beside:
        with pytest.raises(CommandRefused):
            await beside.before_memory(reception())
        assert machine.disks.mirrors["vda"].done == ["abandon"]
        await beside.after_failure(machine)
    assert there.images == {}


async def test_a_copy_that_died_beside_the_memory_ends_the_move_at_the_handover() -> None:
    sites, _, there = hosts()
    script = [Copying(GIB, 0, ready=True), Copying(GIB, 9, failure="Input/output error")]
    machine = DiskMachine(disks=FakeStorage(scripts={"vda": script}))
    async with storage_beside(machine, sites, WISH, Heard()) as beside:
        await beside.before_memory(reception())
        for _ in range(20):  # until what looks on beside the memory has seen it
            await asyncio.sleep(0)
        with pytest.raises(HostError, match="Input/output error"):
            await beside.before_handover()
        await beside.after_failure(machine)
    assert there.images == {}


async def test_a_guest_is_not_handed_over_without_its_disks() -> None:
    sites, _, _ = hosts()
    async with storage_beside(DiskMachine(), sites, WISH, Heard()) as beside:
        with pytest.raises(HostError, match="not copied"):
            await beside.before_handover()


async def test_disks_move_alone_and_the_machine_remembers() -> None:
    sites, here, _ = hosts()
    machine = DiskMachine()
    wish = StorageWish(("vda=/c/root.raw",), remove_source=True)
    [moved] = await move_storage(machine, sites.source, wish, Heard())
    assert (moved.old, moved.new, moved.old_removed) == ("/a/root.raw", "/c/root.raw", True)
    assert machine.disks.mirrors["vda"].done == ["pivot"]
    assert "vdb" not in machine.disks.mirrors
    assert [disk.path for disk in machine.vm.disks] == ["/c/root.raw", "/a/data.raw"]
    assert here.made == {}
    assert sorted(here.images) == ["/a/data.raw", "/c/root.raw"]


async def test_a_disk_that_cannot_go_over_stays_while_the_first_has_moved() -> None:
    sites, here, _ = hosts()
    machine = DiskMachine(disks=FakeStorage(fails={"vdb": "pivot"}))
    with pytest.raises(HostError, match="vdb cannot pivot"):
        await move_storage(machine, sites.source, StorageWish(("/c",)), Heard())
    assert [disk.path for disk in machine.vm.disks] == ["/c/root.raw", "/a/data.raw"]
    assert sorted(here.images) == ["/a/data.raw", "/a/root.raw", "/c/root.raw"]
    assert here.made == {}


async def test_a_storage_move_without_a_place_is_refused() -> None:
    sites, _, _ = hosts()
    with pytest.raises(ConfigError, match="No disk was named"):
        await move_storage(DiskMachine(), sites.source, StorageWish(()), Heard())


async def test_a_storage_move_called_back_leaves_everything_as_it_was() -> None:
    sites, here, _ = hosts()
    machine = DiskMachine(disks=FakeStorage(scripts={"vda": ENDLESS}))
    moving = asyncio.create_task(
        move_storage(machine, sites.source, StorageWish(("vda=/c/x",)), Heard())
    )
    await machine.disks.begun.wait()
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert machine.disks.mirrors["vda"].done == ["abandon"]
    assert sorted(here.images) == ["/a/data.raw", "/a/root.raw"]
    assert machine.vm == WEB


@pytest.mark.parametrize("differs", ["/a/base", "/a/deeper"])
async def test_a_base_that_is_another_one_there_is_refused(differs: str) -> None:
    sites, _, there = hosts()
    there.fingerprints[differs] = "other"
    facts = await DiskMachine().disks.disks()
    over, under = (replace(facts[0].top, path=path) for path in ("/a/base", "/a/deeper"))
    chained = replace(facts[0], chain=(facts[0].top, over, under))
    qcow2 = replace(WEB, disks=(replace(WEB.disks[0], format="qcow2"),))
    machine = DiskMachine(vm=qcow2)
    [copy] = placed_copies(qcow2, [chained], ["/b"], Extent.TOP)
    assert copy.base == over

    class Chained(FakeStorage):
        async def disks(self):  # type: ignore[no-untyped-def] # noqa: ANN202
            return (chained,)

    machine.disks = Chained()
    with pytest.raises(CommandRefused, match="another one on b"):
        async with storage_beside(machine, sites, replace(WISH, extent=Extent.TOP), Heard()):
            pass
    assert there.images == {}


async def test_after_a_crash_used_images_are_kept_and_all_else_of_the_move_is_gone() -> None:
    _, here, there = hosts()
    for site, path in ((here, "/c/used"), (here, "/c/unused"), (there, "/b/root.raw")):
        site.image_make(path, "web")
    there.image_make("/b/other", "another VM")
    machine = DiskMachine(disks=FakeStorage(at={"vda": "/c/used"}, busy="mirror whimbrel-vda"))
    said = await recover_storage(machine, here, there)
    assert machine.disks.released == 1
    assert machine.vm.disks[0].path == "/c/used"
    assert "/c/used" in here.images
    assert "/c/unused" not in here.images
    assert sorted(there.images) == ["/b/other"]
    assert here.made == {}
    assert any("given up" in sentence for sentence in said)
    assert any("/b/root.raw on b" in sentence for sentence in said)
    assert await recover_storage(machine, here, there) == []


async def test_a_survey_of_writes_tells_rate_and_size() -> None:
    machine = DiskMachine()
    facts = await machine.disks.disks()
    copies = placed_copies(WEB, facts, ["/b"])
    first, second = await disk_loads(machine, copies, 0.01)
    assert first.write_rate == pytest.approx(819200)
    assert first.write_size == 4096
    assert first.data == first.area == facts[0].allocated
    assert second.write_rate == 0

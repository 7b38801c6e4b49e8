"""Disks that the hypervisor's own move copies: whimbrel makes, keeps and removes their images."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from unit.practice.fakes import FakeReception
from unit.practice.storage_fakes import DiskMachine, FakeSite, FakeStorage, Heard
from whimbrel.model.storage import Extent
from whimbrel.model.units import MIB
from whimbrel.practice.storage import Hosts, StorageWish, storage_beside


@dataclass
class CarryingStorage(FakeStorage):
    """Disks that travel within the hypervisor's move."""

    carried: list[tuple[tuple[str, ...], Extent, int]] = field(default_factory=list)

    def carry(self, disks: Sequence[str], extent: Extent, port: int = 0) -> None:
        self.carried.append((tuple(disks), extent, port))


WISH = StorageWish(("/b",), port=49200)


def scene() -> tuple[DiskMachine, CarryingStorage, Hosts, FakeSite, FakeSite]:
    here = FakeSite("a", images={"/a/root.raw": "web", "/a/data.raw": "web"})
    there = FakeSite("b")
    storage = CarryingStorage()
    return DiskMachine(disks=storage), storage, Hosts(here, there), here, there


async def test_the_hypervisor_is_told_what_to_carry_and_the_guest_waits_for_nobody() -> None:
    machine, storage, sites, _, there = scene()
    heard = Heard()
    async with storage_beside(machine, sites, WISH, heard) as within:
        assert not within.pauses
        await within.before_memory(FakeReception(DiskMachine(runs=False)))
        assert storage.carried == [(("vda", "vdb"), Extent.WHOLE, 49200)]
        assert storage.mirrors == {}
        assert storage.exports == []
        for _ in range(20):  # until what looks on has asked the host
            await asyncio.sleep(0)
        told = heard.progress[0]
        assert (told.copied, told.total, told.ready) == (20 * MIB, 200 * MIB, False)
        await within.after_arrival()
    assert sorted(there.images) == ["/b/data.raw", "/b/root.raw"]
    assert there.made == {}
    assert "still there" in within.report[0]


async def test_after_a_failure_no_image_is_left_and_nothing_is_carried() -> None:
    machine, storage, sites, here, there = scene()
    async with storage_beside(machine, sites, WISH, Heard()) as within:
        await within.before_memory(FakeReception(DiskMachine(runs=False)))
        await within.after_failure(machine)
    assert storage.released == 1
    assert there.images == there.made == {}
    assert len(here.images) == 2


async def test_the_sources_images_go_only_where_that_was_asked() -> None:
    machine, _, sites, here, _ = scene()
    wish = replace(WISH, remove_source=True)
    async with storage_beside(machine, sites, wish, Heard()) as within:
        await within.before_memory(FakeReception(DiskMachine(runs=False)))
        await within.after_arrival()
    assert here.images == {}
    assert "was removed" in within.report[0]

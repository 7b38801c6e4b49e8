"""VMs move with their disks, and disks alone, while real guests write them and check them."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from storage.guests import disk_vm, redline, sparse, verified
from storage.pair import Pair, Watched, disk, one_disk
from storage.wire import wire
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import Phase, Side
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Load
from whimbrel.model.storage import CopyMode, Extent
from whimbrel.model.units import GIB, MIB
from whimbrel.practice.storage import StorageWish
from whimbrel.practice.storage_only import move_storage

pytestmark = pytest.mark.timeout(180)


def create(path: Path, *words: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words, path, "1G"], check=True)
    return path


def holds(image: Path, at: int, size: int, raw: Path) -> bool:
    """Tell whether an image holds, in these bytes, what a raw one does."""
    plain = image.with_suffix(".plain")
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", image, plain], check=True)
    words = ["cmp", "-s", f"--ignore-initial={at}", f"--bytes={size}", str(raw), str(plain)]
    return subprocess.run(words, check=False).returncode == 0


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


async def test_a_vm_moves_with_all_its_disks_while_it_writes_them(pair: Pair) -> None:
    raw, grown = pair.images_a / "root.raw", create(pair.images_a / "data.qcow2")
    sparse(raw, 4 * GIB)
    machine = await pair.a.start(disk_vm([disk("vda", raw), disk("vdb", grown, "qcow2")]))
    async with redline(machine) as guest:
        await guest.fill_disk("/dev/vda", 200 * MIB, at=GIB)
        await guest.fill_disk("/dev/vdb", 8 * MIB)
        await guest.load_disk("/dev/vda", 32 * MIB, 4 * MIB)
        await guest.load_disk("/dev/vdb", 4 * MIB, MIB)
    watched = Watched()
    async with wire() as led:
        moved, beside = await pair.move(
            machine, StorageWish((str(pair.images_b),)), watched, wire=led
        )
        carried = led.carried
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    assert all(found.intact for found in await verified(moved.machine, "/dev/vda", "/dev/vdb"))
    assert moved.machine.vm.disks[0].path == str(pair.images_b / "root.raw")
    # About 200 MiB of the 4 GiB, what the guest wrote meanwhile, and nothing for the holes.
    assert 208 * MIB <= carried < 300 * MIB
    assert allocated(pair.images_b / "root.raw") < 210 * MIB
    assert watched.seen[-1].ready
    assert sorted(pair.left_at_b()) == ["data.qcow2", "root.raw"]
    assert raw.exists()
    assert all("still there" in sentence for sentence in beside.report)
    async with redline(moved.machine) as guest:
        before = await guest.disk_written("/dev/vda")
        while await guest.disk_written("/dev/vda") == before:
            pass  # every question waits for its answer


async def test_disks_are_whole_before_a_guest_goes_over_by_post_copy(pair: Pair) -> None:
    # So small a downtime limit that pre-copy cannot end the move.
    tuning = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, downtime_limit=0.001, bandwidth_limit=40e6)
    async with one_disk(pair, rate=8 * MIB) as machine:
        async with redline(machine) as guest:
            await guest.fill(Load(fill=64 * MIB, hot=32 * MIB, dirty_rate=80e6))
        wish = StorageWish((str(pair.images_b),))
        moved, _ = await pair.move(machine, wish, Watched(), tuning=tuning)
    phases = [change.phase for change in moved.outcome.phases]
    assert phases[-3:] == [Phase.SWITCHOVER, Phase.POSTCOPY, Phase.COMPLETED]
    assert moved.machine is not None
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact
    async with redline(moved.machine) as guest:
        assert (await guest.verify()).intact


async def test_an_encrypted_move_encrypts_its_disks_too(pair: Pair) -> None:
    async with one_disk(pair) as machine:
        address = MigrationAddress("127.0.0.1", key="5a" * 32)
        wish = StorageWish((str(pair.images_b),), remove_source=True)
        moved, beside = await pair.move(machine, wish, Watched(), address=address)
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact
    assert "removed" in beside.report[0]
    assert not (pair.images_a / "root.raw").exists()


async def test_of_a_chain_the_top_travels_where_its_base_is_and_all_of_it_elsewhere(
    pair: Pair,
) -> None:
    base = pair.images_a / "base.raw"
    sparse(base, GIB)
    with base.open("r+b") as file:
        file.seek(512 * MIB)
        file.write(os.urandom(8 * MIB))
    top = create(pair.images_a / "top.qcow2", "-b", str(base), "-F", "raw")
    machine = await pair.a.start(disk_vm([disk("vda", top, "qcow2")]))
    async with redline(machine) as guest:
        await guest.fill_disk("/dev/vda", 4 * MIB, at=510 * MIB)
        await guest.load_disk("/dev/vda", MIB, MIB)
    wish = StorageWish((str(pair.images_b),), extent=Extent.TOP)
    async with wire() as led:
        moved, _ = await pair.move(machine, wish, Watched(), wire=led)
        assert led.carried < 12 * MIB
    assert moved.machine is not None
    [chained] = await moved.machine.storage().disks()
    assert [image.path for image in chained.chain] == [str(pair.images_b / "top.qcow2"), str(base)]
    whole = pair.images_b / "whole.qcow2"
    alone = StorageWish((f"vda={whole}",))
    await move_storage(moved.machine, pair.hosts.destination, alone, Watched())
    [flat] = await moved.machine.storage().disks()
    assert [image.path for image in flat.chain] == [str(whole)]
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact
    assert holds(whole, 516 * MIB, 4 * MIB, base)


async def test_a_guest_that_outruns_the_link_has_its_writes_wait(pair: Pair) -> None:
    async with one_disk(pair, fill=12 * MIB, hot=12 * MIB, rate=64 * MIB) as machine, wire() as led:
        led.rate = 4e6
        watched = Watched()
        moved, _ = await pair.move(machine, StorageWish((str(pair.images_b),)), watched, wire=led)
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert watched.reasons
    assert watched.seen[-1].disks[0][1].mode is CopyMode.WRITE_BLOCKING
    assert moved.machine is not None
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact


async def test_a_copy_survives_a_link_that_is_cut_for_a_while(pair: Pair) -> None:
    async with one_disk(pair) as machine, wire() as led:
        led.rate = 30e6
        watched = Watched()
        wish = StorageWish((str(pair.images_b),))
        moving = asyncio.create_task(pair.move(machine, wish, watched, wire=led))
        await watched.until(lambda progress: progress.disks[0][1].done > 0)
        led.snap()  # the connection breaks, and is made again
        led.restore()
        led.cut()
        seen = len(watched.seen)
        async with asyncio.timeout(30):
            while len(watched.seen) < seen + 5:
                watched.news.clear()
                await watched.news.wait()
        led.mend()
        moved, _ = await moving
    assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
    assert moved.machine is not None
    [found] = await verified(moved.machine, "/dev/vda")
    assert found.intact


async def test_a_disk_goes_elsewhere_and_back_while_its_vm_stays(pair: Pair) -> None:
    async with one_disk(pair) as machine:
        there = pair.images_b / "root.raw"
        site = pair.hosts.source
        [moved] = await move_storage(machine, site, StorageWish((f"vda={there}",)), Watched())
        assert (moved.new, moved.old_removed) == (str(there), False)
        assert machine.vm.disks[0].path == str(there)
        [found] = await verified(machine, "/dev/vda")
        assert found.intact
        assert allocated(there) < 50 * MIB
        back = StorageWish((f"vda={pair.images_a}/back.raw",), remove_source=True)
        [moved] = await move_storage(machine, site, back, Watched())
        assert moved.old_removed
        assert not there.exists()
        [facts] = await machine.storage().disks()
        assert facts.top.path == str(pair.images_a / "back.raw")
        async with redline(machine) as guest:
            before = await guest.disk_written("/dev/vda")
            while await guest.disk_written("/dev/vda") == before:
                pass  # every question waits for its answer
        moved_again, _ = await pair.move(machine, StorageWish((str(pair.images_b),)), Watched())
    assert moved_again.outcome.runs_on is Side.DESTINATION
    assert moved_again.machine is not None
    [found] = await verified(moved_again.machine, "/dev/vda")
    assert found.intact

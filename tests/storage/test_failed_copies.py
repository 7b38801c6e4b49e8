"""Copies that fail or are called back: the guest keeps its disk, and nothing is left.

One guest goes through all of it, since all of it must leave the guest as it was.
"""

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from storage.guests import sparse, verified
from storage.pair import HERE, Pair, Watched, disk, one_disk, two_hosts
from storage.wire import wire
from whimbrel.errors import CommandRefused, HostError
from whimbrel.hypervisors.qemu import storage_translate
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.model.method import Tuning
from whimbrel.model.storage import Extent
from whimbrel.model.units import GIB, KIB, MIB
from whimbrel.ports import Machine
from whimbrel.practice.images import Images
from whimbrel.practice.storage import StorageWish, storage_beside
from whimbrel.practice.storage_only import move_storage
from whimbrel.practice.storage_places import placed_copies
from whimbrel.practice.storage_recover import recover_storage

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Guest:
    """The guest at a, and both hosts."""

    pair: Pair
    machine: Machine

    async def is_as_it_was(self) -> bool:
        """Tell whether it runs, its disk is whole, and nothing of a copy is left anywhere."""
        assert isinstance(self.machine, QemuMachine)
        monitor = self.machine.process.monitor
        nodes = await monitor.execute("query-named-block-nodes", {"flat": True})
        ours = [node for node in nodes if node["node-name"].startswith("whimbrel-")]
        [facts] = await self.machine.storage().disks()
        [found] = await verified(self.machine, "/dev/vda")
        return (
            await self.machine.running()
            and found.intact
            and facts.top.path == str(self.pair.images_a / "root.raw")
            and not ours
            and not await monitor.execute("query-block-jobs")
            and self.pair.left_at_b() == []
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest() -> AsyncIterator[Guest]:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with two_hosts(Path(folder)) as pair, one_disk(pair, fill=24 * MIB) as machine:
            yield Guest(pair, machine)


async def begun(
    moving: Callable[[StorageWish, Watched], Coroutine[Any, Any, Any]], wish: StorageWish
) -> "asyncio.Task[Any]":
    """Begin a move, and return it when the first bytes have been copied."""
    watched = Watched()
    task = asyncio.create_task(moving(wish, watched))
    waiting = asyncio.create_task(watched.until(lambda seen: seen.disks[0][1].done > 0))
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not task.done()
    return task


async def called_back(task: "asyncio.Task[Any]") -> bool:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def test_a_move_called_back_during_the_copy_leaves_nothing(guest: Guest) -> None:
    slow = StorageWish((str(guest.pair.images_b),), rate=2 * MIB)
    task = await begun(lambda wish, seen: guest.pair.move(guest.machine, wish, seen), slow)
    assert await called_back(task)
    assert await guest.is_as_it_was()


async def test_a_disk_on_its_way_elsewhere_can_be_called_back(guest: Guest) -> None:
    site = guest.pair.hosts.source
    slow = StorageWish((f"vda={guest.pair.images_b}/root.raw",), rate=2 * MIB)
    task = await begun(lambda wish, seen: move_storage(guest.machine, site, wish, seen), slow)
    assert await called_back(task)
    assert await guest.is_as_it_was()


async def test_a_destination_that_dies_during_the_copy_is_told(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_translate, "RECONNECT_DELAY", 1)
    wish, pair = StorageWish((str(guest.pair.images_b),)), guest.pair
    async with wire() as led:
        led.rate = 10e6
        task = await begun(lambda w, seen: pair.move(guest.machine, w, seen, wire=led), wish)
        kill_qemu(guest.pair, "b-")
        with pytest.raises(HostError, match="copy of disk vda failed"):
            await task
    assert await guest.is_as_it_was()


async def test_a_link_that_is_cut_for_good_is_told(guest: Guest) -> None:
    async with wire() as led:
        led.rate = 10e6
        wish = StorageWish((str(guest.pair.images_b),), patience=1.0)
        pair = guest.pair
        task = await begun(lambda w, seen: pair.move(guest.machine, w, seen, wire=led), wish)
        led.cut()
        with pytest.raises(HostError, match="stood still"):
            await task
    assert await guest.is_as_it_was()


async def test_a_move_that_never_begins_leaves_no_image(guest: Guest) -> None:
    wish = StorageWish((str(guest.pair.images_b),))
    async with storage_beside(guest.machine, guest.pair.hosts, wish, Watched()) as beside:
        assert guest.pair.left_at_b()
        assert beside.vm.disks[0].path == str(guest.pair.images_b / "root.raw")
    assert await guest.is_as_it_was()


async def test_an_image_that_is_there_already_stays_as_it_is(guest: Guest) -> None:
    theirs = guest.pair.images_b / "root.raw"
    theirs.write_text("somebody's")
    wish = StorageWish((str(guest.pair.images_b),))
    with pytest.raises(CommandRefused, match="not overwritten"):
        await guest.pair.move(guest.machine, wish, Watched())
    assert theirs.read_text() == "somebody's"
    theirs.unlink()
    assert await guest.is_as_it_was()


async def test_copies_of_an_earlier_whimbrel_can_be_released(guest: Guest) -> None:
    copy = guest.pair.images_b / "copy"
    sparse(copy, GIB)
    storage = guest.machine.storage()
    await storage.mirror("vda", disk("vda", copy), Extent.WHOLE, rate=64 * KIB)
    [facts] = await storage.disks()
    assert "mirror" in facts.busy
    with pytest.raises(CommandRefused):
        await storage.mirror("vda", disk("vda", copy), Extent.WHOLE)
    await storage.release()
    copy.unlink()
    assert await guest.is_as_it_was()


async def test_a_storage_move_whose_whimbrel_died_is_cleaned_up_after(guest: Guest) -> None:
    site = guest.pair.hosts.source
    facts = await guest.machine.storage().disks()
    wish = f"vda={guest.pair.images_b}/root.raw"
    [copy] = placed_copies(guest.machine.vm, facts, [wish])
    await Images(site, guest.machine.vm.name).make([copy], site)
    await guest.machine.storage().mirror("vda", copy.place, Extent.WHOLE, rate=64 * KIB)
    said = await recover_storage(guest.machine, site)
    assert len(said) == 2
    assert await guest.is_as_it_was()
    assert await recover_storage(guest.machine, site) == []


async def test_a_disk_that_a_guest_writes_is_never_exported(guest: Guest) -> None:
    with pytest.raises(CommandRefused, match="Permission conflict"):
        await guest.machine.storage().export(HERE, ["vda"])
    reception = await guest.pair.b.receive(guest.machine.vm, Tuning(), HERE)
    with pytest.raises(CommandRefused, match='"write" lock'):
        await reception.machine.storage().export(HERE, ["vda"])
    await reception.machine.stop()
    assert await guest.is_as_it_was()


async def test_a_port_that_is_taken_is_told_and_a_stopped_export_frees_it(guest: Guest) -> None:
    copy = guest.pair.images_b / "copy"
    sparse(copy, GIB)
    vm = replace(guest.machine.vm, disks=(disk("vda", copy),))
    reception = await guest.pair.b.receive(vm, Tuning(), HERE)
    there = reception.machine.storage()
    first = await there.export(HERE, ["vda"])
    with pytest.raises(CommandRefused):
        await there.export(first.address, ["vda"])
    await there.release()
    again = await there.export(first.address, ["vda"])
    await again.stop()
    await again.stop()
    await reception.machine.stop()
    copy.unlink()
    assert await guest.is_as_it_was()


async def test_nobody_writes_a_disk_without_the_key(guest: Guest) -> None:
    copy = guest.pair.images_b / "copy"
    sparse(copy, GIB)
    keyed = replace(HERE, key="5a" * 32)
    vm = replace(guest.machine.vm, disks=(disk("vda", copy),))
    reception = await guest.pair.b.receive(vm, Tuning(encrypted=True), keyed)
    export = await reception.machine.storage().export(keyed, ["vda"])
    for key in ("", "a5" * 32):
        place = replace(export.address, key=key)
        with pytest.raises(CommandRefused):
            await guest.machine.storage().mirror("vda", place, Extent.WHOLE)
    await reception.machine.stop()
    copy.unlink()
    assert await guest.is_as_it_was()


@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
async def test_a_full_disk_at_the_destination_is_told(guest: Guest) -> None:
    small = guest.pair.images_b / "small"
    small.mkdir()
    with mounted(small, 8 * MIB):
        wish = StorageWish((str(small),))
        with pytest.raises(HostError, match="No space left"):
            await guest.pair.move(guest.machine, wish, Watched())
        assert list(small.iterdir()) == []
    small.rmdir()
    assert await guest.is_as_it_was()


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Have a file system of so many bytes in a folder."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(words, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def kill_qemu(pair: Pair, prefix: str) -> None:
    """End the QEMU whose folder begins like this, as a power cut would."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = process.read_bytes().decode(errors="replace")
            if f"{pair.folder}/qemu/{prefix}" in words and "qemu-system" in words:
                os.kill(int(process.parent.name), signal.SIGKILL)

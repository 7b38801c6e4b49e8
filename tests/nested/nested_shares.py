"""A VM and its disk on SMB 3 and NFS shares, by the real command; run by ./run test-nested.

    a: local ──at──► SMB ──move──► b: SMB ──at──► local ──at──► NFS ──move──► a: NFS ──at──► local

at: the disk alone, by the scheduler, at a set time. The guest writes its memory and its disk all
along, and both are read whole after every leg.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from nested.person import PATIENCE, TOO_SLOW, Person, person
from nested.shares import LOCAL, NFS, SERVED, SERVER, SMB, local_disk, mount, sent_by_smb, serve
from whimbrel.errors import ExitCode
from whimbrel.lab.nested.hosts import nested_hosts
from whimbrel.lab.redline import Redline
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

DEVICE = "/dev/vda"
DISK = f'[[disks]]\nname = "disk"\npath = "{LOCAL}/web.img"\nsize = "32 MiB"\n'
FILL, HOT, RATE = 8 * MIB, 2 * MIB, 50e3
LOAD = Load(fill=8 * MIB, hot=1 * MIB, dirty_rate=100e3)
PAGES, BLOCKS = LOAD.fill // 4096, FILL // 4096

SLOWLY = ("--limit", "512 KiB/s")
"""So that a copy takes half a minute, and the guest is seen to write meanwhile."""

AHEAD = timedelta(seconds=20)
"""From the planning of a job to its time."""

MOVE = ("--survey", "none", "--method", "tcp", "--max-downtime", "30 s")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    """Somebody with a guest on a that writes its local disk, and shares at both hosts."""
    folder = tmp_path_factory.mktemp("person")
    async with nested_hosts("a", "b", SERVER, wires=2) as nested:
        await serve(nested[SERVER])
        for name in ("a", "b"):
            theirs = nested[SERVER].wires[0 if name == "a" else 2].address
            await mount(nested[name], theirs.partition("/")[0])
            await local_disk(nested[name])
        async with person(nested, "a", "b", folder=folder) as someone:
            await someone.up("web", on="a", load=LOAD, more=DISK)
            async with someone.redline("web", "a") as redline:
                await redline.fill_disk(DEVICE, FILL)
                await redline.load_disk(DEVICE, HOT, RATE)
            yield someone


async def test_both_hosts_reach_the_share_over_several_channels(at: Person) -> None:
    for name in ("a", "b"):
        told = await at.hosts[name].run("cat", "/proc/fs/cifs/DebugData")
        assert "Dialect 0x311" in told
        assert "Extra Channels: 1" in told


async def test_a_disk_moves_to_an_smb_share_at_a_set_time_while_the_guest_writes(
    at: Person,
) -> None:
    before = sorted(await sent_by_smb(at.hosts["a"]))
    await moved_at_a_set_time(at, "a", LOCAL, SMB)
    assert await served(at) == ["smb/web.img"]
    after = sorted(await sent_by_smb(at.hosts["a"]))
    gained = [now - then for then, now in zip(before, after, strict=True)]
    assert min(gained) > 1 * MIB, f"one channel carried it alone: {gained}"


async def test_a_vm_whose_disk_lies_on_an_smb_share_moves(at: Person) -> None:
    await at.done("move", "web", "--to", "b", *MOVE)
    assert await at.places("web") == ["b"]
    assert await served(at) == ["smb/web.img"]
    await whole(at, "b")


async def test_its_disk_moves_back_from_the_smb_share_at_a_set_time_while_the_guest_writes(
    at: Person,
) -> None:
    await moved_at_a_set_time(at, "b", SMB, LOCAL)
    assert await served(at) == []


async def test_a_disk_moves_to_an_nfs_share_at_a_set_time_while_the_guest_writes(
    at: Person,
) -> None:
    await moved_at_a_set_time(at, "b", LOCAL, NFS)
    assert await served(at) == ["nfs/web.img"]


async def test_a_vm_whose_disk_lies_on_an_nfs_share_moves(at: Person) -> None:
    await at.done("move", "web", "--to", "a", *MOVE)
    assert await at.places("web") == ["a"]
    assert await served(at) == ["nfs/web.img"]
    await whole(at, "a")


async def test_its_disk_moves_back_from_the_nfs_share_at_a_set_time_while_the_guest_writes(
    at: Person,
) -> None:
    await moved_at_a_set_time(at, "a", NFS, LOCAL)
    assert await served(at) == []


async def moved_at_a_set_time(at: Person, on: str, old: str, new: str) -> None:
    """Have the scheduler move the disk, see the guest write meanwhile, and read all of it."""
    words = ("move", "web", "--storage", f"{new}/", "--remove-source", *SLOWLY)
    over = await scheduled(at, on, words, (f"{old}/web.img", f"{new}/web.img"))
    while over["code"] == ExitCode.HOST and TOO_SLOW in str(over["message"]):
        over = await scheduled(at, on, words, (f"{old}/web.img", f"{new}/web.img"))
    assert over["code"] == 0, over["message"]
    assert over["written"] > 0
    assert await at.places("web") == [on]
    found = await at.hosts[on].run("find", LOCAL, SMB, NFS, "-name", "web.img")
    assert found.split() == [f"{new}/web.img"]
    await whole(at, on)


async def scheduled(
    at: Person, on: str, words: Sequence[str], images: tuple[str, str]
) -> dict[str, Any]:
    """Plan a command for a set time and let a scheduler carry it out.

    Returns:
        The turn as it ended; "written": the blocks that the guest was seen to write while both
        the old image and the new one were there.
    """
    due = (datetime.now(UTC) + AHEAD).replace(microsecond=0)
    await at.done("schedule", "add", "--at", due.isoformat(), *words)
    async with scheduler(at) as told, at.redline("web", on) as redline:
        begun = await turn(told)
        assert begun["due"] == due.timestamp()
        assert begun["began"] >= begun["due"]
        ending = asyncio.create_task(turn(told))
        try:
            written = await written_meanwhile(at, on, (redline, images), ending)
            return {**await ending, "written": written}
        finally:
            ending.cancel()


@asynccontextmanager
async def scheduler(at: Person) -> AsyncIterator[asyncio.StreamReader]:
    """Hold a scheduler; yields what it tells."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "whimbrel", "scheduler", "--json"],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=at.environment,
    )
    at.running.append(process)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def turn(told: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next turn that the scheduler tells of: begun, or over."""
    async with asyncio.timeout(PATIENCE):
        found: dict[str, Any] = json.loads(await told.readline())
        return found


async def written_meanwhile(
    at: Person,
    on: str,
    copied: tuple[Redline, tuple[str, str]],
    ending: "asyncio.Task[dict[str, Any]]",
) -> int:
    """Return the blocks written while a copy was on its way; 0 where none was seen to be.

    The new image is there from the beginning of the copy on, and the old one up to its end.
    """
    redline, (old, new) = copied
    while not ending.done() and not await there(at, on, new):
        pass
    before = written = await redline.disk_written(DEVICE)
    while not ending.done() and written == before:
        written = await redline.disk_written(DEVICE)
    return written - before if await there(at, on, old) else 0


async def there(at: Person, on: str, path: str) -> bool:
    """Tell whether a file is there."""
    return (await at.hosts[on].tried("test", "-e", path)).code == 0


async def served(at: Person) -> list[str]:
    """Return the images that lie at the server, below what it serves."""
    found = await at.hosts[SERVER].run("find", SERVED, "-name", "*.img", "-printf", "%P\\n")
    return found.split()


async def whole(at: Person, on: str) -> None:
    """Let the guest read all of its memory and its disk; it goes on writing both."""
    async with at.redline("web", on) as redline:
        memory = await redline.verify()
        disk = await redline.verify_disk(DEVICE)
        written = await redline.disk_written(DEVICE)
        async with asyncio.timeout(PATIENCE):
            while await redline.disk_written(DEVICE) == written:
                pass
    assert memory.intact, memory
    assert memory.pages_checked == PAGES
    assert disk.intact, disk
    assert disk.blocks_checked == BLOCKS

"""A VM and its disk on SMB 3 and NFS shares, by the real command; run by ./run test-nested.

a: local ──schedule──► SMB ──► b ──► local ──► NFS ──► a          the guest writes all along
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from nested.hosts import nested_hosts
from nested.person import PATIENCE, TOO_SLOW, Person, person
from nested.shares import LOCAL, NFS, SMB, local_disk, mount, serve
from whimbrel.errors import ExitCode
from whimbrel.model.units import MIB

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000)]

DISK = f'[[disks]]\nname = "disk"\npath = "{LOCAL}/web.img"\nsize = "32 MiB"\n'
FILL, HOT, RATE = 8 * MIB, 2 * MIB, 50e3
BLOCKS = FILL // 4096


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    """Somebody with a guest on a that writes its local disk, and shares at both hosts."""
    folder = tmp_path_factory.mktemp("person")
    async with nested_hosts("a", "b", "store", wires=2) as nested:
        await serve(nested["store"])
        for name in ("a", "b"):
            theirs = nested["store"].wires[0 if name == "a" else 2].address
            await mount(nested[name], theirs.partition("/")[0])
            await local_disk(nested[name])
        async with person(nested, "a", "b", folder=folder) as someone:
            await someone.up("web", on="a", more=DISK)
            async with someone.redline("web", "a") as redline:
                await redline.fill_disk("/dev/vda", FILL)
                await redline.load_disk("/dev/vda", HOT, RATE)
            yield someone


async def test_the_share_is_reached_over_several_channels(at: Person) -> None:
    told = await at.hosts["a"].run("cat", "/proc/fs/cifs/DebugData")
    assert "Dialect 0x311" in told
    assert "Extra Channels: 1" in told


async def test_a_disk_moves_to_an_smb_share_at_a_set_time_while_the_guest_writes(
    at: Person,
) -> None:
    words = ("move", "web", "--storage", f"{SMB}/", "--remove-source")
    over = await scheduled(at, words)
    while over["code"] == ExitCode.HOST and TOO_SLOW in str(over["message"]):
        over = await scheduled(at, words)
    assert over["code"] == 0, over["message"]
    assert await images(at, "a") == [f"{SMB}/web.img"]
    await whole(at, "a")


async def test_a_vm_whose_disk_lies_on_an_smb_share_moves(at: Person) -> None:
    await at.done("move", "web", "--to", "b", "--survey", "none", "--method", "tcp")
    assert await at.places("web") == ["b"]
    await whole(at, "b")


async def test_a_disk_moves_back_from_the_share_to_a_local_one(at: Person) -> None:
    await at.done("move", "web", "--storage", f"{LOCAL}/", "--remove-source")
    assert await images(at, "b") == [f"{LOCAL}/web.img"]
    await whole(at, "b")


async def test_a_disk_moves_to_an_nfs_share_and_its_vm_with_it(at: Person) -> None:
    await at.done("move", "web", "--storage", f"{NFS}/", "--remove-source")
    assert await images(at, "b") == [f"{NFS}/web.img"]
    await at.done("move", "web", "--to", "a", "--survey", "none", "--method", "tcp")
    assert await at.places("web") == ["a"]
    await whole(at, "a")


async def scheduled(at: Person, words: Sequence[str]) -> dict[str, object]:
    """Plan a command for the next second, run the scheduler until it is over; return its turn."""
    await at.done("schedule", "add", "--at", "in 1 s", *words)
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "whimbrel", "scheduler", "--json"],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=at.environment,
    )
    at.running.append(process)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        await process.stdout.readline()  # it has begun
        over: dict[str, object] = json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    await process.wait()
    return over


async def images(at: Person, host: str) -> list[str]:
    """Return where the VM's image lies, of all places where one could."""
    found = await at.hosts[host].run("find", LOCAL, SMB, NFS, "-name", "web.img")
    return found.split()


async def whole(at: Person, on: str) -> None:
    """Let the guest read its disk, and go on writing."""
    async with at.redline("web", on) as redline:
        found = await redline.verify_disk("/dev/vda")
        await redline.load_disk("/dev/vda", HOT, RATE)
    assert found.intact, found
    assert found.blocks_checked == BLOCKS
    assert found.written > 0

"""A move that is broken off, or whose whimbrel dies: the same with a shell there and without."""

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from far.hosts import SSHD
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirts
from libvirtd.person import Person, Remote, person, remote
from libvirtd.test_moves import persisted, remembered
from storage.guests import disk_vm, sparse
from whimbrel.errors import ExitCode
from whimbrel.model.inventory import Disk
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB, PAGE

pytestmark = pytest.mark.timeout(600)

VM = "writer"
LOAD = Load(fill=48 * MIB, hot=8 * MIB, dirty_rate=4e6)
WORDS = ("move", VM, "--to", "b", "--survey", "none")
MOVED = {ExitCode.DONE, ExitCode.GOAL_MISSED}

led = pytest.mark.parametrize("peer", [False, True], ids=["led-by-whimbrel", "led-by-libvirt"])


@pytest.fixture(
    params=[
        pytest.param(
            person, marks=pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd")
        ),
        remote,
    ],
    ids=["shell", "no-shell"],
)
async def at(
    request: pytest.FixtureRequest, libvirts: Libvirts, tmp_path: Path
) -> AsyncIterator[Person]:
    folder = libvirts.folder / tmp_path.name  # short: sockets lie in it
    folder.mkdir()
    async with request.param(libvirts, folder) as somebody:
        yield somebody


async def sending(hosts: Hosts, at: Person, *, peer: bool) -> Process:
    """Start a guest that libvirt remembers, and a slow move of it; returns amid the copy.

    It has a disk where a shell can prove that both hosts see the same.
    """
    at.write(peer=peer)
    shown = [] if isinstance(at, Remote) else [sparse(at.folder / "vda.img", 64 * MIB)]
    vm = replace(disk_vm([Disk("vda", each) for each in shown]), name=VM)
    await persisted(hosts.a, vm)
    async with at.redline(VM, "a") as guest:
        await guest.fill(LOAD)
        if shown:
            await guest.fill_disk("/dev/vda", 8 * MIB)
    moving = await at.started(*WORDS, "--limit", "8 Mbit/s")
    await at.until_step(VM, "sending")
    return moving


async def as_before(at: Person) -> None:
    """The guest runs at the source, whole, and is defined there and nowhere else."""
    assert await at.places(VM) == ["a"]
    assert (await remembered(at.host("a")), await remembered(at.host("b"))) == (VM, "")
    assert await at.intact(VM, "a") == LOAD.fill // PAGE
    if not isinstance(at, Remote):
        async with at.redline(VM, "a") as guest:
            assert (await guest.verify_disk("/dev/vda")).intact


@led
async def test_ctrl_c_leaves_the_guest_where_it_is(hosts: Hosts, at: Person, *, peer: bool) -> None:
    moving = await sending(hosts, at, peer=peer)
    moving.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(moving.communicate(), 60)
    assert moving.returncode == ExitCode.INTERRUPTED
    assert "runs on a" in errors.decode()
    await as_before(at)


@led
async def test_a_whimbrel_that_died_is_recovered(hosts: Hosts, at: Person, *, peer: bool) -> None:
    moving = await sending(hosts, at, peer=peer)
    moving.kill()
    await moving.communicate()
    said = await at.whimbrel("recover", VM)
    assert said.code == ExitCode.DONE, said.errors + said.output
    assert "runs on a" in said.output
    await as_before(at)
    said = await at.whimbrel("recover", VM)
    assert "Nothing to recover" in said.output
    said = await at.whimbrel(*WORDS)
    assert said.code in MOVED, said.errors

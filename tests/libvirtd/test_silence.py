"""Moves over a link that is cut for good."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from far.control import switch
from libvirtd.daemons import Libvirts, lacking, said, two_libvirts
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.lab.paced import Pacing, firmware
from whimbrel.model.inventory import Disk, MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Event, Observation, Phase, PhaseChange
from whimbrel.model.storage import Extent
from whimbrel.model.units import MIB, PAGE
from whimbrel.ports import Machine, Migration, Reception

FAST = 125e6
SLOW = Tuning(bandwidth_limit=1.0 * MIB)


@pytest.fixture
async def libvirts() -> AsyncIterator[Libvirts]:
    """Yield two libvirt hosts with a second link, over which moves go."""
    if reason := lacking():
        pytest.skip(reason)
    async with two_libvirts(FAST, count=2) as pair:
        yield pair


def guest(libvirts: Libvirts) -> Vm:
    """Return a VM whose memory takes long over a slow link."""
    filling = Pacing(first=MIB, pages=32 * MIB // PAGE, rate=1)
    return Vm("still", 64 * MIB, firmware=firmware(filling, libvirts.folder))


def disk(folder: Path, content: bytes) -> Disk:
    """Make an image of 64 MiB that begins with this."""
    folder.mkdir()
    image = folder / "vda.img"
    image.write_bytes(content)
    os.truncate(image, 64 * MIB)
    return Disk("vda", str(image))


async def cut_amid(libvirts: Libvirts, migration: Migration, phase: Phase) -> list[Event]:
    """Cut the link as soon as something travels in a phase; return all that was told."""
    host, events = libvirts.a.lab, list[Event]()
    async for event in migration.watch():
        events.append(event)
        first = sum(isinstance(each, Observation) for each in events) == 1
        if isinstance(event, Observation) and first:
            assert event.phase is phase
            switch(host, host.interfaces[1], "down")
    return events


@pytest.mark.timeout(300)
async def test_where_no_shell_leads_what_gets_on_no_more_is_called_off(libvirts: Libvirts) -> None:
    async with LibvirtHost("a", libvirts.a.uri) as a, LibvirtHost("b", libvirts.b.uri) as b:
        vm = guest(libvirts)
        machine = await a.start(vm)
        reception = await b.receive(vm, SLOW, MigrationAddress(libvirts.b.lab.addresses[1]))
        migration = await a.send(machine, SLOW, reception.address)
        events = await cut_amid(libvirts, migration, Phase.PRECOPY)
        assert isinstance(events[-1], PhaseChange)
        assert events[-1].phase is Phase.FAILED
        assert "nothing got through" in events[-1].reason
        await goes_on(libvirts, machine, reception)


@pytest.mark.timeout(300)
async def test_a_copy_of_a_disk_that_gets_on_no_more_is_given_up(libvirts: Libvirts) -> None:
    async with AsyncExitStack() as stack:
        a, b = [await stack.enter_async_context(each.opened()) for each in (libvirts.a, libvirts.b)]
        image = disk(libvirts.folder / "here", os.urandom(64 * MIB))
        vm = replace(guest(libvirts), disks=(image,))
        there = replace(vm, disks=(disk(libvirts.folder / "there", b""),))
        machine = await a.start(vm)
        machine.storage().carry(["vda"], Extent.WHOLE)
        reception = await b.receive(there, SLOW, MigrationAddress(libvirts.b.lab.addresses[1]))
        migration = await a.send(machine, SLOW, reception.address)
        events = await cut_amid(libvirts, migration, Phase.SETUP)
        assert isinstance(events[-1], PhaseChange)
        assert events[-1].phase is Phase.FAILED
        # Whichever comes first: TCP looks at its limit only now and then.
        ways = ("disk vda failed", "nothing got through")
        assert any(each in events[-1].reason for each in ways), events[-1].reason
        await goes_on(libvirts, machine, reception)


async def goes_on(libvirts: Libvirts, machine: Machine, reception: Reception) -> None:
    """Check that the guest runs where it was, and that its destination can be let go of."""
    assert await machine.running()
    await reception.machine.stop()
    listed = ["virsh", "--quiet", "--connect", libvirts.b.uri, "list", "--all", "--name"]
    assert (await said(listed)).strip() == ""
    await machine.stop()

"""What libvirt remembers of a VM is as before unless its move is complete."""

import os
import signal
from collections.abc import AsyncIterator

import pytest

from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirt, Libvirts, said
from libvirtd.test_moves import persisted, remembered, still, underway
from whimbrel.hypervisors.libvirt.domain_xml import described
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Cancel, Event, Observation, Phase, PhaseChange
from whimbrel.ports import Migration


@pytest.fixture(params=["led by whimbrel", "led by libvirt"])
async def pair(request: pytest.FixtureRequest, libvirts: Libvirts) -> AsyncIterator[Hosts]:
    """Return hosts, for moves that either of both leads."""
    peers = ["", ""]
    if request.param == "led by libvirt":
        peers = [libvirts.a.remote, libvirts.b.remote]
    async with libvirts.a.opened(peer=peers[0]) as a, libvirts.b.opened(peer=peers[1]) as b:
        try:
            yield Hosts(a, b)
        finally:
            for libvirt in (libvirts.a, libvirts.b):
                await libvirt.clear()


async def definition(libvirt: Libvirt) -> str:
    """Return what a libvirt would start; empty: it remembers nothing."""
    words = ["virsh", "--quiet", "--connect", libvirt.uri, "dumpxml", "--inactive", "still"]
    return await said(words) if "still" in await remembered(libvirt) else ""


async def known_to_both(libvirts: Libvirts, pair: Hosts) -> LibvirtMachine:
    """Start a VM at a that both remember: b with twice as many vCPUs, from an earlier time."""
    machine = await persisted(pair.a, still(libvirts))
    kept = await (await machine.domain()).kept_xml()
    older = kept.replace("<vcpu placement='static'>1</vcpu>", "<vcpu placement='static'>2</vcpu>")
    assert older != kept
    await (await pair.b.connection()).define(older)
    return machine


async def watched(migration: Migration, libvirts: Libvirts, how: str) -> Phase:
    """See a move through to its end, which is brought about at its first figures."""
    events: list[Event] = []
    async for event in migration.watch():
        first = isinstance(event, Observation) and not any(
            isinstance(each, Observation) for each in events
        )
        events.append(event)
        if first and how == "cancelled":
            await migration.apply(Cancel())
        elif first:
            os.kill(libvirts.b.pid("still"), signal.SIGKILL)
    last = events[-1]
    assert isinstance(last, PhaseChange)
    return last.phase


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_both_hosts_remember_what_they_did_before_a_move_that_does_not_complete(
    libvirts: Libvirts, pair: Hosts, how: str
) -> None:
    machine = await known_to_both(libvirts, pair)
    before = [await definition(each) for each in (libvirts.a, libvirts.b)]
    assert all(before)
    phase = await watched(await underway(pair, libvirts, machine), libvirts, how)
    assert phase is {"cancelled": Phase.CANCELLED, "failed": Phase.FAILED}[how]
    assert await machine.running()
    assert [await definition(each) for each in (libvirts.a, libvirts.b)] == before


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_destination_that_knew_nothing_knows_nothing_after_a_move_that_does_not_complete(
    libvirts: Libvirts, pair: Hosts, how: str
) -> None:
    machine = await persisted(pair.a, still(libvirts))
    before = await definition(libvirts.a)
    await watched(await underway(pair, libvirts, machine), libvirts, how)
    assert await machine.running()
    assert await definition(libvirts.a) == before
    assert await definition(libvirts.b) == ""


async def test_a_complete_move_takes_the_definition_along_and_replaces_an_older_one(
    libvirts: Libvirts, pair: Hosts
) -> None:
    machine = await known_to_both(libvirts, pair)
    address = MigrationAddress(libvirts.b.lab.addresses[0])
    reception = await pair.b.receive(machine.vm, Tuning(), address)
    migration = await pair.a.send(machine, Tuning(), reception.address)
    async for event in migration.watch():
        if isinstance(event, PhaseChange) and event.phase is Phase.COMPLETED:
            await reception.run()
    await machine.stop()
    assert await definition(libvirts.a) == ""
    there = await definition(libvirts.b)
    assert described(there).vcpus == 1
    assert described(there).uuid == machine.vm.uuid

"""Real moves through two real libvirtd; the guest itself verifies its memory."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirt, Libvirts, said
from storage.guests import disk_vm, redline
from unit.practice.fakes import Silent
from whimbrel.errors import Unsupported
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.libvirt.settings import Settings
from whimbrel.lab.paced import Pacing, firmware
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Method, Transport, Tuning, tuning_for
from whimbrel.model.method import Settings as Wanted
from whimbrel.model.migration import (
    Cancel,
    Event,
    Observation,
    Phase,
    PhaseChange,
    SetBandwidthLimit,
    Side,
)
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.scenario import Access, Load, Pattern
from whimbrel.model.units import MIB, PAGE
from whimbrel.ports import Machine, Migration
from whimbrel.practice.move import Request, move
from whimbrel.sites.onsite.checks import preflight_pins

BUSY = Load(
    fill=48 * MIB, hot=16 * MIB, dirty_rate=10 * MIB, access=Access.SKEWED, pattern=Pattern.MIXED
)
WAYS = (
    Method.TCP,
    Method.MULTICHANNEL,
    Method.COMPRESSED,
    Method.XBZRLE,
    Method.AUTO_CONVERGE,
    Method.POSTCOPY,
)
SLOW = Tuning(bandwidth_limit=1.0 * MIB)


async def moved(
    source: LibvirtHost, machine: Machine, destination: LibvirtHost, to: Libvirt, tuning: Tuning
) -> tuple[Outcome, Machine, Silent]:
    address = MigrationAddress(to.lab.addresses[0])
    watcher = Silent()
    done = await move(Request(source, machine, destination, address, tuning, timeout=60.0), watcher)
    assert done.machine is not None, done.outcome.reason
    return done.outcome, done.machine, watcher


async def test_a_busy_guest_goes_to_and_fro_by_every_way_and_keeps_every_page(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    places = [(hosts.a, libvirts.a), (hosts.b, libvirts.b)]
    machine: Machine = await hosts.a.start(disk_vm([]))
    async with redline(machine) as client:
        await client.fill(BUSY)
    for number, method in enumerate(WAYS):
        (here, _), (there, libvirt) = places[number % 2], places[(number + 1) % 2]
        tuning = tuning_for(method, Wanted(free_page_hints=False))
        if method is Method.POSTCOPY:  # which a pre-copy that converges would forestall
            tuning = replace(tuning, downtime_limit=0.001, bandwidth_limit=20.0 * MIB)
        outcome, machine, watcher = await moved(here, machine, there, libvirt, tuning)
        assert outcome.ending is Ending.COMPLETED, f"{method}: {outcome.reason}"
        assert outcome.passes, method
        assert outcome.downtime_reported is not None, method
        entered = [each.phase for each in watcher.events if isinstance(each, PhaseChange)]
        assert (Phase.POSTCOPY in entered) is (method is Method.POSTCOPY)
        async with redline(machine) as client:
            found = await client.verify()
        assert found.bad_pages == 0, method
        assert found.pages_checked == BUSY.fill // PAGE


def still(libvirts: Libvirts) -> Vm:
    """Return a VM that fills 8 MiB and then hardly writes."""
    filling = Pacing(first=MIB, pages=8 * MIB // PAGE, rate=1)
    return Vm("still", 64 * MIB, firmware=firmware(filling, libvirts.folder))


async def remembered(libvirt: Libvirt) -> str:
    """Return the names of the VMs that a libvirt remembers beyond their end."""
    words = [
        "virsh",
        "--quiet",
        "--connect",
        libvirt.uri,
        "list",
        "--all",
        "--persistent",
        "--name",
    ]
    return (await said(words)).strip()


async def persisted(host: LibvirtHost, vm: Vm) -> LibvirtMachine:
    machine = await host.start(vm)
    domain = await machine.domain()
    await domain.connection.define(await domain.kept_xml())
    return machine


async def test_a_definition_goes_along_with_its_vm(libvirts: Libvirts, hosts: Hosts) -> None:
    machine = await persisted(hosts.a, still(libvirts))
    outcome, _, _ = await moved(hosts.a, machine, hosts.b, libvirts.b, Tuning())
    assert outcome.ending is Ending.COMPLETED, outcome.reason
    assert await remembered(libvirts.a) == ""
    assert await remembered(libvirts.b) == "still"


async def test_a_vm_without_a_definition_gets_none(libvirts: Libvirts, hosts: Hosts) -> None:
    machine = await hosts.a.start(still(libvirts))
    outcome, _, _ = await moved(hosts.a, machine, hosts.b, libvirts.b, Tuning())
    assert outcome.ending is Ending.COMPLETED, outcome.reason
    assert await remembered(libvirts.b) == ""


async def underway(
    hosts: Hosts, libvirts: Libvirts, machine: Machine, tuning: Tuning = SLOW
) -> Migration:
    address = MigrationAddress(libvirts.b.lab.addresses[0])
    reception = await hosts.b.receive(machine.vm, tuning, address)
    return await hosts.a.send(machine, tuning, reception.address)


async def test_a_definition_stays_where_its_vm_stays(libvirts: Libvirts, hosts: Hosts) -> None:
    machine = await persisted(hosts.a, still(libvirts))
    migration = await underway(hosts, libvirts, machine)
    async for event in migration.watch():
        if isinstance(event, Observation):
            await migration.apply(Cancel())
    assert await machine.running()
    assert await remembered(libvirts.a) == "still"
    assert await remembered(libvirts.b) == ""


async def test_a_source_that_leads_by_itself_brings_the_guest_over(
    libvirts: Libvirts, led_by_libvirt: Hosts
) -> None:
    machine = await persisted(led_by_libvirt.a, still(libvirts))
    outcome, there, _ = await moved(
        led_by_libvirt.a, machine, led_by_libvirt.b, libvirts.b, Tuning(channels=2)
    )
    assert outcome.ending is Ending.COMPLETED, outcome.reason
    assert await there.running()
    assert not await machine.running()
    assert await remembered(libvirts.b) == "still"


UNCOPIED = Tuning(channels=2, zero_copy=True)


def may_pin(machine: LibvirtMachine) -> bool:
    """Tell whether the preflight would let the machine send its pages uncopied."""
    assert machine.pid is not None
    told = preflight_pins(machine.pid)
    enough = told["limit"] is None or told["limit"] >= machine.vm.memory
    return bool(enough or told["may_be_raised"])


async def test_pages_go_uncopied_as_long_as_qemu_may_pin_them(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    # So small that libvirt need not raise any limit, which root may not do everywhere.
    filling = Pacing(first=MIB, pages=4 * MIB // PAGE, rate=1)
    small = Vm("small", 8 * MIB, firmware=firmware(filling, libvirts.folder))
    machine = await hosts.a.start(small)
    assert may_pin(machine)
    migration = await underway(
        hosts, libvirts, machine, replace(UNCOPIED, bandwidth_limit=SLOW.bandwidth_limit)
    )
    ask = ["virsh", "--connect", libvirts.a.uri, "qemu-monitor-command", machine.vm.name]
    told = ""
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and not told:
            told = await said([*ask, '{"execute": "query-migrate-capabilities"}'])
            await migration.apply(SetBandwidthLimit(None))
    states = {each["capability"]: each["state"] for each in json.loads(told)["return"]}
    assert states["zero-copy-send"]
    assert isinstance(events[-1], PhaseChange)
    assert events[-1].phase is Phase.COMPLETED, events[-1].reason


async def test_libvirt_lets_qemu_pin_all_of_a_guest_or_says_that_it_may_not(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    machine = await hosts.a.start(still(libvirts))
    may = may_pin(machine)
    outcome, there, _ = await moved(hosts.a, machine, hosts.b, libvirts.b, UNCOPIED)
    if may:
        assert outcome.ending is Ending.COMPLETED, outcome.reason
        return
    assert "cannot limit locked memory" in outcome.reason
    assert outcome.runs_on is Side.SOURCE
    assert there is machine
    assert await machine.running()


async def test_rdma_needs_a_hard_limit_of_the_vms_memory(
    libvirts: Libvirts, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def with_a_device(_: LibvirtHost) -> Settings:
        return Settings(rdma=True)

    monkeypatch.setattr(LibvirtHost, "settings", with_a_device)
    machine = await hosts.a.start(still(libvirts))
    tuning = Tuning(transport=Transport.RDMA)
    address = MigrationAddress(libvirts.b.lab.addresses[0])
    reception = await hosts.b.receive(machine.vm, tuning, address)
    with pytest.raises(Unsupported, match="hard limit") as refused:
        await hosts.a.send(machine, tuning, reception.address)
    assert "<memtune>" in refused.value.hint
    assert await machine.running()


async def test_a_destination_whose_libvirt_dies_leaves_the_guest_at_the_source(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    machine = await persisted(hosts.a, still(libvirts))
    migration = await underway(hosts, libvirts, machine)
    events: list[Event] = []
    async for event in migration.watch():
        if isinstance(event, Observation) and not seen(events):
            await libvirts.b.kill()
        events.append(event)
    await libvirts.b.start()
    assert isinstance(events[-1], PhaseChange)
    assert events[-1].phase is Phase.FAILED
    assert await machine.running()
    assert await remembered(libvirts.a) == "still"


def seen(events: Sequence[Event]) -> bool:
    return any(isinstance(event, Observation) for event in events)


async def test_pages_are_the_same_read_past_qemu_and_through_libvirt(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    machine = await hosts.a.start(replace(still(libvirts), memory=64 * MIB))
    inspection = machine.inspection()
    async with LibvirtHost("far", libvirts.a.uri) as without_shell:
        found = await without_shell.seek("still")
        assert found is not None
        assert found.pid is None
        peeking = found.inspection()
        assert peeking.pages == inspection.pages
        pages = range(300, 308)
        before = await inspection.read(pages)
        peeked = await peeking.read(pages)
        after = await inspection.read(pages)
    assert peeked in {before, after}

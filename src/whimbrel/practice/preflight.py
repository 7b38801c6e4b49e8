"""The preflight: everything that could be known beforehand to end a move badly, looked at.

Nothing is changed on either host. Three things are done there for a moment, and undone: a
probe file is written beside each image at the source and removed at once; the destination
listens at the migration address for one connection of the source; and a QEMU without a
machine is started, asked and ended. Reservations are no part of it: see practice/claims.py.

    facts (preflight_collect) ──► rules (theory/checks) ──► checks, in the order of a move
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from whimbrel.model.check import Check, Result, failed, passed
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Transport, Tuning
from whimbrel.model.preflight import HostFacts, HypervisorFacts, MachineFacts, Unknown
from whimbrel.practice.preflight_collect import (
    DiskSight,
    Facts,
    PreflightSubject,
    ask_host,
    collect,
    known,
    weighs_rdma,
)
from whimbrel.theory.checks import copies, disks, hosts, machine, network, nics, rdma
from whimbrel.theory.checks.certificates import certificates

__all__ = ["PreflightSubject", "preflight"]


async def preflight(subject: PreflightSubject) -> tuple[Check, ...]:
    """Return every check, in the order in which a move would meet them.

    An unreachable destination is a failed check, and only what the source tells is checked
    beside it. Takes well under a second on a quiet network.

    Raises:
        HostError: The source cannot be asked.
    """
    there = subject.there
    source, destination, ports = await asyncio.gather(
        ask_host(subject.source, there),
        known(ask_host(subject.destination, there)),
        known(subject.destination_examiner.ports()),
    )
    subject = replace(subject, address=_within(subject.address, ports))
    if isinstance(destination, Unknown):
        return await _without_destination(subject, destination)
    facts = await collect(subject, source, destination)
    return (_control(destination), *_of_hosts(subject, facts), *_of_guest(subject, facts))


def _within(address: MigrationAddress, ports: tuple[int, int] | Unknown | None) -> MigrationAddress:
    """Return an address with the ports at which moves arrive there, unless some are named."""
    if address.port or address.ports or isinstance(ports, Unknown):
        return address
    return replace(address, ports=ports)


def _control(destination: HostFacts) -> Check:
    return passed(
        "control",
        f"{destination.name} answers in {destination.clock_error * 2000:.0f} ms.",
    )


async def _without_destination(subject: PreflightSubject, reason: Unknown) -> tuple[Check, ...]:
    name = subject.destination.name
    control = failed(
        "control",
        f"{name} cannot be asked: {reason.reason}",
        f"ssh USER@ADDRESS python3 --version   # as the uri of {name} in whimbrel.toml says",
    )
    facts = await known(subject.source_examiner.machine(subject.machine))
    if isinstance(facts, Unknown):
        return (control, _unknown("guest", facts))
    return (control, *_of_state(subject, facts))


def _unknown(name: str, fact: Unknown) -> Check:
    """Return a check that could not be made: what is not known to be safe is not begun."""
    return failed(
        name,
        f"This could not be looked at: {fact.reason}",
        "Mend what is named, then plan again.",
    )


def _of_hosts(subject: PreflightSubject, facts: Facts) -> Iterator[Check]:
    vm, source, destination = subject.there, facts.source, facts.destination
    yield hosts.different_hosts(source, destination)
    if isinstance(facts.trial, Unknown):
        yield _unknown("migration address", facts.trial)
    else:
        yield network.migration_address(facts.trial, subject.address, source.name, destination.name)
    yield from _of_export(subject, facts)
    yield hosts.clocks(source, destination)
    yield hosts.other_moves(vm, source, destination, subject.move)
    yield hosts.name_free(vm, destination)
    yield hosts.private_folder(destination, subject.destination.folder)
    yield hosts.boot_files(vm, source, destination)
    yield hosts.cores(vm, destination)
    yield from _of_memory(subject, facts)
    yield from _of_rdma(subject, facts)
    if subject.address.mptcp:
        yield hosts.mptcp(source, destination)
    if isinstance(facts.nics, Unknown):
        yield _unknown("several NICs", facts.nics)
    elif facts.nics is not None:
        names, needed = (source.name, destination.name), subject.tuning.multipath
        yield nics.several_nics(*facts.nics, subject.further, names, needed=needed)
    yield machine.accelerator(vm, facts.hypervisor, destination)


def _of_rdma(subject: PreflightSubject, facts: Facts) -> Iterator[Check]:
    """Judge RDMA where it is wanted; where it would only be weighed, nothing is forbidden."""
    source, destination = facts.source, facts.destination
    if not weighs_rdma(subject, source, destination):
        return
    wanted = subject.tuning.transport is Transport.RDMA
    tuning = subject.tuning if wanted else Tuning(transport=Transport.RDMA)
    check = rdma.rdma(subject.there, tuning, source, destination)
    if check.result is Result.PASS:
        check = _rdma_on_the_way(subject, facts) or check
    hinders = check.result is not Result.PASS and not wanted
    yield replace(check, result=Result.WARN) if hinders else check


def _rdma_on_the_way(subject: PreflightSubject, facts: Facts) -> Check | None:
    if isinstance(facts.rdma, Unknown):
        return _unknown(rdma.RDMA, facts.rdma)
    if facts.rdma is None:
        return None
    names = (facts.source.name, facts.destination.name)
    return rdma.rdma_on_the_way(*facts.rdma, names, subject.address.host)


def _of_export(subject: PreflightSubject, facts: Facts) -> Iterator[Check]:
    """Judge what else is connected, and by which certificates."""
    names = (facts.source.name, facts.destination.name)
    if isinstance(facts.export, Unknown):
        yield _unknown("disks' export", facts.export)
    elif facts.export is not None:
        yield network.migration_address(facts.export, subject.address, *names, name="disks' export")
    used = subject.address.credentials
    if isinstance(facts.certificates, Unknown):
        yield _unknown("certificates", facts.certificates)
    elif facts.certificates is not None and used is not None:
        for found, folder, name in zip(
            facts.certificates, (used.source, used.destination), names, strict=True
        ):
            yield certificates(found, folder, name)


def _of_memory(subject: PreflightSubject, facts: Facts) -> Iterator[Check]:
    vm, name = subject.there, facts.destination.name
    page = facts.machine.huge_page if isinstance(facts.machine, MachineFacts) else 0
    wanted = hosts.overhead(vm.memory) if page else hosts.memory_needed(vm.memory)
    if isinstance(facts.memory, Unknown):
        yield _unknown("memory", facts.memory)
    else:
        yield hosts.memory(vm, wanted, facts.memory, name)
    if isinstance(facts.huge_pages, Unknown):
        yield _unknown("huge pages", facts.huge_pages)
    else:
        yield hosts.huge_pages(vm, page, facts.huge_pages, name)


def _of_guest(subject: PreflightSubject, facts: Facts) -> Iterator[Check]:
    running = facts.machine
    if isinstance(running, Unknown):
        yield _unknown("guest", running)
    else:
        yield from _of_state(subject, running)
        if isinstance(facts.pins, Unknown):
            yield _unknown("zero-copy", facts.pins)
        elif facts.pins is not None:
            yield machine.zero_copy(subject.machine.vm, running, facts.pins, facts.source.name)
        if isinstance(facts.hypervisor, HypervisorFacts):
            yield from _compared(subject, facts, running, facts.hypervisor)
    yield from _of_nics(subject, facts)
    for name, sight in facts.disks.items():
        if isinstance(sight, Unknown):
            yield _unknown(f"disk {name}: same bytes", sight)
        else:
            yield from _of_disk(subject, facts, sight)
    yield from _of_room(facts)


def _of_state(subject: PreflightSubject, running: MachineFacts) -> Iterator[Check]:
    yield machine.run_state(subject.machine.vm, running)
    yield machine.not_blocked(running)
    yield machine.movable_devices(running)
    yield machine.as_built(running)
    yield machine.no_jobs(running)
    yield machine.no_bitmaps(running)


def _compared(
    subject: PreflightSubject, facts: Facts, running: MachineFacts, there: HypervisorFacts
) -> Iterator[Check]:
    vm, source, destination = subject.there, facts.source, facts.destination
    yield machine.hypervisor_version(running, there, source.name, destination.name)
    yield machine.machine_type(running, there, vm, destination.name)
    yield machine.cpu_features(running, there, destination.name)
    yield machine.cpu_as_is(vm, running, source, destination)
    yield machine.time_stamp_counter(vm, running, source, destination)
    yield machine.known_devices(running, there, destination.name)
    yield machine.free_page_hints(vm, running, there, destination.name)


def _of_nics(subject: PreflightSubject, facts: Facts) -> Iterator[Check]:
    here, there = facts.bridges_here, facts.bridges_there
    for nic in subject.there.nics:
        if isinstance(here, Unknown) or isinstance(there, Unknown):
            refusal = next(each for each in (here, there) if isinstance(each, Unknown))
            yield _unknown(f"NIC {nic.name}", refusal)
            continue
        name = nic.bridge or ""
        yield network.bridge(nic, here.get(name), there.get(name), facts.destination.name)


def _of_disk(subject: PreflightSubject, facts: Facts, sight: DiskSight) -> Iterator[Check]:
    disk, source, destination = sight.disk, facts.source.name, facts.destination.name
    for image in sight.shared:
        written = image.here.path == disk.chain[0] and not disk.read_only
        names, copied = (source, destination), sight.place is not None
        yield disks.same_bytes(disk, image, names, written=written, copied=copied)
    if sight.here is not None and sight.place is not None:
        yield disks.held_alone(disk, sight.here, subject.machine.pid, source)
        yield copies.no_snapshots(disk)
        yield copies.place_free(disk, sight.place, destination)
        return
    top = sight.shared[0]
    yield disks.cache_mode(disk, top)
    own = subject.machine.pid
    yield disks.held_once(disk, top, own, source, destination)
    yield disks.writable(disk, top.there, facts.destination.uid, destination)


def _of_room(facts: Facts) -> Iterator[Check]:
    wanted = [
        (replace(sight.disk, allocated=sight.data), sight.place)
        for sight in facts.disks.values()
        if isinstance(sight, DiskSight) and sight.place is not None
    ]
    if wanted:
        yield copies.room(wanted, facts.destination.name)

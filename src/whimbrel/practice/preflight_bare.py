"""The preflight where no shell leads to one of the hosts, or to both: what hypervisors tell.

Nothing is changed on either host. What only a shell could look at is not looked at, and stands
among the checks as a warning: the hypervisor itself refuses most of it when the move begins, with
the guest at the source.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from whimbrel.errors import HostError
from whimbrel.model.check import Check, failed, passed, warned
from whimbrel.model.inventory import Vm
from whimbrel.model.preflight import (
    DiskState,
    HostFacts,
    HypervisorFacts,
    MachineFacts,
    MemoryFacts,
    Unknown,
)
from whimbrel.model.wording import listed
from whimbrel.ports import Examiner, Machine, Teller
from whimbrel.practice.preflight_collect import known
from whimbrel.theory.checks import hosts, machine

SHELL = "Where SSH leads there, write its uri as libvirt+ssh://HOST/system."
"""What mends it that something could not be looked at."""


@dataclass(frozen=True)
class BareSubject:
    """The move that is to be checked.

    Attributes:
        machine: The VM, at the source.
        source: What the source's hypervisor tells of its host.
        destination: What the destination's does.
        source_examiner: What asks the source's hypervisor.
        destination_examiner: What asks the destination's.
        bare: Names of the hosts to which no shell leads, at least one.
    """

    machine: Machine
    source: Teller
    destination: Teller
    source_examiner: Examiner
    destination_examiner: Examiner
    bare: Sequence[str]

    @property
    def vm(self) -> Vm:
        """The VM, the same at both hosts."""
        return self.machine.vm


async def preflight_bare(subject: BareSubject) -> tuple[Check, ...]:
    """Return every check that can be made, and what cannot; see `preflight.preflight`.

    Raises:
        HostError: The source cannot be asked.
    """
    here, running = await asyncio.gather(
        subject.source.identity(), known(subject.source_examiner.machine(subject.machine))
    )
    state = _of_state(subject, running)
    try:
        there, facts = await asyncio.gather(
            subject.destination.identity(), subject.destination.facts()
        )
    except HostError as error:
        return (_unreachable(subject, error), *state)
    hypervisor = await known(subject.destination_examiner.hypervisor(subject.vm))
    name = subject.destination.name
    cores = HostFacts(name, there, "", "", cpus=facts.cores)
    memory = subject.vm.memory
    huge = not isinstance(running, Unknown) and running.huge_page
    needed = hosts.overhead(memory) if huge else hosts.memory_needed(memory)
    return (
        passed("control", f"The hypervisor on {name} answers."),
        _different(subject, here, there),
        hosts.cores(subject.vm, cores),
        hosts.memory(subject.vm, needed, MemoryFacts(facts.available_memory), name),
        machine.accelerator(subject.vm, hypervisor, cores),
        *state,
        *_compared(subject, running, hypervisor),
        *_unseen(subject, running),
    )


def _unreachable(subject: BareSubject, error: HostError) -> Check:
    name = subject.destination.name
    return failed("control", f"{name} cannot be asked: {error.what}", error.hint or SHELL)


def _different(subject: BareSubject, here: str, there: str) -> Check:
    name, names = "different hosts", (subject.source.name, subject.destination.name)
    if here and here == there:
        return failed(
            name,
            f"{names[0]} and {names[1]} are the same host ({here}).",
            f"Give {names[1]} another address in whimbrel.toml; of cloned hosts give each its own "
            "host_uuid in libvirtd.conf.",
        )
    return passed(name, f"{names[0]} and {names[1]} are two hosts.")


def _of_state(subject: BareSubject, running: MachineFacts | Unknown) -> Sequence[Check]:
    if isinstance(running, Unknown):
        return [
            failed(
                "guest",
                f"This could not be looked at: {running.reason}",
                "Mend what is named, then plan again.",
            )
        ]
    return [
        machine.run_state(subject.vm, running),
        machine.not_blocked(running),
        machine.movable_devices(running),
        machine.as_built(running),
        machine.no_jobs(running),
        machine.no_bitmaps(running),
    ]


def _compared(
    subject: BareSubject, running: MachineFacts | Unknown, there: HypervisorFacts | Unknown
) -> Iterator[Check]:
    if isinstance(running, Unknown) or isinstance(there, Unknown):
        return
    name = subject.destination.name
    yield machine.hypervisor_version(running, there, subject.source.name, name)
    yield machine.machine_type(running, there, subject.vm, name)
    yield machine.cpu_features(running, there, name)
    yield machine.known_devices(running, there, name)


def _unseen(subject: BareSubject, running: MachineFacts | Unknown) -> Iterator[Check]:
    """Yield what nobody looks at, so that nobody takes it for looked at."""
    names = (subject.source.name, subject.destination.name)
    page = 0 if isinstance(running, Unknown) else running.huge_page
    for disk in () if isinstance(running, Unknown) else running.disks:
        yield _disk(disk, *names)
    if page:
        yield warned(
            "huge pages",
            f"Whether {names[1]} has free huge pages for {subject.vm.name} is not looked at.",
            f"virsh freepages --all   # on {names[1]}",
        )
    yield warned(
        "without a shell",
        f"No shell leads to {listed(subject.bare)}, so nobody looks at the way between both "
        "migration addresses, bridges, clocks, or memory that other moves have reserved; and no "
        "mark keeps a second whimbrel away, but libvirt's own lock on the VM.",
        SHELL,
    )


def _disk(disk: DiskState, source: str, destination: str) -> Check:
    """Warn that libvirt alone decides: without proof it is never told that a disk is safe."""
    path = disk.chain[0] if disk.chain else disk.name
    return warned(
        f"disk {disk.name}: same bytes",
        f"Whether {source} and {destination} see the same bytes of {path} is not looked at. "
        "libvirt moves the VM only where the disk lies on a file system or device that it knows "
        "to be shared, and is not cached.",
        f"See whether {path} is the same on {destination}. {SHELL}",
    )

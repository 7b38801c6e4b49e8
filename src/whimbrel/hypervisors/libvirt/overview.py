"""What is on a host that libvirt runs, at one moment, for people."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from whimbrel.errors import HostError
from whimbrel.hypervisors.libvirt.domain_xml import described
from whimbrel.hypervisors.libvirt.states import State
from whimbrel.hypervisors.libvirt.translate import dotted
from whimbrel.model.inventory import Vm
from whimbrel.model.overview import HostSeen, VmSeen, VmState

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.connection import Connection, Domain
    from whimbrel.hypervisors.libvirt.host import LibvirtHost

_STATES = {
    State.RUNNING: VmState.RUNNING,
    State.RUNNING_IN_POSTCOPY: VmState.RUNNING,
    State.RUNNING_IN_LOST_POSTCOPY: VmState.RUNNING,
    State.PAUSED: VmState.PAUSED,
    State.HANDED_OVER: VmState.PAUSED,
    State.ARRIVING: VmState.WAITING,
    State.POSTCOPY: VmState.MOVED,
    State.LOST_POSTCOPY: VmState.MOVED,
    State.ENDING: VmState.SHUT_DOWN,
    State.OFF: VmState.SHUT_DOWN,
}

_BUSY = {State.ARRIVING, State.RUNNING_IN_POSTCOPY, State.RUNNING_IN_LOST_POSTCOPY}
"""States in which libvirt lets whoever asks for more wait."""


async def host_seen(host: LibvirtHost) -> HostSeen:
    """Return what a host has and which VMs are on it; addresses and uptimes libvirt does not tell.

    Raises:
        HostError: It cannot be reached.
    """
    connection = await host.connection()
    versions = await connection.versions()
    memory, free = await connection.memory()
    found = await asyncio.gather(
        *(_vm_seen(host.name, domain) for domain in await connection.domains())
    )
    return HostSeen(
        name=host.name,
        qemu=f"{dotted(versions.hypervisor)} (libvirt {dotted(versions.daemon)})",
        cores=await connection.cores(),
        memory=memory,
        free=free,
        kvm=await _has_kvm(connection),
        vms=tuple(each for each in found if each is not None),
    )


async def _has_kvm(connection: Connection) -> bool:
    return "<domain type='kvm'" in await connection.capabilities()


async def _vm_seen(host: str, domain: Domain) -> VmSeen | None:
    """Return one VM; None where it has gone meanwhile."""
    state = await domain.state()
    if state is State.GONE:
        return None
    vm, resident = Vm(domain.name, 0, 0), 0
    if state not in _BUSY:
        with suppress(HostError):  # it goes just now
            vm = described(await domain.found_xml())
            if state.lives:
                resident = 1024 * (await domain.memory_facts()).get("rss", 0)
    return VmSeen(
        name=domain.name,
        host=host,
        state=_STATES[state],
        memory=vm.memory,
        vcpus=vm.vcpus,
        disks=tuple(disk.path for disk in vm.disks),
        resident=resident,
    )

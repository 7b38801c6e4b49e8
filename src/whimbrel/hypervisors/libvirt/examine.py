"""What libvirt tells a preflight, behind the port `Examiner`: never by QEMU's monitor.

libvirt marks a VM as tainted whose monitor somebody else has used, so only its own calls serve:
the live XML, states, jobs and capabilities.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from whimbrel.errors import CommandRefused, ConfigError, Unsupported
from whimbrel.hypervisors.libvirt.disk_facts import targets
from whimbrel.hypervisors.libvirt.facts import Told, hypervisor_facts, machine_facts, parsed
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.libvirt.translate import dotted, under_way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whimbrel.hypervisors.libvirt.connection import Connection, Domain
    from whimbrel.hypervisors.libvirt.host import LibvirtHost
    from whimbrel.model.inventory import Vm
    from whimbrel.model.preflight import HypervisorFacts, MachineFacts
    from whimbrel.ports import Machine

_ACCELERATORS = {"kvm": "kvm", "tcg": "qemu"}


class LibvirtExaminer:
    """The port's `Examiner` for a host that libvirt runs."""

    def __init__(self, host: LibvirtHost) -> None:
        self._host = host

    async def machine(self, machine: Machine) -> MachineFacts:
        """See `ports.Examiner.machine`."""
        if not isinstance(machine, LibvirtMachine):
            raise ConfigError(f"VM {machine.vm.name} is not run by libvirt.")
        domain = await machine.domain()
        xml = await domain.found_xml()
        return machine_facts(xml, await _told(domain, targets(parsed(xml))))

    async def hypervisor(self, vm: Vm) -> HypervisorFacts:
        """See `ports.Examiner.hypervisor`."""
        connection = await self._host.connection()
        accelerator = _ACCELERATORS[vm.accelerator]
        versions, capabilities, emulator = await asyncio.gather(
            connection.versions(),
            connection.capabilities(),
            _emulator(connection, accelerator, vm.machine),
        )
        return hypervisor_facts(
            versions.hypervisor, dotted(versions.daemon), capabilities, emulator, accelerator
        )

    async def ports(self) -> tuple[int, int] | None:
        """See `ports.Examiner.ports`; without a shell nobody but libvirt knows them."""
        found = (await self._host.settings()).ports
        return found.start, found.stop - 1


async def _emulator(connection: Connection, accelerator: str, machine: str) -> str:
    """Return what QEMU can do as that machine, or as any where it does not know that one."""
    try:
        return await connection.emulator(accelerator, machine)
    except (CommandRefused, Unsupported):
        return await connection.emulator(accelerator)


async def _told(domain: Domain, disks: Sequence[str]) -> Told:
    versions, (state, reason), job = await asyncio.gather(
        domain.connection.versions(), domain.ask("state", 0), domain.job()
    )
    jobs = await asyncio.gather(*(_or(None, domain, "blockJobInfo", disk, 0) for disk in disks))
    sizes = await asyncio.gather(*(_or(None, domain, "blockInfo", disk, 0) for disk in disks))
    checkpoints = await _or((), domain, "listAllCheckpoints", 0)
    return Told(
        version=versions.hypervisor,
        libvirt=dotted(versions.daemon),
        state=int(state),
        reason=int(reason),
        job=job if under_way(job) else {},
        block_jobs={disk: each for disk, each in zip(disks, jobs, strict=True) if each},
        sizes={disk: (each[0], each[1]) for disk, each in zip(disks, sizes, strict=True) if each},
        snapshots=tuple(await _or((), domain, "snapshotListNames", 0)),
        checkpoints=tuple(each.getName() for each in checkpoints),
    )


async def _or(otherwise: Any, domain: Domain, question: str, *words: object) -> Any:
    """Return an answer, or what stands for one that this libvirt does not give."""
    with suppress(CommandRefused, Unsupported):
        return await domain.ask(question, *words)
    return otherwise

"""What a preflight looks at besides where libvirt runs both hosts, and what mends it with virsh."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from whimbrel.hypervisors.libvirt.compare import cpu_check
from whimbrel.hypervisors.libvirt.definitions import follow_guest
from whimbrel.hypervisors.libvirt.disk_checks import disk_checks
from whimbrel.model.check import Check, Result, failed, passed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from whimbrel.hypervisors.libvirt.host import LibvirtHost
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine

COMPARED = "CPU features"
"""The check for which libvirt has no list of features: `cpu_check` stands for it."""

_REMEDIES = {
    "guest": "virsh resume {vm}   # where it is paused; or see: virsh domstate --reason {vm}",
    "migration blockers": "virsh domjobinfo {vm}   # and: virsh snapshot-list {vm}",
    "devices": "virsh detach-device {vm} FILE --live   # and attach one at the destination",
    "block jobs": "virsh blockjob {vm} DISK --abort   # or wait for it; see: virsh domjobinfo {vm}",
}
"""By the check's name: what QMP does elsewhere, virsh does here."""

_DETACH = "virsh detach-disk {vm} {0} --live   # "
_BLOCKERS = {
    r"(\S+) shows the folder": _DETACH + "and put its files on an image or a share",
    r"(\S+) is an NVMe device": _DETACH + "after the guest has copied it to a disk that can move",
    r"(\S+) is the volume \S+ of the pool (\S+),": "virsh pool-start {1}; virsh pool-refresh {1}",
}
"""By what keeps a VM where it is, among other reasons."""

_OTHER_PORTS = "; or name other `ports`"
_WIDEN = "; or widen migration_port_min and migration_port_max in its qemu.conf"

_RIGHTS = ": rights"
_SAME = ": same bytes"
_PLACE = ": place"


async def own_checks(
    machine: LibvirtMachine, there: LibvirtHost, others: Iterable[Check] = ()
) -> tuple[Check, ...]:
    """Return what libvirt itself would refuse, and what becomes of the definition.

    Args:
        machine: The VM.
        there: Where it is to go.
        others: The preflight's own checks, which tell what disks are copied along.

    Raises:
        HostError: One of both hosts cannot be asked.
    """
    copied = frozenset(
        each.name.removeprefix("disk ").removesuffix(_PLACE)
        for each in others
        if each.name.endswith(_PLACE)
    )
    *checks, of_disks = await asyncio.gather(
        cpu_check(machine, there),
        _free(machine, there),
        _definition(machine, there),
        disk_checks(machine, there, copied),
    )
    return (*checks, *of_disks)


async def _free(machine: LibvirtMachine, there: LibvirtHost) -> Check:
    """Fail where libvirt has a VM of that name, or of that identity, in the way."""
    name, own = "name at libvirt", await machine.domain()
    connection = await there.connection()
    for domain in await connection.domains():
        same_name, same_id = domain.name == own.name, domain.id == own.id
        if (same_name or same_id) and (await domain.state()).lives:
            what = f"libvirt on {there.name} runs {domain.name} ({domain.id}) already."
            return failed(name, what, f"whimbrel recover {own.name}   # or end the other one")
        if same_name != same_id:
            return failed(
                name,
                f"libvirt on {there.name} has another {domain.name} defined ({domain.id}).",
                f"virsh undefine {domain.name}   # on {there.name}, or rename it: virsh domrename",
            )
    return passed(name, f"libvirt on {there.name} has no other VM of that name or UUID.")


async def _definition(machine: LibvirtMachine, there: LibvirtHost) -> Check:
    name, vm = "definition", machine.vm.name
    if await (await machine.domain()).persistent():
        return passed(
            name, f"{vm} is defined on {machine.host}; its definition goes along to {there.name}."
        )
    return passed(name, f"{vm} is transient, and stays so on {there.name}.")


def in_virsh(checks: Iterable[Check], vm: str) -> Iterator[Check]:
    """Yield the checks as they hold under libvirt: what mends them is done with virsh."""
    for check in checks:
        if check.name == COMPARED and check.result is Result.PASS:
            continue
        if check.result is not Result.PASS and check.name in _REMEDIES:
            yield replace(check, remedy=_remedy(check, vm))
        elif _OTHER_PORTS in check.remedy:
            yield replace(check, remedy=check.remedy.partition(_OTHER_PORTS)[0] + _WIDEN)
        elif check.name.endswith(_RIGHTS) and check.result is Result.FAIL:
            # QEMU runs as libvirt's own user there, to whom libvirt hands the image over.
            yield passed(check.name, "libvirt gives the image to its QEMU.")
        else:
            yield check


def _remedy(check: Check, vm: str) -> str:
    """Return what mends it by virsh: by the reason where that is known, else by the check."""
    for reason, remedy in _BLOCKERS.items():
        if told := re.search(reason, check.detail):
            return remedy.format(*told.groups(), vm=vm)
    return _REMEDIES[check.name].format(vm=vm)


def seen_by_both(checks: Iterable[Check]) -> bool:
    """Tell whether it is proved that both hosts see every disk that is not copied along."""
    proofs = [check for check in checks if check.name.endswith(_SAME)]
    return all(check.result is Result.PASS for check in proofs)


async def at_home(host: LibvirtHost, vm: str, *, defined: bool, there: LibvirtHost) -> list[Check]:
    """Look at both libvirts when a guest has arrived, and let its definition be where it is.

    Args:
        host: Where it was.
        vm: Its name.
        defined: Whether it was defined there.
        there: Where it is.
    """
    await follow_guest(vm, host, there)
    left = await (await host.connection()).domain(vm)
    arrived = await (await there.connection()).domain(vm)
    kept = arrived is not None and await arrived.persistent()
    lives = None if left is None else (await left.state()).lives
    return [
        _gone(host.name, vm, lives=lives),
        _kept(there.name, vm, kept=kept, defined=defined),
    ]


def _gone(host: str, vm: str, *, lives: bool | None) -> Check:
    """Return what is left at the source; `lives`: None where libvirt knows of no such VM."""
    name = "source"
    if lives is None:
        return passed(name, f"libvirt on {host} has no {vm} any more; its memory is free there.")
    if lives:
        return failed(name, f"libvirt on {host} still holds {vm}.", f"whimbrel recover {vm}")
    return failed(
        name, f"{vm} is still defined on {host}, and off.", f"virsh undefine {vm}   # on {host}"
    )


def _kept(host: str, vm: str, *, kept: bool, defined: bool) -> Check:
    name = "definition"
    if kept and not defined:
        return failed(name, f"{vm} was transient, and {host} remembers it.", f"virsh undefine {vm}")
    if defined and not kept:
        return failed(
            name,
            f"{vm} was defined, and {host} will forget it when it ends.",
            f"virsh dumpxml {vm} > {vm}.xml && virsh define {vm}.xml   # on {host}",
        )
    return passed(name, f"{vm} is {'defined on' if kept else 'transient on'} {host}, as before.")

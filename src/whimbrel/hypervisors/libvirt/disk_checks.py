"""What a preflight looks at of disks where libvirt runs both hosts: pools, and encryption.

A disk that is a volume is sought by libvirt in the destination's pool of the same name, when the
VM is built there. A pool that is not there, is not active or does not know the volume would end
the move late; one whose volume lies elsewhere would give the guest another disk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.hypervisors.libvirt.disk_places import Volume, volumes_of
from whimbrel.hypervisors.libvirt.disk_xml import disk_name, is_encrypted
from whimbrel.model.check import Check, failed, passed

if TYPE_CHECKING:
    from collections.abc import Collection

    from whimbrel.hypervisors.libvirt.disk_places import VolumeSeen
    from whimbrel.hypervisors.libvirt.host import LibvirtHost
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine


async def disk_checks(
    machine: LibvirtMachine, there: LibvirtHost, copied: Collection[str]
) -> list[Check]:
    """Return what is to be said of a VM's disks.

    Args:
        machine: The VM.
        there: Where it is to go.
        copied: Names of the disks that are copied along.

    Raises:
        HostError: One of both hosts cannot be asked.
    """
    domain = await machine.domain()
    root = Tree.fromstring(await domain.xml(movable=True))  # noqa: S314 - libvirt's own
    made = {disk_name(disk): disk for disk in root.findall("devices/disk")}
    checks = [encryption(name) for name in made if name in copied and is_encrypted(made[name])]
    volumes = {disk_name(disk): volume for disk, volume in volumes_of(root)}
    for name, volume in volumes.items():
        if name in copied:
            continue
        over = await there.connection()
        here, seen = await asyncio.gather(domain.connection.volume(volume), over.volume(volume))
        checks.append(pool(name, volume, (here, seen), (machine.host, there.name)))
    return checks


def encryption(disk: str) -> Check:
    """Return why an encrypted disk is not copied."""
    return failed(
        f"disk {disk}: encryption",
        f"{disk} is encrypted by QEMU (LUKS), and a copy of it would not be.",
        "Put it on storage that both hosts see, and leave out --storage for it.",
    )


def pool(
    disk: str,
    volume: Volume,
    seen: tuple[VolumeSeen | None, VolumeSeen | None],
    hosts: tuple[str, str],
) -> Check:
    """Judge the pools in which a disk lies that is not copied.

    Args:
        disk: Its name.
        volume: What it is in its pool.
        seen: What source and destination know of the volume.
        hosts: Their names.
    """
    name, of = f"disk {disk}: pool", volume.pool
    (here, there), (source, destination) = seen, hosts
    along = f"or move the disk along: --storage {disk}=FOLDER"
    if there is None:
        return failed(
            name,
            f"{destination} has no pool {of}, in which {disk} lies.",
            f"virsh pool-dumpxml {of} > {of}.xml   # on {source}; on {destination}: virsh "
            f"pool-define {of}.xml && virsh pool-start {of}; {along}",
        )
    if not there.active:
        return failed(
            name,
            f"The pool {of} on {destination}, in which {disk} lies, is not active.",
            f"virsh pool-start {of}   # on {destination}; {along}",
        )
    if not there.path:
        return failed(
            name,
            f"The pool {of} on {destination} knows no volume {volume.name}.",
            f"virsh pool-refresh {of}   # on {destination}, where it is there and was made "
            f"elsewhere; {along}",
        )
    if here is not None and here.path and here.path != there.path:
        return failed(
            name,
            f"{volume.name} of the pool {of} is {here.path} on {source}, on {destination} it is "
            f"{there.path}.",
            f"virsh pool-edit {of}   # on {destination}: the same target; {along}",
        )
    what = f"{volume.name} of the pool {of} ({there.kind})"
    return passed(name, f"{what} is {there.path} on {destination} too.")

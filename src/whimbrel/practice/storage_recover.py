"""What an interrupted move left of its disks: copies given up, images kept or removed.

To be called when it is settled where the VM runs, and the other side's machine has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from whimbrel.model.inventory import Disk
from whimbrel.model.storage import DiskFacts, Image
from whimbrel.ports import Machine, Site
from whimbrel.practice.images import settle_images


async def recover_storage(machine: Machine, here: Site, other: Site | None = None) -> list[str]:
    """Clean up after a move that was cut off, and return what was done, sentences for people.

    Args:
        machine: The VM, where it runs now.
        here: That host.
        other: The other host of the move, where no machine of the VM is any more; None where
            only disks were to move.

    Raises:
        HostError: A host cannot be asked; what was not done can be done again.
    """
    said = []
    storage = machine.storage()
    before = [disk.busy for disk in await storage.disks()]
    await storage.release()
    if any("whimbrel-" in busy for busy in before):
        said.append("Copies of disks that were on their way were given up.")
    facts = await storage.disks()
    if await _remember(machine, facts):
        said.append("It was noted where the disks lie now.")
    used = {image.path for disk in facts for image in disk.chain}
    for site, kept in ((here, used), (other, set[str]())):
        if site is not None:
            removed = await settle_images(site, machine.vm.name, kept)
            said += [f"{path} on {site.name}, made for the move, was removed." for path in removed]
    return said


async def _remember(machine: Machine, facts: Sequence[DiskFacts]) -> bool:
    """Record where disks lie that went elsewhere just before whimbrel was cut off."""
    found = {disk.name: disk.top for disk in facts}
    disks = tuple(_as_found(disk, found) for disk in machine.vm.disks)
    if disks == machine.vm.disks:
        return False
    await machine.record(replace(machine.vm, disks=disks))
    return True


def _as_found(disk: Disk, found: Mapping[str, Image]) -> Disk:
    top = found.get(disk.name)
    # What lies on a share is named in QEMU's way, which cannot be compared.
    if top is None or not (disk.path.startswith("/") and top.path.startswith("/")):
        return disk
    return replace(disk, path=top.path) if top.path != disk.path else disk

"""From libvirt's XML to the disks of a running VM: images, the chains below them, cache modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whimbrel.hypervisors.libvirt.disk_places import place_of, volumes_of
from whimbrel.hypervisors.libvirt.disk_xml import target_of
from whimbrel.model.preflight import DiskState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

    from whimbrel.model.inventory import Vm

_DIRECT = {"none", "directsync"}
_NO_FLUSH = "unsafe"
_REMOVABLE = {"cdrom", "floppy"}


def disk_states(
    root: Tree.Element,
    vm: Vm,
    sizes: Mapping[str, tuple[int, int]],
    checkpoints: Sequence[str],
) -> Iterator[DiskState]:
    """Yield each disk with an image in it.

    Args:
        root: The live XML of the VM.
        vm: The same as `described` tells it.
        sizes: By target: bytes that it has, and bytes that it takes.
        checkpoints: Names of the VM's checkpoints: each keeps a bitmap on what can be written.
    """
    for made, disk in zip(root.findall("devices/disk"), vm.disks, strict=True):
        chain = tuple(_chain(made))
        if not chain:
            continue  # an empty drive
        driver = made.find("driver")
        cache = "" if driver is None else driver.get("cache", "")
        read_only = disk.read_only or made.get("device") in _REMOVABLE
        size, allocated = sizes.get(target_of(made), (0, 0))
        yield DiskState(
            name=disk.name,
            chain=chain,
            format=disk.format,
            size=size,
            allocated=min(allocated, size) if size else allocated,
            read_only=read_only,
            direct=cache in _DIRECT,
            no_flush=cache == _NO_FLUSH,
            bitmaps=() if read_only else tuple(checkpoints),
        )


def targets(root: Tree.Element) -> list[str]:
    """Return the targets of the disks with an image in them: the words by which libvirt asks."""
    return [target_of(made) for made in root.findall("devices/disk") if any(_chain(made))]


def _chain(made: Tree.Element) -> Iterator[str]:
    """Yield where each image lies, the one that is written to first."""
    image: Tree.Element | None = made
    while image is not None:
        place = place_of(image)
        if not place:
            return
        yield place
        image = image.find("backingStore")


def unmovable(root: Tree.Element) -> Iterator[str]:
    """Yield why a disk keeps its VM where it is."""
    for made in root.findall("devices/disk"):
        name, source = target_of(made), made.find("source")
        if made.get("type") == "dir":
            folder = "" if source is None else source.get("dir", "")
            yield f"{name} shows the folder {folder} as a disk (vvfat), which QEMU moves to no host"
        elif made.get("type") == "nvme":
            yield f"{name} is an NVMe device of the host, which stays with it"
    for made, volume in volumes_of(root):
        yield (
            f"{target_of(made)} is the volume {volume.name} of the pool {volume.pool}, which "
            "libvirt does not find there"
        )

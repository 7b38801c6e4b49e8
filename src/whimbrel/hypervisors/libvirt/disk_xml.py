"""Disks in libvirt's XML: where they lie, what they rest on, and copies on their way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.libvirt.disk_places import place_of, put

if TYPE_CHECKING:
    from whimbrel.model.inventory import Disk


@dataclass(frozen=True)
class DiskSeen:
    """One disk in a VM's live XML.

    Attributes:
        name: Its name.
        target: libvirt's name of it (vda).
        chain: Path and format of each of its images, the one that is written to first.
        read_only: Whether the guest may not write to it.
        copy: Where a copy of it goes to; empty: none is made.
        in_step: Whether that copy is in step.
        encrypted: Whether QEMU encrypts its image (LUKS).
    """

    name: str
    target: str
    chain: tuple[tuple[str, str], ...]
    read_only: bool = False
    copy: str = ""
    in_step: bool = False
    encrypted: bool = False


def disks_seen(xml: str) -> tuple[DiskSeen, ...]:
    """Return the disks in a VM's live XML that hold an image."""
    root = Tree.fromstring(xml)  # noqa: S314 - from the libvirt that we trust
    found = (_looked_at(made) for made in root.findall("devices/disk"))
    return tuple(each for each in found if each.chain)


def copy_xml(disk: Disk, *, flat: bool) -> str:
    """Return the place of a copy as libvirt is told of it; `flat`: it rests on nothing."""
    made = Tree.Element("disk", device="disk")
    Tree.SubElement(made, "driver", name="qemu", type=disk.format)
    lay(made, disk)
    if flat:
        Tree.SubElement(made, "backingStore")
    return Tree.tostring(made, encoding="unicode")


def lay(made: Tree.Element, disk: Disk) -> None:
    """Let a disk lie where it is said to, on what its image itself says that it rests on.

    Raises:
        Unsupported: It cannot lie there, or is encrypted.
    """
    refuse_encrypted(disk.name, encrypted=is_encrypted(made))
    for tag in ("backingStore", "auth"):  # how its old server was to be asked
        for old in made.findall(tag):
            made.remove(old)
    put(made, disk.path)
    driver = made.find("driver")
    if driver is not None:
        driver.set("type", disk.format)


def let_go_of_zeros(made: Tree.Element) -> None:
    """Let a disk give back the space of what is zeroed or discarded, for as long as it runs."""
    driver = made.find("driver")
    if driver is not None:
        driver.set("discard", "unmap")


def disk_name(made: Tree.Element) -> str:
    """Return its name: one that somebody chose, else libvirt's, the same alive and defined."""
    alias = made.find("alias")
    name = "" if alias is None else alias.get("name", "")
    return name.removeprefix("ua-") if name.startswith("ua-") else target_of(made)


def is_encrypted(made: Tree.Element) -> bool:
    """Tell whether QEMU encrypts a disk's image."""
    return made.find("encryption") is not None or made.find("source/encryption") is not None


def refuse_encrypted(disk: str, *, encrypted: bool) -> None:
    """Raise `Unsupported` where a disk's copy would be less private than the disk."""
    if encrypted:
        raise Unsupported(
            f"Disk {disk} is encrypted by QEMU (LUKS), and a copy of it would not be.",
            "Let it lie on storage that both hosts see, and move the VM without it.",
        )


def target_of(made: Tree.Element) -> str:
    """Return libvirt's name of a disk (vda)."""
    target = made.find("target")
    return "" if target is None else target.get("dev", "")


def _looked_at(made: Tree.Element) -> DiskSeen:
    mirror = made.find("mirror")
    chain = []
    image: Tree.Element | None = made
    kind = _format(made, "driver")
    while image is not None and (path := place_of(image)):
        chain.append((path, kind))
        image = image.find("backingStore")
        kind = "raw" if image is None else _format(image, "format")
    return DiskSeen(
        disk_name(made),
        target_of(made),
        tuple(chain),
        read_only=made.find("readonly") is not None,
        copy="" if mirror is None else place_of(mirror) or "elsewhere",
        in_step=mirror is not None and mirror.get("ready") == "yes",
        encrypted=is_encrypted(made),
    )


def _format(made: Tree.Element, tag: str) -> str:
    found = made.find(tag)
    return "raw" if found is None else found.get("type", "raw")

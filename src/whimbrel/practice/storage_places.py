"""Where the disks of a VM go: what a person said, for each disk of the VM.

--storage /srv/vms                every disk into that folder, under its image's own name
--storage vda=/srv/fast/          one disk into a folder, the others as said without a name
--storage vda=/srv/vms/root.raw   one disk to just that place
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Disk, Vm
from whimbrel.model.storage import DiskFacts, Extent, Image


@dataclass(frozen=True)
class DiskCopy:
    """One disk that is to be copied.

    Attributes:
        facts: What it is now.
        place: What it will be.
        extent: How much of its chain is copied.
        base: What the copy rests on, for `Extent.TOP`; else None.
    """

    facts: DiskFacts
    place: Disk
    extent: Extent = Extent.WHOLE
    base: Image | None = None

    @property
    def data(self) -> int:
        """Bytes to be copied, as far as the images tell."""
        top = self.extent is Extent.TOP
        return min(self.facts.size, self.facts.top.allocated) if top else self.facts.allocated


def wished_places(words: Sequence[str], names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Read what a person said: the place for all disks (empty: none), and those by name.

    Raises:
        ConfigError: A disk is not the VM's, a place is no absolute path or address, or
            something is said twice.
    """
    general = ""
    named: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or name not in names:
            if equals and not name.startswith(("/", "nfs:", "iscsi:")):
                raise ConfigError(
                    f'The VM has no disk "{name}".', f"It has {', '.join(names) or 'none'}."
                )
            name, place = "", word
        if not place.startswith(("/", "nfs://", "iscsi://")):
            raise ConfigError(f'"{place}" is no place for a disk.', "Give an absolute path.")
        if name in named or (not name and general):
            raise ConfigError(f"The place for {name or 'all disks'} is given twice.")
        if name:
            named[name] = place
        else:
            general = place
    return general, named


def placed_copies(
    vm: Vm,
    facts: Sequence[DiskFacts],
    words: Sequence[str],
    extent: Extent = Extent.WHOLE,
    *,
    only_named: bool = False,
) -> tuple[DiskCopy, ...]:
    """Return what is to be copied to where.

    Disks that the guest may not write to are not copied: they must be at the destination, by
    the same path.

    Args:
        vm: The VM.
        facts: Its disks as they are.
        words: What a person said, each a place or DISK=place.
        extent: How much of each chain is copied; `TOP` copies a disk without a base whole.
        only_named: Whether disks without a place stay where they are, rather than being an error.

    Raises:
        ConfigError: What was said cannot be used.
    """
    general, named = wished_places(words, [disk.name for disk in vm.disks])
    known = {each.name: each for each in facts}
    copies = []
    for disk in vm.disks:
        wished = named.get(disk.name) or general
        if disk.read_only or disk.name not in known or (only_named and not wished):
            continue
        if not wished:
            raise ConfigError(
                f"Disk {disk.name} has no place at the destination.",
                f"Add --storage {disk.name}=PATH, or --storage FOLDER for all disks.",
            )
        place = replace(disk, path=_path(vm, disk, wished, general=disk.name not in named))
        copies.append(_copy(known[disk.name], place, extent))
    _check_apart(copies)
    return tuple(copies)


def moved_vm(vm: Vm, copies: Sequence[DiskCopy]) -> Vm:
    """Return the VM with its disks where the copies are."""
    places: Mapping[str, Disk] = {copy.place.name: copy.place for copy in copies}
    return replace(vm, disks=tuple(places.get(disk.name, disk) for disk in vm.disks))


def _copy(facts: DiskFacts, place: Disk, extent: Extent) -> DiskCopy:
    if extent is Extent.TOP and len(facts.chain) > 1 and place.format == "qcow2":
        return DiskCopy(facts, place, Extent.TOP, facts.chain[1])
    return DiskCopy(facts, place)


def _path(vm: Vm, disk: Disk, wished: str, *, general: bool) -> str:
    if wished.startswith("iscsi://") or not (general or wished.endswith("/")):
        return wished
    if general and wished.startswith("/dev/"):
        raise ConfigError(
            f"{wished} is a device, which holds one disk.", f"Say --storage {disk.name}={wished}."
        )
    return f"{wished.rstrip('/')}/{_file_name(vm, disk)}"


def _file_name(vm: Vm, disk: Disk) -> str:
    """Return the image's own name, where it is a file's and no other disk's as well."""
    own = PurePosixPath(disk.path).name
    names = [PurePosixPath(each.path).name for each in vm.disks]
    is_file = disk.path.startswith("/") and not disk.path.startswith("/dev/")
    return own if is_file and names.count(own) == 1 else f"{vm.name}-{disk.name}.{disk.format}"


def _check_apart(copies: Sequence[DiskCopy]) -> None:
    seen: set[str] = set()
    for copy in copies:
        if copy.place.path in seen:
            raise ConfigError(f"Two disks cannot both be {copy.place.path}.")
        seen.add(copy.place.path)

"""A VM's file: a small TOML that `whimbrel up` builds the VM from (docs/config.md).

What identifies a guest to others (its UUID, its NICs' addresses) follows from its name where it
is not written, so that the same file makes the same machine again.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from whimbrel.config.keys import NAME, PLAIN_NAME
from whimbrel.config.lines import Place
from whimbrel.config.reading import Source, key_text, read_file, read_keys
from whimbrel.config.vm_keys import DiskKeys, NicKeys, VmKeys
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Disk, Nic, Vm
from whimbrel.model.units import MIB, format_size

LEAST_MEMORY = 1 * MIB
MOST_VCPUS = 288
"""What QEMU's q35 runs without an IOMMU of its own."""

_PART = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,19}")
"""Names of disks and NICs: QEMU's ids begin with a letter, its node names end after 31."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "whimbrel.vm")
_ADDRESSES = ("nfs://", "iscsi://")


def load_vm(path: Path) -> Vm:
    """Read a VM's file; its accelerator may be "auto", which the host decides.

    Raises:
        ConfigError: It cannot be read or used; every mistake in it is told at once.
    """
    mapping, source = read_file(path)
    return vm_from(mapping, source, path.absolute().parent)


def vm_from(mapping: dict[str, object], source: Source, base: Path) -> Vm:
    """Make a VM of TOML's values; relative paths count from `base`."""
    keys = read_keys(VmKeys, mapping, source)
    name = keys.name if keys.name is not None else Path(source.name).stem
    vm = Vm(
        name=name,
        memory=keys.memory,
        vcpus=keys.vcpus,
        accelerator=keys.accelerator.value,
        kernel=_file(keys.kernel, base),
        initrd=_file(keys.initrd, base),
        append=keys.append,
        channels=tuple(keys.channels),
        free_page_hints=keys.free_page_hints,
        machine=keys.machine,
        cpu=keys.cpu,
        firmware=_file(keys.firmware, base),
        disks=tuple(_disk(each, number, base) for number, each in enumerate(keys.disks)),
        nics=tuple(_nic(each, number, name) for number, each in enumerate(keys.nics)),
        uuid=keys.uuid or uuid_for(name),
    )
    found = [f"{source.at(at)}: {key_text(at)}: {what}." for at, what in _problems(vm)]
    if found:
        raise ConfigError("\n".join(found))
    return vm


def uuid_for(name: str) -> str:
    """Return the UUID of a VM whose file names none: the same for the same name."""
    return str(uuid.uuid5(_NAMESPACE, name))


def mac_for(vm: str, nic: str) -> str:
    """Return the address of a NIC whose file names none: QEMU's 52:54:00, locally administered."""
    digest = hashlib.sha256(f"{vm}\0{nic}".encode()).digest()
    return ":".join(["52:54:00", *(f"{byte:02x}" for byte in digest[:3])])


def _file(path: str | None, base: Path) -> Path | None:
    return None if path is None else base / path


def _disk(keys: DiskKeys, number: int, base: Path) -> Disk:
    return Disk(
        name=f"disk{number}" if keys.name is None else keys.name,
        path=keys.path if keys.path.startswith(_ADDRESSES) else str(base / keys.path),
        format=keys.format,
        size=keys.size,
        cache=keys.cache,
        read_only=keys.read_only,
    )


def _nic(keys: NicKeys, number: int, vm: str) -> Nic:
    name = f"nic{number}" if keys.name is None else keys.name
    return Nic(name, keys.bridge, keys.mac or mac_for(vm, name), keys.model)


def _problems(vm: Vm) -> Iterator[tuple[Place, str]]:
    if not NAME.fullmatch(vm.name):
        yield ("name",), f'"{vm.name}" {PLAIN_NAME}'
    if vm.memory < LEAST_MEMORY:
        yield ("memory",), f"must be at least {format_size(LEAST_MEMORY)}"
    if vm.memory % MIB:
        yield ("memory",), "must be a whole number of MiB"
    if not 1 <= vm.vcpus <= MOST_VCPUS:
        yield ("vcpus",), f"must be 1 to {MOST_VCPUS}, not {vm.vcpus}"
    if vm.kernel is None:
        for key in ("initrd", "append"):
            if getattr(vm, key):
                yield (key,), "belongs to a kernel: set kernel as well"
    if len(set(vm.channels)) < len(vm.channels):
        yield ("channels",), "must name each channel once"
    yield from _disk_problems(vm.disks)
    yield from _nic_problems(vm.nics)


def _disk_problems(disks: tuple[Disk, ...]) -> Iterator[tuple[Place, str]]:
    for number, disk in enumerate(disks):
        before = disks[:number]
        yield from _name_problems("disks", number, disk.name, [each.name for each in before])
        if disk.path in [each.path for each in before]:
            yield ("disks", number, "path"), f"{disk.path} is another disk's path already"
        if disk.size is not None and (disk.size <= 0 or disk.size % 512):
            yield ("disks", number, "size"), "must be more than 0, and a multiple of 512 bytes"


def _nic_problems(nics: tuple[Nic, ...]) -> Iterator[tuple[Place, str]]:
    for number, nic in enumerate(nics):
        before = nics[:number]
        yield from _name_problems("nics", number, nic.name, [each.name for each in before])
        if nic.mac in [each.mac for each in before]:
            yield ("nics", number, "mac"), f"{nic.mac} is another NIC's address already"


def _name_problems(
    table: str, number: int, name: str, before: list[str]
) -> Iterator[tuple[Place, str]]:
    place = (table, number, "name")
    if not _PART.fullmatch(name):
        plain = "letters, digits, '-', '_' and '.', at most 20, beginning with a letter"
        yield place, f'"{name}" must be {plain}'
    if name in before:
        yield place, f'"{name}" is another\'s name already'

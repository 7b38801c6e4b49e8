"""What a QEMU that somebody started by hand says of itself, read as a `Vm`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whimbrel.errors import ProtocolError
from whimbrel.hypervisors.qemu.reproduce import named_devices, reproduce
from whimbrel.model.inventory import Disk, Vm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from whimbrel.hypervisors.qemu.machine import QemuMachine
    from whimbrel.hypervisors.qemu.monitor import Monitor

_NO_IDENTITY = "00000000-0000-0000-0000-000000000000"
_PLUGGED = "/machine/peripheral"


@dataclass(frozen=True)
class Adoption:
    """A VM that somebody started by hand.

    Attributes:
        machine: It, conducted from here; `machine.vm` builds the same elsewhere.
        reasons: What prevents that, in words for people; empty: it can be moved.
        socket: Its QMP socket on its host.
    """

    machine: QemuMachine
    reasons: tuple[str, ...]
    socket: str


@dataclass(frozen=True)
class Said:
    """What a QEMU answered.

    Attributes:
        name: What it calls its guest; empty: nothing.
        uuid: The guest's identity; empty: none.
        machine: The versioned machine type.
        memory: Bytes of the guest's memory, as it was built.
        vcpus: Number of them.
        kvm: Whether KVM runs it.
        plugged: Ids of the devices that are plugged now.
        blocks: query-block's answer.
        blocked: What QEMU itself has against a migration.
    """

    name: str
    uuid: str
    machine: str
    memory: int
    vcpus: int
    kvm: bool
    plugged: frozenset[str]
    blocks: Sequence[Mapping[str, Any]]
    blocked: tuple[str, ...]


async def asked(monitor: Monitor) -> Said:
    """Ask a QEMU what it is; nothing changes."""
    name = await monitor.execute("query-name")
    uuid = await monitor.execute("query-uuid")
    kind = await monitor.execute("qom-get", {"path": "/machine", "property": "type"})
    memory = await monitor.execute("query-memory-size-summary")
    plugged = await monitor.execute("qom-list", {"path": _PLUGGED})
    migration = await monitor.execute("query-migrate")
    try:
        return Said(
            name=name.get("name", ""),
            uuid="" if uuid["UUID"] == _NO_IDENTITY else uuid["UUID"],
            machine=kind.removesuffix("-machine"),
            memory=memory["base-memory"],
            vcpus=len(await monitor.execute("query-cpus-fast")),
            kvm=(await monitor.execute("query-kvm"))["enabled"],
            plugged=frozenset(
                each["name"] for each in plugged if each["type"].startswith("child<")
            ),
            blocks=await monitor.execute("query-block"),
            blocked=tuple(migration.get("blocked-reasons", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"QEMU's answer about itself cannot be read: {error}") from error


def described(words: Sequence[str], said: Said, other_name: str) -> tuple[Vm, tuple[str, ...]]:
    """Return a VM as it can be built again, and what prevents that.

    Args:
        words: The command line of its process.
        said: What its QEMU says.
        other_name: What to call it where its QEMU has no name for it.
    """
    again = reproduce(words, said.machine)
    vm = Vm(
        name=plain_name(said.name.partition(",")[0]) or other_name,
        memory=said.memory,
        vcpus=said.vcpus,
        accelerator="kvm" if said.kvm else "tcg",
        machine=said.machine,
        uuid=said.uuid,
        disks=tuple(_disks(said.blocks)),
        words=again.words,
    )
    return vm, (*again.reasons, *_changes(words, said), *said.blocked)


def plain_name(text: str) -> str:
    """Return a text as a plain word that can name a VM or a disk; empty where nothing is left."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")


def _changes(words: Sequence[str], said: Said) -> Iterator[str]:
    """Name what is otherwise now than the command line says."""
    named = named_devices(words)
    for device in sorted(said.plugged - named):
        yield f"its device {device} was plugged in after its start"
    for device in sorted(named - said.plugged):
        yield f"its device {device} was unplugged after its start"
    for block in said.blocks:
        path = str(block.get("inserted", {}).get("image", {}).get("filename", ""))
        if path.startswith("/") and not any(path in word for word in words):
            yield f"its disk {_called(block)} is {path} now, not what it was started with"


def _disks(blocks: Sequence[Mapping[str, Any]]) -> Iterator[Disk]:
    for block in blocks:
        medium = block.get("inserted")
        if medium:
            yield Disk(
                name=_called(block),
                path=str(medium["file"]),
                format=str(medium["drv"]),
                cache="none" if medium["cache"]["direct"] else "writeback",
                read_only=bool(medium["ro"]),
            )


def _called(block: Mapping[str, Any]) -> str:
    # qdev is the device's id, or its path in QEMU, which may end with the back end's own name.
    place = str(block.get("qdev", "")).removesuffix("/virtio-backend")
    return plain_name(str(block.get("device") or "") or place.rpartition("/")[2]) or "disk"

"""Hosts and VMs as they are seen at one moment, for people and for finding a VM by its name."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class VmState(StrEnum):
    """What a VM does, in the words that people are told."""

    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"  # a destination that waits for its guest
    MOVED = "moved"  # a source that gave its guest away
    SHUT_DOWN = "shut down"
    FAILED = "failed"
    ENDED = "ended"  # its process has gone, its folder is there
    UNKNOWN = "unknown"  # its QEMU does not answer


_STATES = {
    "running": VmState.RUNNING,
    "paused": VmState.PAUSED,
    "prelaunch": VmState.PAUSED,
    "suspended": VmState.PAUSED,
    "debug": VmState.PAUSED,
    "save-vm": VmState.PAUSED,
    "restore-vm": VmState.PAUSED,
    "finish-migrate": VmState.PAUSED,
    "inmigrate": VmState.WAITING,
    "postmigrate": VmState.MOVED,
    "shutdown": VmState.SHUT_DOWN,
    "internal-error": VmState.FAILED,
    "io-error": VmState.FAILED,
    "guest-panicked": VmState.FAILED,
    "watchdog": VmState.FAILED,
    "colo": VmState.UNKNOWN,
}
"""QEMU's RunState (qapi/run-state.json)."""

HOLDING = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.FAILED, VmState.UNKNOWN})
"""States in which a VM has its guest, or may have it."""


@dataclass(frozen=True)
class VmSeen:
    """One VM on one host.

    Attributes:
        name: The VM.
        host: Where it is.
        state: What it does.
        memory: Bytes of guest RAM.
        vcpus: Virtual CPUs.
        disks: Path or address of each.
        uptime: Seconds since QEMU was started here; None: not known.
        resident: Bytes of memory that its process holds.
        moving: Whether the mark of a move is there.
        place: Its folder on the host; None: nothing is written of it there.
        socket: Its QMP socket, where somebody else started it; None: whimbrel did.
        pid: Its process; None: not known.
        started: When that began, ticks after the host's boot; with the pid it names the process.
    """

    name: str
    host: str
    state: VmState
    memory: int = 0
    vcpus: int = 0
    disks: tuple[str, ...] = ()
    uptime: float | None = None
    resident: int = 0
    moving: bool = False
    place: str | None = None
    socket: str | None = None
    pid: int | None = None
    started: int | None = None

    @property
    def by_hand(self) -> bool:
        """Whether somebody else started it, and whimbrel only knows its QMP socket."""
        return self.socket is not None


@dataclass(frozen=True)
class HostSeen:
    """One host, and what is on it.

    Attributes:
        name: The host.
        unreachable: Why it cannot be asked, in sentences that name it; empty where it was asked.
        qemu: Version; None: QEMU is not installed there.
        cores: How many may be used.
        memory: Bytes in all.
        free: Bytes that can be had without swapping.
        kvm: Whether KVM's device can be opened.
        addresses: Its IP addresses but loopback's.
        vms: What is on it.
        moves: Names of VMs that have the mark of a move there.
    """

    name: str
    unreachable: str = ""
    qemu: str | None = None
    cores: int = 0
    memory: int = 0
    free: int = 0
    kvm: bool = False
    addresses: tuple[str, ...] = ()
    vms: tuple[VmSeen, ...] = ()
    moves: tuple[str, ...] = ()


def vm_seen(host: str, answer: Mapping[str, Any]) -> VmSeen:
    """Read one VM of the question `vms_overview`; what is missing there is not known."""
    record, place = answer["record"], answer["place"]
    vm = record.get("vm", {})
    [socket] = record.get("sockets", ())[:1] or [None]
    return VmSeen(
        name=str(vm.get("name") or (place or socket).rpartition("/")[2]),
        host=host,
        state=_state(answer),
        memory=int(vm.get("memory", 0)),
        vcpus=int(vm.get("vcpus", 0)),
        disks=tuple(str(disk["path"]) for disk in vm.get("disks", ())),
        uptime=answer["seconds"],
        resident=answer["resident"],
        moving=answer["moving"],
        place=place,
        socket=socket,
        pid=record.get("pid"),
        started=record.get("start"),
    )


def _state(answer: Mapping[str, Any]) -> VmState:
    if not answer["alive"]:
        return VmState.ENDED if answer["place"] else VmState.UNKNOWN
    return _STATES.get(answer["status"] or "", VmState.UNKNOWN)


def host_seen(name: str, facts: Mapping[str, Any], overview: Mapping[str, Any]) -> HostSeen:
    """Read the questions `facts` and `vms_overview`."""
    return HostSeen(
        name=name,
        qemu=facts["qemu"]["version"] if facts["qemu"] else None,
        cores=facts["cores"],
        memory=facts["memory"],
        free=facts["spare_memory"],
        kvm=facts["kvm"],
        addresses=tuple(
            address.partition("/")[0]
            for interface in facts["interfaces"].values()
            for address in interface["addresses"]
        ),
        vms=tuple(vm_seen(name, each) for each in overview["vms"]),
        moves=tuple(overview["moves"]),
    )

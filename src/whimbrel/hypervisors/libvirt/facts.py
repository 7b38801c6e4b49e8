"""From libvirt's XML and numbers to the facts on which a preflight's checks rest. Pure.

    live XML, Told ──────────────────────────► MachineFacts
    capabilities, domain capabilities ───────► HypervisorFacts

Where libvirt speaks of devices in words of its own, kinds are written as QEMU names them if they
keep a VM where it is, and else as "video virtio": the place in libvirt's XML, and its word.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.errors import ProtocolError
from whimbrel.hypervisors.libvirt.disk_facts import disk_states, unmovable
from whimbrel.hypervisors.libvirt.domain_xml import UNITS, described
from whimbrel.model.preflight import HypervisorFacts, MachineFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_CPU = "QEMU's default CPU"
"""What a VM has whose XML names no CPU."""

_STATES = {
    # virDomainState, and for paused ones virDomainPausedReason, in QEMU's words (RunState).
    1: "running",
    2: "running",
    7: "running",
    4: "shutdown",
    5: "shutdown",
    6: "guest-panicked",
}
_PAUSES = {
    2: "finish-migrate",
    3: "save-vm",
    5: "io-error",
    7: "shutdown",
    10: "guest-panicked",
    11: "inmigrate",
    12: "postmigrate",
    13: "postmigrate",
}
_PAUSED = 3

_OPERATIONS = {2: "save", 7: "snapshot", 8: "dump", 9: "backup", 10: "snapshot deletion"}
_MIGRATION_OUT = 5  # virDomainJobOperation
_BLOCK_JOBS = {1: "pull", 2: "copy", 3: "commit", 4: "active commit", 5: "backup"}

_HOSTDEVS = {"pci": "vfio-pci", "mdev": "vfio-pci", "usb": "usb-host", "scsi_host": "vhost-scsi"}
_GUARDED = {"sev": "sev-guest", "sev-snp": "sev-snp-guest", "tdx": "tdx-guest"}
IMMOVABLE = frozenset(
    {
        *_HOSTDEVS.values(),
        "usb-redir",
        "ivshmem-plain",
        "ivshmem-doorbell",
        "vhost-user-fs-pci",
        "virtio-9p-pci",
        "vhost-user-blk-pci",
        "vhost-vdpa-net",
    }
)
"""Kinds of devices that the checks refuse, by QEMU's names."""

_WORDS = {"disk": "bus", "graphics": "type", "video": "modelType", "rng": "model"}
"""Places in libvirt's XML, and what domain capabilities call the words that are known there."""

_JUDGED_ALONE = {"invtsc"}
"""Features that a check of their own looks at; a destination cannot be asked for all others."""

_HUGE = 2 << 20


@dataclass(frozen=True)
class Told:
    """What libvirt says of a running VM beside its XML.

    Attributes:
        version: Its hypervisor's, as libvirt counts: 10.0.2 is 10000002.
        libvirt: The daemon's, written with dots.
        state: virDomainState.
        reason: Why it is in that state, as libvirt counts.
        job: The job under way (virDomainGetJobStats).
        block_jobs: By a disk's target: what works on it (virDomainGetBlockJobInfo).
        sizes: By a disk's target: bytes it has, and bytes it takes.
        snapshots: Names of its snapshots.
        checkpoints: Names of its checkpoints, to which bitmaps of its disks belong.
    """

    version: int
    libvirt: str
    state: int = 1
    reason: int = 1
    job: Mapping[str, Any] = field(default_factory=dict)
    block_jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    snapshots: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()


def machine_facts(xml: str, told: Told) -> MachineFacts:
    """Return the facts of a running VM; `ProtocolError` where its XML cannot be read."""
    root = parsed(xml)
    cpu = root.find("cpu")
    return MachineFacts(
        version=numbers(told.version),
        package=f"libvirt {told.libvirt}",
        machine_type=_get(root.find("os/type"), "machine"),
        cpu_model=cpu_model(cpu),
        cpu_features=frozenset(_required(cpu)) & _JUDGED_ALONE,
        tsc_frequency=_tsc(root),
        state=_state(told),
        blocked=tuple(_blocked(root, told)),
        devices=dict(_devices(root)),
        objects=dict(_objects(root)),
        shared_memory=_shared(root),
        huge_page=_huge_page(root),
        tpm=tuple(each.get("type", "") for each in root.findall("devices/tpm/backend")),
        jobs=tuple(_jobs(told)),
        migration="active" if told.job.get("operation") == _MIGRATION_OUT else "",
        disks=tuple(disk_states(root, described(xml), told.sizes, told.checkpoints)),
        raises_limits=True,  # to all of the guest's memory (VIR_MIGRATE_ZEROCOPY)
    )


def hypervisor_facts(
    version: int, libvirt: str, capabilities: str, emulator: str, accelerator: str
) -> HypervisorFacts:
    """Return what a host's libvirt can build.

    libvirt names no CPU features beyond those of its models: they are compared as a whole
    (`compare.cpu_check`), and are not among the facts.

    Args:
        version: The hypervisor's, as libvirt counts.
        libvirt: The daemon's, written with dots.
        capabilities: What it says of the host, as its XML.
        emulator: What it says of QEMU under the accelerator, as its XML.
        accelerator: "kvm" or "qemu", as libvirt names it.
    """
    able = parsed(emulator)
    return HypervisorFacts(
        version=numbers(version),
        package=f"libvirt {libvirt}",
        machine_types=dict(_machine_types(parsed(capabilities), accelerator)),
        cpu_models=frozenset(_cpu_models(able)),
        cpu_features=frozenset(),
        devices=IMMOVABLE | frozenset(_known_kinds(able)),
        free_page_hints=False,
    )


def parsed(xml: str) -> Tree.Element:
    """Return the root of libvirt's XML; raises `ProtocolError`."""
    try:
        return Tree.fromstring(xml)  # noqa: S314 - from the libvirt that we trust
    except Tree.ParseError as error:
        raise ProtocolError(f"libvirt's XML cannot be read: {error}") from error


def numbers(version: int) -> tuple[int, int, int]:
    """Return a version as libvirt counts it in three numbers: 10000002 is (10, 0, 2)."""
    return version // 1000000, version // 1000 % 1000, version % 1000


def cpu_model(cpu: Tree.Element | None) -> str:
    """Return a CPU's model as QEMU names it."""
    if cpu is None:
        return DEFAULT_CPU
    whole = {"host-passthrough": "host", "maximum": "max"}.get(cpu.get("mode", ""))
    return whole or cpu.findtext("model") or DEFAULT_CPU


def _state(told: Told) -> str:
    if told.state == _PAUSED:
        return _PAUSES.get(told.reason, "paused")
    return _STATES.get(told.state, "paused")


def _required(cpu: Tree.Element | None) -> Iterator[str]:
    for feature in () if cpu is None else cpu.findall("feature"):
        if feature.get("policy") in {"require", "force"}:
            yield feature.get("name", "")


def _tsc(root: Tree.Element) -> int:
    for timer in root.findall("clock/timer"):
        if timer.get("name") == "tsc":
            return int(timer.get("frequency", "0"))
    return 0


def _blocked(root: Tree.Element, told: Told) -> Iterator[str]:
    if told.snapshots:
        yield f"it has snapshots ({', '.join(told.snapshots)}), which libvirt moves with no VM"
    for device in root.findall("devices/hostdev"):
        if device.get("type") == "scsi":
            yield f"{_alias(device)} is a SCSI device of the host"
    yield from unmovable(root)


def _devices(root: Tree.Element) -> Iterator[tuple[str, str]]:
    """Yield the name and kind of each device that may be in the way."""
    for device in root.findall("devices/*"):
        for kind in _kinds(device):
            yield _alias(device), kind


def _kinds(device: Tree.Element) -> Iterator[str]:
    match device.tag, device.get("type"):
        case "hostdev", kind if kind in _HOSTDEVS and device.get("mode") == "subsystem":
            yield _HOSTDEVS[str(kind)]
        case "interface", "hostdev" if device.find("teaming") is None:
            yield "vfio-pci"
        case "interface", "vdpa":
            yield "vhost-vdpa-net"
        case "redirdev", "tcp":  # one of SPICE's begins anew with its client
            yield "usb-redir"
        case "shmem", _:
            model = device.find("model")
            yield "ivshmem-doorbell" if model is None else model.get("type", "ivshmem-plain")
        case "filesystem", _:
            driver = device.find("driver")
            fs = driver is not None and driver.get("type") == "virtiofs"
            yield "vhost-user-fs-pci" if fs else "virtio-9p-pci"
        case "disk", "vhostuser":
            yield "vhost-user-blk-pci"
        case (("disk" | "graphics" | "video" | "rng"), _):
            if word := _word(device):
                yield f"{device.tag} {word}"


def _word(device: Tree.Element) -> str:
    """Return what libvirt's word is for the kind of a device."""
    if device.tag == "disk":
        return _get(device.find("target"), "bus")
    if device.tag == "video":
        return _get(device.find("model"), "type")
    return device.get("type" if device.tag == "graphics" else "model", "")


def _objects(root: Tree.Element) -> Iterator[tuple[str, str]]:
    for security in root.findall("launchSecurity"):
        kind = security.get("type", "")
        if kind in _GUARDED:
            yield "launchSecurity", _GUARDED[kind]


def _shared(root: Tree.Element) -> tuple[str, ...]:
    """Return what is shared with whom: memory that may be, and is with nobody, counts not."""
    if _get(root.find("memoryBacking/access"), "mode") != "shared":
        return ()
    strangers = [each for each in root.findall("devices/*") if _with_a_program(each)]
    return tuple(_alias(each) for each in strangers)


def _with_a_program(device: Tree.Element) -> bool:
    fs = device.tag == "filesystem" and _get(device.find("driver"), "type") == "virtiofs"
    return fs or (device.tag, device.get("type")) == ("disk", "vhostuser")


def _huge_page(root: Tree.Element) -> int:
    pages = root.find("memoryBacking/hugepages")
    if pages is None:
        return 0
    page = pages.find("page")
    if page is None:
        return _HUGE
    return int(page.get("size", "0")) * UNITS[page.get("unit", "KiB")]


def _jobs(told: Told) -> Iterator[str]:
    operation = told.job.get("operation")
    if operation in _OPERATIONS:
        yield _OPERATIONS[operation]
    for disk, job in told.block_jobs.items():
        yield f"{_BLOCK_JOBS.get(job.get('type', 0), 'job')} on {disk}"


def _machine_types(root: Tree.Element, accelerator: str) -> Iterator[tuple[str, int]]:
    for arch in root.findall("guest/arch"):
        if arch.get("name") != "x86_64":
            continue
        own = arch.findall(f"domain[@type='{accelerator}']/machine")
        for machine in (*arch.findall("machine"), *own):
            most = int(machine.get("maxCpus", "0"))
            yield machine.text or "", most
            if "canonical" in machine.attrib:
                yield machine.attrib["canonical"], most


def _cpu_models(able: Tree.Element) -> Iterator[str]:
    yield DEFAULT_CPU
    for mode in able.findall("cpu/mode[@supported='yes']"):
        whole = {"host-passthrough": "host", "maximum": "max"}.get(mode.get("name", ""))
        if whole:
            yield whole
        elif mode.get("name") == "custom":
            yield from (model.text or "" for model in mode.findall("model"))


def _known_kinds(able: Tree.Element) -> Iterator[str]:
    for place, name in _WORDS.items():
        for value in able.findall(f"devices/{place}/enum[@name='{name}']/value"):
            yield f"{place} {value.text}"


def _get(element: Tree.Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "")


def _alias(device: Tree.Element) -> str:
    return _get(device.find("alias"), "name").removeprefix("ua-") or device.tag

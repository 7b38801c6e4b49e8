"""The plain facts on which a preflight's checks rest, as hosts and hypervisors tell them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be had.

    Attributes:
        reason: Why, in the words of whoever was asked.
    """

    reason: str


@dataclass(frozen=True)
class BootFile:
    """A kernel, initial file system or firmware on one host: bytes, and SHA-256 in hex."""

    size: int
    digest: str


@dataclass(frozen=True)
class HostedVm:
    """A VM that has a folder on a host.

    Attributes:
        name: Its name.
        pid: The living process that holds it; None: it has gone.
    """

    name: str
    pid: int | None = None


@dataclass(frozen=True)
class MoveMark:
    """The mark of a move that is under way, or was never closed.

    Attributes:
        move: The move's identity.
        source: The host that the VM leaves.
        destination: The host that it goes to.
    """

    move: str
    source: str = ""
    destination: str = ""


@dataclass(frozen=True)
class HostFacts:
    """One host.

    Attributes:
        name: What people call it.
        boot_id: What its kernel was called at boot; the same for all containers on it.
        network: Its network namespace.
        folder: The private folder, told apart from others on the same kernel.
        folder_private: Whether nobody else may look into the folder, or it is still to be made.
        folder_writable: Whether VMs' files can be made there.
        machine_id: The installation; clones may share it.
        clock_ahead: Seconds by which its clock is ahead of whimbrel's.
        clock_error: Greatest error of that, half of what the question took.
        cpus: Cores it may use.
        cpu_model: Its CPU as the kernel calls it.
        clock_flags: What its CPU promises of its time stamp counter, as /proc/cpuinfo names it.
        huge_pages: Free huge pages by size in bytes.
        uid: The user that QEMU will run as.
        memlock: Bytes that it may pin; None: any.
        kvm: Whether /dev/kvm may be used.
        rdma: Its RDMA devices.
        mptcp: Whether MPTCP is on.
        mptcp_subflows: Subflows that MPTCP may add; None: not told.
        vms: The VMs whose folders lie here.
        marks: The marks of moves, by the VM's name.
        files: The boot files asked for, by path; None: cannot be read.
    """

    name: str
    boot_id: str
    network: str
    folder: str
    folder_private: bool = True
    folder_writable: bool = True
    machine_id: str = ""
    clock_ahead: float = 0.0
    clock_error: float = 0.0
    cpus: int = 1
    cpu_model: str = ""
    clock_flags: frozenset[str] = frozenset()
    huge_pages: Mapping[int, int] = field(default_factory=dict)
    uid: int = 0
    memlock: int | None = None
    kvm: bool = False
    rdma: tuple[str, ...] = ()
    mptcp: bool = False
    mptcp_subflows: int | None = None
    vms: tuple[HostedVm, ...] = ()
    marks: Mapping[str, MoveMark] = field(default_factory=dict)
    files: Mapping[str, BootFile | None] = field(default_factory=dict)


@dataclass(frozen=True)
class MptcpFacts:
    """How MPTCP is set on one host.

    Attributes:
        known: Whether the kernel has it, and could be asked.
        enabled: Whether it is on.
        subflows: How many may be added to a connection.
        accepted: How many addresses may be taken up that the other host announces.
        announced: Addresses that it announces, each with a port of its own.
    """

    known: bool
    enabled: bool = False
    subflows: int = 0
    accepted: int = 0
    announced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PinFacts:
    """What a VM's process may pin.

    Attributes:
        limit: Bytes; None: any.
        held: Whether it is held to that limit (it has no CAP_IPC_LOCK).
        may_be_raised: Whether root on its host may allow it more (CAP_SYS_RESOURCE).
    """

    limit: int | None
    held: bool = True
    may_be_raised: bool = True


@dataclass(frozen=True)
class RdmaFacts:
    """The RDMA devices of one host beside the NIC that a move goes by.

    Attributes:
        address: The host's own address on the way of the move.
        interface: The NIC that has it; empty: none that is known.
        nics: By the name of each device the NICs over whose addresses it is reached; none: the
            kernel does not say.
        active: The devices of which a port is active.
    """

    address: str
    interface: str
    nics: Mapping[str, frozenset[str]] = field(default_factory=dict)
    active: frozenset[str] = frozenset()


@dataclass(frozen=True)
class MemoryFacts:
    """Memory of the destination, in bytes.

    Attributes:
        free: What it can still give, of the pages that the guest needs.
        claimed: What of it other moves have reserved.
        claimants: The VMs for which they have.
    """

    free: int
    claimed: int = 0
    claimants: tuple[str, ...] = ()


@dataclass(frozen=True)
class BridgeFacts:
    """A network interface of a host.

    Attributes:
        driver: "bridge", "openvswitch", or another.
        up: Whether it is switched on.
        mtu: Bytes of its largest packet.
        networks: Its addresses' networks ("10.0.0.0/24").
        stations: Hardware addresses seen on it, its own included.
    """

    driver: str
    up: bool
    mtu: int
    networks: frozenset[str] = frozenset()
    stations: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TrialFacts:
    """A connection tried from the source to the migration address.

    Attributes:
        port: Where the destination listened; 0: it could not.
        listen_error: Why not, as errno calls it; empty: it could.
        connect_error: Why the source could not connect; empty: it could.
        heard: Whether the destination heard the source.
        seconds: How long connecting took.
    """

    port: int = 0
    listen_error: str = ""
    connect_error: str = ""
    heard: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class PlaceFacts:
    """What lies at a disk's path on one host.

    Attributes:
        path: The path that was asked about.
        kind: "file", "block", "missing", "unreadable", "other", or "address" for what QEMU
            opens by itself.
        real: The path with every link followed.
        folder_exists: Whether its folder is there.
        folder_writable: Whether a new file may be made there.
        free: Bytes free for new files there.
        volume: The file system, told apart from others of that host.
        file_system: "ext4", "nfs4" …
        shared: Whether that file system is one that hosts share.
        local_locks: Whether its locks keep nobody on another host away.
        size: Bytes of the file or device; of an address, virtual bytes.
        writable: Whether it may be written.
        identities: Names by which it is known: serials, or device and inode on this kernel.
        regions: Digests of some places; "" for all zeros.
        holders: Who has it open for writing: pid and command.
        words: Why it could not be read; empty: it could.
    """

    path: str
    kind: str
    real: str = ""
    folder_exists: bool = True
    folder_writable: bool = True
    free: int = 0
    volume: str = ""
    file_system: str = ""
    shared: bool = False
    local_locks: bool = False
    size: int = 0
    writable: bool = True
    identities: frozenset[str] = frozenset()
    regions: tuple[str, ...] = ()
    holders: tuple[tuple[int, str], ...] = ()
    words: str = ""


@dataclass(frozen=True)
class ImageSight:
    """One image as both hosts see it.

    Attributes:
        here: At the source.
        there: At the destination.
        probe: Whether a file written beside it at the source was seen at the destination;
            None: none could be written.
        equal: Whether all bytes of two images that are only read are the same, as hashes of
            them tell; None: they were not read whole.
    """

    here: PlaceFacts
    there: PlaceFacts
    probe: bool | None = None
    equal: bool | None = None


@dataclass(frozen=True)
class DiskState:
    """One disk of a running VM, as its hypervisor tells.

    Attributes:
        name: The disk's name in the VM.
        chain: Paths of its images, the one that is written to first.
        format: Of the first.
        size: Virtual bytes.
        allocated: Bytes that its images take.
        read_only: Whether the guest may not write to it.
        direct: Whether it goes past the host's page cache (cache.direct).
        no_flush: Whether flushes are left out (cache.no-flush).
        snapshots: Internal snapshots.
        bitmaps: Dirty bitmaps, as backups keep them.
    """

    name: str
    chain: tuple[str, ...]
    format: str = "raw"
    size: int = 0
    allocated: int = 0
    read_only: bool = False
    direct: bool = True
    no_flush: bool = False
    snapshots: tuple[str, ...] = ()
    bitmaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineFacts:
    """A running VM, as its hypervisor tells.

    Attributes:
        version: Of the hypervisor.
        package: Who built it.
        machine_type: With its version ("pc-q35-10.0").
        cpu_model: The CPU's model.
        cpu_features: The features that the guest really sees, by name.
        tsc_frequency: Hertz that the guest was promised; 0: none.
        state: "running", "paused", "io-error" …
        blocked: Why it cannot be moved, in the hypervisor's words.
        devices: Kinds of its devices, by their names.
        plugged: Devices that came since it was started, and no destination would have.
        unplugged: Kinds of devices that went, and a destination would have.
        objects: Kinds of the objects beside them (backends, filters), by their names.
        shared_memory: Memory backends that other processes share.
        huge_page: Bytes of the pages its memory lies in; 0: common ones.
        tpm: Its TPMs' kinds.
        jobs: What works on its disks, in words.
        migration: How the last migration stands; empty: there was none.
        disks: Its disks.
        free_page_hints: Whether its balloon offers free page hints.
        raises_limits: Whether what runs it lets it pin more for a move, where root may do that.
    """

    version: tuple[int, int, int]
    package: str
    machine_type: str
    cpu_model: str
    cpu_features: frozenset[str]
    tsc_frequency: int = 0
    state: str = "running"
    blocked: tuple[str, ...] = ()
    devices: Mapping[str, str] = field(default_factory=dict)
    plugged: tuple[str, ...] = ()
    unplugged: tuple[str, ...] = ()
    objects: Mapping[str, str] = field(default_factory=dict)
    shared_memory: tuple[str, ...] = ()
    huge_page: int = 0
    tpm: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    migration: str = ""
    disks: tuple[DiskState, ...] = ()
    free_page_hints: bool = False
    raises_limits: bool = False


@dataclass(frozen=True)
class HypervisorFacts:
    """What a destination's hypervisor can build, under the accelerator asked for.

    Attributes:
        version: Its version.
        package: Who built it.
        machine_types: Names that it knows, with the most vCPUs of each.
        cpu_models: CPU models that it knows.
        cpu_features: Every feature that it can show a guest.
        devices: Every kind of device that it has.
        free_page_hints: Whether its balloon can offer them.
    """

    version: tuple[int, int, int]
    package: str
    machine_types: Mapping[str, int]
    cpu_models: frozenset[str]
    cpu_features: frozenset[str]
    devices: frozenset[str]
    free_page_hints: bool = True

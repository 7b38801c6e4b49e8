"""What there is: hosts' abilities, the VM to be moved, and where a move connects."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Capability(StrEnum):
    """One thing a host can do for a move; probed from the real program, never guessed.

    The comments name what QEMU calls it (qapi/migration.json).
    """

    PASS_EVENTS = "pass-events"  # capability events
    RETURN_PATH = "return-path"  # capability return-path
    MULTICHANNEL = "multichannel"  # capability multifd
    ZLIB = "zlib"  # multifd-compression zlib
    ZSTD = "zstd"  # multifd-compression zstd
    QPL = "qpl"  # multifd-compression qpl (Intel's in-memory analytics accelerator), QEMU 9.1
    UADK = "uadk"  # multifd-compression uadk (accelerators of Kunpeng), QEMU 9.1
    QATZIP = "qatzip"  # multifd-compression qatzip (Intel's QuickAssist), QEMU 9.2
    XBZRLE = "xbzrle"  # capability xbzrle
    THROTTLING = "throttling"  # capability auto-converge
    POSTCOPY = "postcopy"  # capability postcopy-ram, and userfaultfd in the kernel
    POSTCOPY_PREEMPT = "postcopy-preempt"  # capability postcopy-preempt
    RDMA = "rdma"  # transport rdma: a device on the host
    RDMA_PIN_ALL = "rdma-pin-all"  # capability of that name, and such a device
    ZERO_COPY = "zero-copy"  # capability zero-copy-send, beside multifd, QEMU 7.1
    MPTCP = "mptcp"  # inet channels with mptcp, and the kernel's net.mptcp
    FREE_PAGE_HINTS = "free-page-hints"  # virtio-balloon-pci free-page-hint
    PREPARED_MEMORY = "prepared-memory"  # memory-backend-ram prealloc, prealloc-threads
    SWITCHOVER_BANDWIDTH = "switchover-bandwidth"  # parameter avail-switchover-bandwidth
    PAUSE_BEFORE_SWITCHOVER = "pause-before-switchover"  # capability of that name
    TLS_PSK = "tls-psk"  # object tls-creds-psk (GnuTLS built in)
    TLS_X509 = "tls-x509"  # object tls-creds-x509


@dataclass(frozen=True)
class Disk:
    """One disk of a VM.

    Attributes:
        name: Plain word, unique in the VM; becomes the block node's and the device's name.
        path: An absolute path, a block device, or an address that QEMU opens itself
            (nfs://, iscsi://), on the host that runs the VM.
        format: "raw" or "qcow2".
        size: Virtual bytes, to make the image where there is none; None: it must be there.
        cache: QEMU's cache mode: "none" and "directsync" are safe to move while shared.
        read_only: Whether the guest may not write to it.
    """

    name: str
    path: str
    format: str = "raw"
    size: int | None = None
    cache: str = "none"
    read_only: bool = False


@dataclass(frozen=True)
class Nic:
    """One network interface of a VM.

    Attributes:
        name: Plain word, unique in the VM.
        bridge: The host's bridge that it joins; None leaves it unplugged.
        mac: Its address; the same on every host.
        model: QEMU's device.
    """

    name: str
    bridge: str | None = None
    mac: str = ""
    model: str = "virtio-net-pci"


@dataclass(frozen=True)
class Vm:
    """A VM as both hosts must build it, so that its state fits.

    Attributes:
        name: Plain word, unique on a host.
        memory: Guest RAM in bytes.
        vcpus: Number of virtual CPUs.
        accelerator: "kvm" or "tcg".
        kernel: Linux kernel image to boot directly.
        initrd: Initial file system.
        append: The kernel's command line.
        channels: Names of virtio-serial ports; each becomes a private UNIX socket.
        free_page_hints: Whether the balloon offers free page hints (virtio 1.2, 5.5.6.7;
            a feature bit, hence fixed for the life of the guest).
        machine: QEMU's machine type; a versioned one (pc-q35-10.0) is the same everywhere.
        cpu: QEMU's CPU model with its features; None: "host" under KVM, QEMU's own under TCG.
        firmware: A firmware image (-bios); None: QEMU's own.
        disks: In the order in which they are plugged.
        nics: Likewise.
        uuid: The VM's identity, the same wherever it runs; empty: none.
        words: QEMU's command line of a VM that was started by hand, to be used as it is; in it
            "{folder}" stands for the folder of its sockets. The rest then only describes it.
    """

    name: str
    memory: int
    vcpus: int = 1
    accelerator: str = "tcg"
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    channels: tuple[str, ...] = ()
    free_page_hints: bool = False
    machine: str = "q35"
    cpu: str | None = None
    firmware: Path | None = None
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    uuid: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class MigrationLink:
    """One NIC of a host that migrations may use.

    Attributes:
        address: Its IP address, as other hosts reach it.
        rate: Bytes per second that it is known to carry; None: not known.
        trusted: Whether the network is private, so that traffic may go unencrypted.
    """

    address: str
    rate: float | None = None
    trusted: bool = False


@dataclass(frozen=True)
class Host:
    """A host as its owner describes it (whimbrel.toml).

    Attributes:
        name: What people call it.
        uri: "qemu:///local", or "qemu+ssh://user@host:port".
        folder: Where its VMs' sockets and state lie on it; private to the user.
        links: Migration addresses, the preferred first.
        bandwidth_limit: Bytes per second that moves from and to it may use together; None: all.
        cpu_budget: Cores that a move may keep busy on it; None: all.
        sockets: QMP sockets of VMs that were started by hand.
        identity: File of the SSH key to use; None: those of the user.
        known_hosts: File of SSH host keys to trust; None: the user's.
        peer: Where libvirt runs it: the URI under which other hosts' libvirt reaches it, so that
            the source's libvirt leads moves to it; None: whimbrel leads them.
        channel_folder: Likewise: where its VMs' channels have their sockets; None: libvirt's own.
        certificates: Folder on it with certificates of the user's own (see `X509`); None: a key
            is made for each move.
        certificate_name: The name that its certificate carries; empty: the migration address.
        ports: The first and the last TCP port on which it listens for moves; None: any.
    """

    name: str
    uri: str
    folder: str = "/run/whimbrel"
    links: tuple[MigrationLink, ...] = ()
    bandwidth_limit: float | None = None
    cpu_budget: float | None = None
    sockets: tuple[str, ...] = ()
    identity: Path | None = None
    known_hosts: Path | None = None
    peer: str | None = None
    channel_folder: str | None = None
    certificates: str | None = None
    certificate_name: str = ""
    ports: tuple[int, int] | None = None


SECRET = {"secret": True}
"""Metadata of a field that is never shown nor written down (`model.plain` leaves it out)."""


@dataclass(frozen=True)
class X509:
    """Credentials of the user's own, lying on both hosts; QEMU's names (docs/system/tls).

    Each folder holds ca-cert.pem; the destination's also server-cert.pem and server-key.pem,
    the source's client-cert.pem and client-key.pem. Nobody without a certificate of that
    authority can connect.

    Attributes:
        source: Folder on the source.
        destination: Folder on the destination.
        hostname: What the destination's certificate must say; empty: the migration address.
    """

    source: str
    destination: str
    hostname: str = ""


@dataclass(frozen=True)
class MigrationAddress:
    """Where a destination listens for one guest, and what encrypts the way there.

    Attributes:
        host: IP address of the migration network, on the destination.
        port: TCP (or RDMA CM) port; 0 lets the destination choose.
        ports: The first and the last that it may choose; None: any.
        mptcp: Spread each connection over all NICs (RFC 8684).
        key: The move's pre-shared key, hexadecimal digits; empty: no such key.
        credentials: The user's certificates instead; None with an empty `key`: unencrypted.
    """

    host: str
    port: int = 0
    mptcp: bool = False
    ports: tuple[int, int] | None = None
    key: str = field(default="", repr=False, metadata=SECRET)
    credentials: X509 | None = None

    @property
    def encrypted(self) -> bool:
        """Whether what is sent there is encrypted."""
        return bool(self.key) or self.credentials is not None

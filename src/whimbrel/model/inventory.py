"""What there is: hosts' abilities, the VM to be moved, and where a move connects."""

from dataclasses import dataclass
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
    XBZRLE = "xbzrle"  # capability xbzrle
    THROTTLING = "throttling"  # capability auto-converge
    POSTCOPY = "postcopy"  # capability postcopy-ram, and userfaultfd in the kernel
    POSTCOPY_PREEMPT = "postcopy-preempt"  # capability postcopy-preempt
    RDMA = "rdma"  # transport rdma: a device on the host
    MPTCP = "mptcp"  # inet channels with mptcp, and the kernel's net.mptcp
    FREE_PAGE_HINTS = "free-page-hints"  # virtio-balloon-pci free-page-hint
    PREPARED_MEMORY = "prepared-memory"  # memory-backend-ram prealloc, prealloc-threads
    SWITCHOVER_BANDWIDTH = "switchover-bandwidth"  # parameter avail-switchover-bandwidth


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


@dataclass(frozen=True)
class MigrationAddress:
    """Where a destination listens for one guest.

    Attributes:
        host: IP address of the migration network, on the destination.
        port: TCP (or RDMA CM) port; 0 lets the destination choose.
        mptcp: Spread each connection over all NICs (RFC 8684).
    """

    host: str
    port: int = 0
    mptcp: bool = False

"""How a guest can be moved: methods by name, and the tuning each stands for, as data."""

from dataclasses import dataclass, replace
from enum import StrEnum

from whimbrel.model.inventory import Capability
from whimbrel.model.units import MIB
from whimbrel.model.wording import listed


class Method(StrEnum):
    """The ways to move memory that people compare."""

    QEMU_DEFAULT = "qemu-default"
    TCP = "tcp"
    MULTICHANNEL = "multichannel"
    MULTINIC = "multinic"
    ENCRYPTED = "encrypted"
    COMPRESSED = "compressed"
    XBZRLE = "xbzrle"
    AUTO_CONVERGE = "auto-converge"
    POSTCOPY = "postcopy"
    POSTCOPY_PREEMPT = "postcopy-preempt"
    RDMA = "rdma"
    AUTO = "auto"

    @property
    def description(self) -> str:
        """One line for help and reports."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    Method.QEMU_DEFAULT: "QEMU as it comes: one stream, capped at 128 MiB/s",
    Method.TCP: "one TCP stream, no cap",
    Method.MULTICHANNEL: "several TCP streams (multifd), no cap",
    Method.MULTINIC: "one stream over all NICs at once (MPTCP), no cap",
    Method.ENCRYPTED: "several TCP streams through TLS, by a key made for the move",
    Method.COMPRESSED: "several TCP streams, compressed with zstd or zlib",
    Method.XBZRLE: "one stream; rewritten pages travel as differences",
    Method.AUTO_CONVERGE: "one stream; the guest is throttled until it converges",
    Method.POSTCOPY: "one pre-copy pass, then the guest runs at the destination and pulls the rest",
    Method.POSTCOPY_PREEMPT: "post-copy with its own channel for urgent pages",
    Method.RDMA: "remote direct memory access, no copy through the kernel",
    Method.AUTO: "whimbrel surveys, predicts every method, takes the best and guards it",
}

CLASSIC = (
    Method.QEMU_DEFAULT,
    Method.TCP,
    Method.MULTICHANNEL,
    Method.ENCRYPTED,
    Method.COMPRESSED,
    Method.POSTCOPY,
    Method.RDMA,
    Method.AUTO,
)
"""What `whimbrel lab` compares unless told otherwise."""


def classic(nics: int) -> tuple[Method, ...]:
    """Return what `whimbrel lab` compares on hosts with so many NICs unless told otherwise."""
    if nics == 1:
        return CLASSIC
    place = CLASSIC.index(Method.MULTICHANNEL) + 1
    return (*CLASSIC[:place], Method.MULTINIC, *CLASSIC[place:])


class Transport(StrEnum):
    """What carries the stream."""

    TCP = "tcp"
    RDMA = "rdma"


class Codec(StrEnum):
    """What compresses pages within the channels (QEMU: multifd-compression).

    The last three are accelerators, which write what zlib writes (DEFLATE).
    """

    ZLIB = "zlib"
    ZSTD = "zstd"
    QPL = "qpl"
    UADK = "uadk"
    QATZIP = "qatzip"

    @property
    def capability(self) -> Capability:
        """The capability both hosts need for it."""
        return Capability(self.value)

    @property
    def highest(self) -> int:
        """The highest level that it can be set to; 1 is the lowest that compresses."""
        return _HIGHEST[self]


_HIGHEST = {Codec.ZLIB: 9, Codec.ZSTD: 20, Codec.QPL: 1, Codec.UADK: 1, Codec.QATZIP: 9}

ACCELERATORS = (Codec.QPL, Codec.UADK, Codec.QATZIP)
"""Codecs that a device beside the cores works out."""


@dataclass(frozen=True)
class Compression:
    """A codec at a level (1 to `Codec.highest`)."""

    codec: Codec
    level: int = 1


class StreamKind(StrEnum):
    """Kinds of stream whose pages take different ways through a host's cores."""

    PLAIN = "plain"
    CHANNELS = "channels"
    COMPRESSED = "compressed"
    ENCRYPTED = "encrypted"
    ENCRYPTED_CHANNELS = "encrypted-channels"
    RDMA = "rdma"


class Postcopy(StrEnum):
    """Whether, and how, the guest may continue at the destination before all memory is there."""

    NEVER = "never"
    IF_STALLED = "if-stalled"
    AFTER_FIRST_PASS = "after-first-pass"
    AFTER_FIRST_PASS_PREEMPT = "after-first-pass-preempt"


@dataclass(frozen=True)
class PreparedMemory:
    """Destination memory touched beforehand by so many threads, so that the move need not wait."""

    threads: int = 2


@dataclass(frozen=True)
class Tuning:
    """Every setting of one move. None means: as QEMU comes.

    Attributes:
        transport: TCP or RDMA.
        channels: Number of multifd channels; None for one plain stream.
        compression: Codec and level; needs channels.
        xbzrle_cache: Bytes of source memory for page differences; None for off.
        throttling: Slow the guest's vCPUs until it converges (auto-converge).
        postcopy: Whether the guest may move before its memory.
        bandwidth_limit: Bytes per second; None for no limit, unlike QEMU's own default.
        as_qemu_comes: Leave QEMU's bandwidth cap and every other default in force.
        downtime_limit: Seconds the guest may stand still at switchover.
        switchover_bandwidth: Bytes per second known to be there at switchover; None lets
            QEMU estimate (avail-switchover-bandwidth).
        prepared_memory: Prepare the destination's memory first; None takes it as it comes.
        free_page_hints: Do not send memory that the guest's kernel calls free.
        encrypted: Send it through TLS, with what the `MigrationAddress` brings for it.
        multipath: Spread each connection over all NICs that both hosts share (MPTCP, RFC 8684).
        pin_all: By RDMA, pin and register all memory before the first page, not piece by piece
            as pages are sent; zero pages are then sent like any other (migration/rdma.c).
        pause_before_switchover: Stand still before switchover until `Proceed`, so that what
            travels beside memory can be made whole.
        zero_copy: Hand pages to the NIC without copying them in the source's kernel
            (MSG_ZEROCOPY, tcp(7)); pages that are under way are pinned meanwhile.
    """

    transport: Transport = Transport.TCP
    channels: int | None = None
    compression: Compression | None = None
    xbzrle_cache: int | None = None
    throttling: bool = False
    postcopy: Postcopy = Postcopy.NEVER
    bandwidth_limit: float | None = None
    as_qemu_comes: bool = False
    downtime_limit: float = 0.3
    switchover_bandwidth: float | None = None
    prepared_memory: PreparedMemory | None = None
    free_page_hints: bool = False
    encrypted: bool = False
    pin_all: bool = False
    pause_before_switchover: bool = False
    multipath: bool = False
    zero_copy: bool = False

    @property
    def stream(self) -> StreamKind:
        """Which kind of stream it is."""
        if self.transport is Transport.RDMA:
            return StreamKind.RDMA
        if self.channels is None:
            return StreamKind.ENCRYPTED if self.encrypted else StreamKind.PLAIN
        if self.compression:  # the cipher has less to do, and the codec takes longer
            return StreamKind.COMPRESSED
        return StreamKind.ENCRYPTED_CHANNELS if self.encrypted else StreamKind.CHANNELS

    @property
    def needs(self) -> frozenset[Capability]:
        """The capabilities that both hosts must have for this tuning."""
        wanted = {
            Capability.PASS_EVENTS: True,
            Capability.RETURN_PATH: not self.as_qemu_comes,
            Capability.RDMA: self.transport is Transport.RDMA,
            Capability.RDMA_PIN_ALL: self.pin_all,
            Capability.ZERO_COPY: self.zero_copy,
            Capability.MULTICHANNEL: self.channels is not None,
            Capability.XBZRLE: self.xbzrle_cache is not None,
            Capability.THROTTLING: self.throttling,
            Capability.POSTCOPY: self.postcopy is not Postcopy.NEVER,
            Capability.POSTCOPY_PREEMPT: self.postcopy is Postcopy.AFTER_FIRST_PASS_PREEMPT,
            Capability.SWITCHOVER_BANDWIDTH: self.switchover_bandwidth is not None,
            Capability.PREPARED_MEMORY: self.prepared_memory is not None,
            Capability.FREE_PAGE_HINTS: self.free_page_hints,
            Capability.TLS_PSK: self.encrypted,
            Capability.MPTCP: self.multipath,
            Capability.PAUSE_BEFORE_SWITCHOVER: self.pause_before_switchover,
        }
        codec = {self.compression.codec.capability} if self.compression else set()
        return frozenset({capability for capability, needed in wanted.items() if needed} | codec)


def rdma_refusal(tuning: Tuning) -> tuple[str, str] | None:
    """Return why a tuning cannot be carried out by RDMA, and what to do instead; None: it can.

    QEMU refuses several channels, XBZRLE and, since 10.1, post-copy beside it, which was broken
    before (migration/options.c, migrate_rdma_caps_check); it compresses only channels, and has
    neither TLS nor MPTCP there.
    """
    if tuning.transport is not Transport.RDMA:
        return None
    beside = {
        ("several channels", Method.MULTICHANNEL): tuning.channels is not None,
        ("compression", Method.COMPRESSED): tuning.compression is not None,
        ("differences of pages (XBZRLE)", Method.XBZRLE): tuning.xbzrle_cache is not None,
        ("post-copy", Method.POSTCOPY): tuning.postcopy is not Postcopy.NEVER,
        ("several NICs (MPTCP)", Method.MULTINIC): tuning.multipath,
        ("encryption", Method.ENCRYPTED): tuning.encrypted,
    }
    wanted = [both for both, asked in beside.items() if asked]
    if not wanted:
        return None
    what, methods = listed(each for each, _ in wanted), (method for _, method in wanted)
    return (
        f"QEMU cannot move by RDMA together with {what}.",
        f"Leave out the one or the other; by TCP: --method {' or '.join(methods)}",
    )


def zero_copy_refusal(tuning: Tuning) -> tuple[str, str] | None:
    """Return why pages cannot be sent uncopied under a tuning, and what to do; None: they can.

    QEMU sends so only what its channels take as it lies in memory: neither compressed nor
    encrypted (migration/options.c, migrate_caps_check).
    """
    if not tuning.zero_copy:
        return None
    if tuning.channels is None:
        return (
            "QEMU sends pages without copying them by several channels only.",
            f"Leave --zero-copy out, or: --method {Method.MULTICHANNEL}",
        )
    beside = {
        "compression": tuning.compression is not None,
        "differences of pages (XBZRLE)": tuning.xbzrle_cache is not None,
        "encryption": tuning.encrypted,
    }
    wanted = [what for what, asked in beside.items() if asked]
    if not wanted:
        return None
    return (
        f"QEMU cannot send pages without copying them together with {listed(wanted)}.",
        "Leave out the one or the other.",
    )


@dataclass(frozen=True)
class Policy:
    """How far a guarded move may go when it does not converge; never exceeded.

    Attributes:
        downtime: Seconds; the greatest downtime limit that may be set on the way.
        postcopy: Whether the guest may move before its memory. A failure of either host or
            of the link then loses it (docs/devel/migration/postcopy.rst).
    """

    downtime: float = 1.0
    postcopy: bool = True


@dataclass(frozen=True)
class Settings:
    """What a person may set for all methods of a comparison at once.

    Attributes:
        channels: multifd channels for the methods that use them.
        compression: Codec and level for `compressed`.
        xbzrle_cache: Bytes for `xbzrle`.
        bandwidth_limit: Bytes per second, for every method but `qemu-default`.
        downtime_limit: Seconds.
        prepared_memory: Applied where it pays: not to post-copy, which throws prepared
            memory away, nor to `qemu-default`.
        free_page_hints: Applied to pre-copy methods but `qemu-default`.
        encrypted: Applied to every method; RDMA, which cannot, is thereby ruled out.
        pin_all: For `rdma`: all memory is pinned beforehand.
        zero_copy: For `multichannel`: pages are sent without copying them.
    """

    channels: int = 2
    compression: Compression = Compression(Codec.ZSTD, 1)
    xbzrle_cache: int = 256 * MIB
    bandwidth_limit: float | None = None
    downtime_limit: float = 0.3
    prepared_memory: PreparedMemory | None = PreparedMemory()
    free_page_hints: bool = True
    encrypted: bool = False
    pin_all: bool = False
    zero_copy: bool = False


def tuning_for(method: Method, settings: Settings) -> Tuning:
    """Return the tuning that `method` stands for under a person's settings.

    For `auto` it is the plain pre-copy that its choice begins from.
    """
    if method is Method.QEMU_DEFAULT:
        return Tuning(
            as_qemu_comes=True,
            downtime_limit=settings.downtime_limit,
            encrypted=settings.encrypted,
        )
    precopy = Tuning(
        bandwidth_limit=settings.bandwidth_limit,
        downtime_limit=settings.downtime_limit,
        prepared_memory=settings.prepared_memory,
        free_page_hints=settings.free_page_hints,
        encrypted=settings.encrypted,
    )
    hybrid = replace(precopy, prepared_memory=None, free_page_hints=False)
    several = replace(precopy, channels=settings.channels)
    return {
        Method.AUTO: precopy,
        Method.TCP: precopy,
        Method.MULTICHANNEL: replace(several, zero_copy=settings.zero_copy),
        Method.MULTINIC: replace(precopy, multipath=True),
        Method.ENCRYPTED: replace(several, encrypted=True),
        Method.COMPRESSED: replace(several, compression=settings.compression),
        Method.XBZRLE: replace(precopy, xbzrle_cache=settings.xbzrle_cache),
        Method.AUTO_CONVERGE: replace(precopy, throttling=True),
        Method.POSTCOPY: replace(hybrid, postcopy=Postcopy.AFTER_FIRST_PASS),
        Method.POSTCOPY_PREEMPT: replace(hybrid, postcopy=Postcopy.AFTER_FIRST_PASS_PREEMPT),
        Method.RDMA: replace(
            precopy, transport=Transport.RDMA, pin_all=settings.pin_all, prepared_memory=None
        ),
    }[method]

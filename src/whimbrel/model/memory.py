"""What a survey tells about a move: the guest's memory, the link, and the two hosts.

Every uncertainty is one standard deviation, relative unless the text says otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from whimbrel.model.method import Compression, StreamKind, Transport, Tuning
from whimbrel.model.units import PAGE

V = TypeVar("V")


@dataclass(frozen=True)
class PageClass:
    """Pages that are written alike.

    Attributes:
        pages: How many.
        rate: Writes per second to each one of them.
        cyclic: False: written independently and at random, so a window of t seconds touches
            a page with probability 1 - exp(-rate t). True: written one after the other, over
            and over, so that probability is min(1, rate t).
    """

    pages: float
    rate: float
    cyclic: bool = False

    def distinct(self, window: float) -> float:
        """Return how many of these pages a window of so many seconds touches."""
        written = self.rate * window
        return self.pages * (min(1.0, written) if self.cyclic else -math.expm1(-written))


@dataclass(frozen=True)
class DirtyCurve:
    """Distinct pages dirtied as a function of the window: a mixture of page classes.

    Attributes:
        classes: The classes; pages in none of them are never written.
        rate_error: Uncertainty of the rates (common to all classes).
        size_error: Uncertainty of the page counts (common to all classes).
        horizon: Longest window that was measured, seconds; beyond it the curve is extrapolated.
        unsteadiness: Spread of the dirty rate between windows of the survey beyond what
            sampling explains; part of `rate_error`. 0: steady.
    """

    classes: tuple[PageClass, ...] = ()
    rate_error: float = 0.0
    size_error: float = 0.0
    horizon: float = math.inf
    unsteadiness: float = 0.0

    def distinct(self, window: float) -> float:
        """Return W(window): distinct pages dirtied in a window of so many seconds."""
        return sum((each.distinct(window) for each in self.classes), 0.0)

    @property
    def working_set(self) -> float:
        """Pages that are ever written: W at infinity."""
        return sum((each.pages for each in self.classes if each.rate > 0), 0.0)

    @property
    def write_rate(self) -> float:
        """Pages written per second, each rewriting counted: the slope of W at 0."""
        return sum((each.pages * each.rate for each in self.classes), 0.0)


@dataclass(frozen=True)
class WireRatio:
    """Compressed bytes over raw bytes, as one stream per channel compresses them.

    Attributes:
        all: Over all non-zero memory; applies to the first pass.
        dirty: Over recently dirtied memory; applies from the second pass on.
        error: Relative standard error of `all`.
        dirty_error: Likewise of `dirty`; None: as that of `all`.
    """

    all: float
    dirty: float
    error: float = 0.0
    dirty_error: float | None = None

    @property
    def later_error(self) -> float:
        """Relative standard error from the second pass on."""
        return self.error if self.dirty_error is None else self.dirty_error


@dataclass(frozen=True)
class MemoryProfile:
    """What a guest's memory holds, and how it changes.

    Attributes:
        total: Bytes of guest memory.
        zero_share: Share of pages whose content is zero, 0 to 1.
        zero_error: Standard error of `zero_share` (absolute).
        untouched_share: Share of pages the source host never had to provide; part of
            `zero_share` (from /proc/PID/pagemap).
        free: Bytes that the guest's kernel calls free, zero or not.
        free_hintable: Those of them that are not zero.
        dirty: The dirty curve.
        busy_share: Share of a vCPU's time in which the writer can run, above 0 up to 1;
            throttling first eats the rest (docs/theory.md, "Throttling").
        ratios: Wire ratio per codec and level.
        delta_bytes: Mean bytes of a rewritten page as a difference (XBZRLE); None: unknown,
            taken as a whole page.
        extent: Address range in bytes that holds every non-zero page; None: spread evenly.
        content: Share of all non-zero pages that lies in each of so many equal parts of the
            address range, in order; empty: as `extent` says.
    """

    total: int
    zero_share: float = 0.0
    zero_error: float = 0.0
    untouched_share: float = 0.0
    free: int = 0
    free_hintable: int = 0
    dirty: DirtyCurve = DirtyCurve()
    busy_share: float = 1.0
    ratios: Mapping[Compression, WireRatio] = field(default_factory=dict)
    delta_bytes: float | None = None
    extent: tuple[int, int] | None = None
    content: tuple[float, ...] = ()

    @property
    def pages(self) -> int:
        """Number of pages."""
        return self.total // PAGE

    def ratio(self, compression: Compression | None) -> WireRatio:
        """Return the ratio for a codec and level.

        Where that level was not measured, the nearest level of the same codec stands in;
        where the codec was not measured at all, memory counts as incompressible.
        """
        if compression is None:
            return WireRatio(1.0, 1.0)
        return _nearest(self.ratios, compression, WireRatio(1.0, 1.0))


@dataclass(frozen=True)
class LinkProfile:
    """What the migration network carries, measured with both directions and all vCPUs busy.

    Attributes:
        goodput: Bytes per second of payload by number of TCP streams.
        latency: Seconds of round trip.
        error: Uncertainty of the goodput.
        in_flight: Bytes written and not yet received while the link is busy, by number of
            TCP streams; what waits so must drain within the downtime. Empty: none.
        rdma: Bytes per second by RDMA between devices of the hardware; None: there are none, and
            RDMA is emulated over what carries TCP.
        multipath: Likewise for streams that MPTCP spreads over all NICs; None: there is one
            NIC, or MPTCP joins none.
    """

    goodput: Mapping[int, float]
    latency: float = 0.0002
    error: float = 0.0
    in_flight: Mapping[int, float] = field(default_factory=dict)
    multipath: "LinkProfile | None" = None
    rdma: float | None = None

    def in_flight_for(self, streams: int) -> float:
        """Return what waits in the buffers of the measured stream count nearest to `streams`."""
        if not self.in_flight:
            return 0.0
        return self.in_flight[min(self.in_flight, key=lambda count: (abs(count - streams), count))]

    def goodput_for(self, streams: int) -> float:
        """Return the goodput of the measured stream count nearest to `streams`."""
        return self.goodput[min(self.goodput, key=lambda count: (abs(count - streams), count))]


@dataclass(frozen=True)
class CipherCost:
    """CPU that TLS takes at one end of a connection.

    Attributes:
        speed: Bytes per second and core; infinite where it was never measured.
        record_seconds: CPU seconds for each record besides, however short: framing it, and
            passing it on by itself.
    """

    speed: float = math.inf
    record_seconds: float = 0.0


@dataclass(frozen=True)
class HostProfile:
    """What moving memory costs on one host; calibrated from past moves where there are any.

    The defaults were measured on one nested KVM machine (docs/theory.md) or, where no
    measurement exists, are small enough not to matter beside a link of 10 Gbit/s.

    Attributes:
        spare_cores: Cores left for the move while the guest works.
        copy_seconds: CPU seconds to scan, copy and send one page.
        receive_seconds: CPU seconds to receive and place one page from a plain stream, which
            passes through a buffer.
        scatter_seconds: Likewise from a channel, which is read straight into the pages; None:
            as `receive_seconds`.
        zero_seconds: Seconds to find one page zero.
        untouched_seconds: Likewise for a page that was never provided; several microseconds
            where memory is file-backed and shared, since reading provides it.
        touch_seconds: Extra seconds for the first touch of a destination page.
        feed_seconds: Seconds of the main thread to hand one page to the channels.
        difference_seconds: Seconds to encode one page as a difference (XBZRLE).
        compress_speed: Raw bytes per second and core, by codec and level.
        restore_speed: Raw bytes per second and core that are restored from compressed ones.
        encrypting: What it costs to send through TLS.
        decrypting: What it costs to receive through TLS.
        pin_seconds: Seconds to pin one page for RDMA and tell the device of it; assumed, not
            measured.
        sync_seconds: Seconds per GiB of guest memory to synchronise the dirty bitmap.
        start_seconds: To start a hypervisor that waits for the guest, its memory apart.
        setup_seconds: From the request until memory begins to flow.
        stop_seconds: To stop the vCPUs.
        state_bytes: Bytes of device state with its description.
        load_seconds: Until the destination's guest runs and answers once its state has arrived.
        waking_pages: Missing pages that a busy guest asks for in post-copy, one after the
            other, before it answers from outside again: those of its run queue, timers and
            stacks, of the rings of its devices, and what its writer touches in between. Read
            off fourteen moves of eleven guests: 6 to 26, 11 in the middle.
        error: Uncertainty of all these seconds.
    """

    spare_cores: float = 2.0
    copy_seconds: float = 0.6e-6
    receive_seconds: float = 0.6e-6
    scatter_seconds: float | None = None
    zero_seconds: float = 0.18e-6
    untouched_seconds: float = 0.18e-6
    touch_seconds: float = 0.5e-6
    feed_seconds: float = 0.1e-6
    difference_seconds: float = 3e-6
    compress_speed: Mapping[Compression, float] = field(default_factory=dict)
    restore_speed: Mapping[Compression, float] = field(default_factory=dict)
    encrypting: CipherCost = CipherCost()
    decrypting: CipherCost = CipherCost()
    pin_seconds: float = 0.25e-6
    sync_seconds: float = 0.0003
    start_seconds: float = 0.05
    setup_seconds: float = 0.01
    stop_seconds: float = 0.001
    state_bytes: int = 77_000
    load_seconds: float = 0.005
    waking_pages: float = 12.0
    error: float = 0.0

    @property
    def scattering(self) -> float:
        """CPU seconds to receive and place one page from a channel."""
        return self.receive_seconds if self.scatter_seconds is None else self.scatter_seconds

    def compression_speed(self, compression: Compression) -> float:
        """Return raw bytes per second and core; infinite where it was never measured."""
        return _nearest(self.compress_speed, compression, math.inf)

    def restoring_speed(self, compression: Compression) -> float:
        """Return raw bytes per second and core at the other end; infinite likewise."""
        return _nearest(self.restore_speed, compression, math.inf)


@dataclass(frozen=True)
class Survey:
    """Everything measured before a move.

    Attributes:
        memory: The guest's memory.
        link: The migration network from source to destination.
        source: The host the guest leaves.
        destination: The host the guest goes to.
        shared_cores: Idle cores that both hosts draw on, where they are one machine (a lab);
            None where each has its own.
        pace: By what a page takes longer, where cores and not the link decide, than its parts
            did when each was timed alone; by kind of stream. Learnt from past moves, 1 where
            there were none.
    """

    memory: MemoryProfile
    link: LinkProfile
    source: HostProfile = HostProfile()
    destination: HostProfile = HostProfile()
    shared_cores: float | None = None
    pace: Mapping[StreamKind, float] = field(default_factory=dict)

    def along(self, tuning: Tuning) -> "Survey":
        """Return the survey whose link is the one that a tuning uses.

        That is one NIC, all of them, or the RDMA devices.
        """
        rdma, every = self.link.rdma, self.link.multipath
        if tuning.transport is Transport.RDMA and rdma is not None:
            return replace(self, link=replace(self.link, goodput={1: rdma}, in_flight={}))
        return replace(self, link=every) if tuning.multipath and every is not None else self


def _nearest(known: Mapping[Compression, V], wanted: Compression, otherwise: V) -> V:
    if wanted in known:
        return known[wanted]
    levels = [each for each in known if each.codec is wanted.codec]
    if not levels:
        return otherwise
    return known[min(levels, key=lambda each: abs(each.level - wanted.level))]

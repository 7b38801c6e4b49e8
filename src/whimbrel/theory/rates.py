"""What a page costs: seconds of the move, bytes on the wire, bytes as QEMU counts them.

Bytes per page are exact; seconds are those of the slowest stage, since source, link and
destination work at the same time (docs/theory.md, "Bytes per page", "What a page costs").
"""

from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.memory import CipherCost, HostProfile, Survey
from whimbrel.model.method import Compression, StreamKind, Transport, Tuning
from whimbrel.model.units import PAGE
from whimbrel.theory.arrays import Floats, Ints
from whimbrel.theory.draws import Draws
from whimbrel.theory.rules import QemuRules

PAGE_HEADER = 8
"""Bytes before each page of a plain stream (ram.c 523-543)."""

ZERO_PAGE = PAGE_HEADER + 1
"""Bytes of a zero page in a plain stream (ram.c 1230-1270)."""

PACKET = 1344
"""Bytes of a multifd packet's header, 320 + 8 * 128 (multifd.h 77, 85-106)."""

PACKET_PAGES = 128
"""Pages of a multifd packet."""

CHANNEL_HEADER = PACKET / PACKET_PAGES
"""Bytes of header per page in multifd: 10.5."""

ITERATION_FRAME = 18
"""Bytes around each ram_save_iterate: header 5, end 8, footer 5 (savevm.c 1004-1032)."""

DIFFERENCE_HEADER = PAGE_HEADER + 3
"""Bytes before the difference of a page, XBZRLE (ram.c 698-712)."""

RECORD = 29
"""Bytes that TLS 1.2 with AES-GCM adds to a record: header 5, nonce 8, tag 16 (RFC 5288)."""

LONGEST_RECORD = 16384
"""Bytes of payload that fit a TLS record."""

PLAIN_RECORDS = 2
"""Records of a page in a plain stream: QEMU hands TLS the header and the page one by one."""

CHANNEL_RECORDS = 1 + 1 / PACKET_PAGES
"""Likewise in multifd: each page, and each packet's header."""


CHUNK_PAGES = 256
"""Pages of a chunk that RDMA pins at once: 1 MiB (rdma.c, RDMA_REG_CHUNK_SHIFT)."""

COMPLETION = 10e-6
"""Seconds until a card says that a write is complete; of the order that cards have."""


@dataclass(frozen=True)
class PageCost:
    """What one page costs, each of shape (D,).

    Attributes:
        seconds: Time until the next page can follow.
        wire: Bytes on the wire.
        counted: Bytes as QEMU counts them.
    """

    seconds: Floats
    wire: Floats
    counted: Floats

    def only(self, which: Ints) -> "PageCost":
        """Return the draws with these indices."""
        return PageCost(self.seconds[which], self.wire[which], self.counted[which])


@dataclass(frozen=True)
class Costs:
    """What pages cost under one tuning and one bandwidth limit.

    Attributes:
        first: A page with content, in the first pass.
        later: Likewise from the second pass on; by RDMA, one that waits for a write before it.
        difference: A page found in the XBZRLE cache; by RDMA, one that waits for nothing.
        zero: A zero page.
        zero_cpu: Seconds of CPU at the source for a zero page, (D,).
        source_cpu: Seconds of CPU at the source for a page with content, (D,).
        destination_cpu: Seconds of CPU at the destination for it, (D,).
    """

    first: PageCost
    later: PageCost
    difference: PageCost
    zero: PageCost
    zero_cpu: Floats
    source_cpu: Floats
    destination_cpu: Floats

    def only(self, which: Ints) -> "Costs":
        """Return the draws with these indices."""
        return Costs(
            first=self.first.only(which),
            later=self.later.only(which),
            difference=self.difference.only(which),
            zero=self.zero.only(which),
            zero_cpu=self.zero_cpu[which],
            source_cpu=self.source_cpu[which],
            destination_cpu=self.destination_cpu[which],
        )


def costs(survey: Survey, tuning: Tuning, rules: QemuRules, draws: Draws) -> Costs:
    """Return what pages cost when no bandwidth limit is in force."""
    if tuning.transport is Transport.RDMA:
        return _by_rdma(survey, tuning, draws)
    if tuning.channels is None:
        return _plain(survey, tuning, draws)
    return _channels(survey, tuning, rules, draws, tuning.channels)


WINDOW = 0.1
"""Seconds over which QEMU counts bytes against a bandwidth limit (BUFFER_DELAY)."""


def limited(unlimited: Costs, limit: float | None) -> Costs:
    """Return the costs under a bandwidth limit in counted bytes per second (None: none)."""
    if limit is None:
        return unlimited

    def slow(cost: PageCost) -> PageCost:
        return replace(cost, seconds=np.maximum(cost.seconds, cost.counted / limit))

    return replace(
        unlimited,
        first=slow(unlimited.first),
        later=slow(unlimited.later),
        difference=slow(unlimited.difference),
        zero=slow(unlimited.zero),
    )


def blended(cost: PageCost, difference: PageCost, share: Floats) -> PageCost:
    """Return the mean cost where a share of the pages travels as differences, (D,)."""
    return PageCost(
        cost.seconds + share * (difference.seconds - cost.seconds),
        cost.wire + share * (difference.wire - cost.wire),
        cost.counted + share * (difference.counted - cost.counted),
    )


def _zero_scan(survey: Survey, draws: Draws) -> Floats:
    source = survey.source
    mean = draws.untouched * source.untouched_seconds + (1 - draws.untouched) * source.zero_seconds
    return mean * draws.source_cost


def _touch(survey: Survey, tuning: Tuning) -> float:
    return 0.0 if tuning.prepared_memory else survey.destination.touch_seconds


def _cost(goodput: Floats, wire: Floats | float, *stages: Floats, pace: float = 1.0) -> PageCost:
    size = np.broadcast_to(np.asarray(wire, dtype=np.float64), goodput.shape)
    seconds = size / goodput
    for stage in stages:
        seconds = np.maximum(seconds, stage * pace)
    return PageCost(seconds, size, size)


def _sealed(cost: PageCost, draws: Draws, tuning: Tuning, records: Floats | float) -> PageCost:
    """Return the cost of what travels in so many TLS records; QEMU counts what is in them."""
    if not tuning.encrypted:
        return cost
    wire = cost.wire + RECORD * records
    return replace(cost, wire=wire, seconds=np.maximum(cost.seconds, wire / draws.goodput))


def _cipher(
    cipher: CipherCost, tuning: Tuning, size: Floats | float, records: Floats | float
) -> Floats | float:
    """Return the CPU seconds that encryption takes at one end; 0 without."""
    if not tuning.encrypted:
        return 0.0
    return size / cipher.speed + records * cipher.record_seconds


def pinning(survey: Survey, tuning: Tuning) -> float:
    """Return the seconds that both ends pin all memory before the first page; 0: they do not."""
    return max(_pin(survey)) * survey.memory.pages if tuning.pin_all else 0.0


def _pin(survey: Survey) -> tuple[float, float]:
    """Return the seconds to pin a page at the source and, touched by it, at the destination."""
    here, there = survey.source, survey.destination
    return here.pin_seconds, there.pin_seconds + there.touch_seconds


def _by_rdma(survey: Survey, tuning: Tuning, draws: Draws) -> Costs:
    """Return what pages cost by RDMA (migration/rdma.c, qemu_rdma_write_one).

    Without pin-all a chunk is pinned when the first page of it is sent: the source asks for
    that on the same queue as its writes, so the link waits meanwhile. A chunk of zeros that is
    not pinned yet is told in one message; zero pages beside others are sent like any other.
    A second write into a chunk waits for the first to complete: `resent` says how many do.
    No probe speaks the verbs, so how much slower than TCP's goodput a device is (soft-RoCE sums
    each small packet up) is learnt from its moves.
    """
    hardware = survey.link.rdma is not None
    here, there = survey.source, survey.destination
    source = (
        np.full(draws.count, here.zero_seconds)
        if hardware
        else np.full(draws.count, here.copy_seconds)
    )
    source = source * draws.source_cost
    receive = (0.0 if hardware else there.receive_seconds) * draws.destination_cost
    again = COMPLETION if hardware else survey.link.latency
    asking = 0.0 if tuning.pin_all else survey.link.latency / CHUNK_PAGES + max(_pin(survey))
    page = _cost(draws.goodput, PAGE, source, receive)
    pace = survey.pace.get(StreamKind.RDMA, 1.0)
    page = replace(page, seconds=page.seconds * pace)
    first = replace(page, seconds=page.seconds + asking * draws.destination_cost * pace)
    alone = np.zeros(draws.count) if tuning.pin_all else np.full(draws.count, draws.untouched)
    scan = _zero_scan(survey, draws)
    told = PageCost(
        scan + survey.link.latency / CHUNK_PAGES, np.zeros(draws.count), np.zeros(draws.count)
    )
    return Costs(
        first=first,
        later=replace(page, seconds=page.seconds + again),
        difference=page,
        zero=blended(first, told, alone),
        zero_cpu=scan,
        source_cpu=source,
        destination_cpu=receive,
    )


def resent(costs_now: Costs, found: Floats, due: Floats, pages: int) -> PageCost:
    """Return the mean cost of a page in a later pass by RDMA (rdma.c, qemu_rdma_buffer_mergeable).

    Pages in a row within a chunk travel as one write; only a write into a chunk that the one
    before it went to as well waits for that. Dirty pages are taken as spread over all memory.
    What the first pass has left over lies in a row, is written chunk by chunk and waits for
    nothing, but its chunks are still to be pinned.

    Args:
        costs_now: What pages cost.
        found: Pages found dirty when the pass began, (D,).
        due: All pages to be sent in it, (D,).
        pages: Those of the guest.
    """
    share = np.clip(found / pages, 0.0, 1.0)
    writes = share * (1 + (CHUNK_PAGES - 1) * (1 - share))
    chunks = 1 - (1 - share) ** CHUNK_PAGES
    some = np.maximum(due, 1.0)
    waiting = np.clip((writes - chunks) * pages / CHUNK_PAGES / some, 0.0, 1.0)
    unsent = np.clip(1 - found / some, 0.0, 1.0)
    page, later, first = costs_now.difference, costs_now.later, costs_now.first
    longer = waiting * (later.seconds - page.seconds) + unsent * (first.seconds - page.seconds)
    return replace(page, seconds=page.seconds + longer)


def _plain(survey: Survey, tuning: Tuning, draws: Draws) -> Costs:
    whole = PAGE_HEADER + PAGE
    here, there = survey.source, survey.destination
    send = here.copy_seconds + _cipher(here.encrypting, tuning, whole, PLAIN_RECORDS)
    place = there.receive_seconds + _cipher(there.decrypting, tuning, whole, PLAIN_RECORDS)
    source = send * draws.source_cost
    receive = place * draws.destination_cost
    touched = receive + _touch(survey, tuning) * draws.destination_cost
    scan = _zero_scan(survey, draws)
    delta = survey.memory.delta_bytes if survey.memory.delta_bytes is not None else PAGE
    size = min(DIFFERENCE_HEADER + delta, whole)
    filled = size / LONGEST_RECORD  # short pieces are gathered before TLS sees them
    encode = here.difference_seconds + _cipher(here.encrypting, tuning, size, filled)
    pace = survey.pace.get(tuning.stream, 1.0)

    def page(placing: Floats) -> PageCost:
        both = _together(survey, source + placing)
        cost = _cost(draws.goodput, whole, source, placing, both, pace=pace)
        return _sealed(cost, draws, tuning, PLAIN_RECORDS)

    difference = _cost(draws.goodput, size, encode * draws.source_cost)
    zero = _cost(draws.goodput, ZERO_PAGE, scan)
    return Costs(
        first=page(touched),
        later=page(receive),
        difference=_sealed(difference, draws, tuning, filled),
        zero=_sealed(zero, draws, tuning, ZERO_PAGE / LONGEST_RECORD),
        zero_cpu=scan,
        source_cpu=source,
        destination_cpu=touched,
    )


def _channels(
    survey: Survey, tuning: Tuning, rules: QemuRules, draws: Draws, channels: int
) -> Costs:
    compress = _compressing(survey, tuning.compression) * draws.source_cost
    source = survey.source.copy_seconds * draws.source_cost + compress
    restore = _restoring(survey, tuning.compression)
    receive = (survey.destination.scattering + restore) * draws.destination_cost
    touch = _touch(survey, tuning) * draws.destination_cost
    here = min(channels, _idle(survey, survey.source))
    there = min(channels, _idle(survey, survey.destination))
    feed = survey.source.feed_seconds * draws.source_cost
    scan = _zero_scan(survey, draws)
    pace = survey.pace.get(tuning.stream, 1.0)

    def sending(ratio: Floats) -> Floats:
        return source + cipher(survey.source.encrypting, ratio) * draws.source_cost

    def placing(ratio: Floats) -> Floats:
        return receive + cipher(survey.destination.decrypting, ratio) * draws.destination_cost

    def cipher(end: CipherCost, ratio: Floats) -> Floats | float:
        return _cipher(end, tuning, ratio * PAGE + CHANNEL_HEADER, records(ratio))

    def records(ratio: Floats) -> Floats:
        # Compressed packets are one piece each, cut where a record is full.
        short = ratio * PAGE / LONGEST_RECORD + 1 / PACKET_PAGES
        return short if tuning.compression else np.full_like(ratio, CHANNEL_RECORDS)

    def page(ratio: Floats, touch: Floats | float) -> PageCost:
        wire = ratio * PAGE + CHANNEL_HEADER
        send, place = sending(ratio), placing(ratio) + touch
        stages = (send / here, place / there, feed, _together(survey, send + place))
        cost = _cost(draws.goodput, wire, *stages, pace=pace)
        cost = _sealed(cost, draws, tuning, records(ratio))
        raw = np.full_like(wire, PAGE + CHANNEL_HEADER)
        return replace(cost, counted=raw) if rules.raw_accounting else cost

    zero = _cost(draws.goodput, ZERO_PAGE, scan)
    if rules.zero_pages_in_channels:
        zero = _cost(draws.goodput, CHANNEL_HEADER, scan / here, feed)
    later = page(draws.later_ratio, 0.0)
    return Costs(
        first=page(draws.first_ratio, touch),
        later=later,
        difference=later,
        zero=zero,
        zero_cpu=scan,
        source_cpu=sending(draws.first_ratio),
        destination_cpu=placing(draws.first_ratio) + touch,
    )


def _idle(survey: Survey, host: HostProfile) -> float:
    """Return the cores that a host's channels can keep busy, the main thread's own left out."""
    if survey.shared_cores is not None:
        return max(1.0, survey.shared_cores)
    return max(1.0, host.spare_cores - 1)


def _together(survey: Survey, cpu: Floats) -> Floats:
    """Return the seconds of a page whose CPU time both ends must find on the same cores."""
    return cpu / max(1.0, survey.shared_cores) if survey.shared_cores else np.zeros_like(cpu)


def _compressing(survey: Survey, compression: Compression | None) -> float:
    """Return seconds of CPU to compress one page; 0 without compression."""
    return PAGE / survey.source.compression_speed(compression) if compression else 0.0


def _restoring(survey: Survey, compression: Compression | None) -> float:
    """Return seconds of CPU to restore one page; 0 without compression."""
    return PAGE / survey.destination.restoring_speed(compression) if compression else 0.0

"""Pre-copy: the scan over dirty memory, and what a synchronisation finds.

    begin ──► advance ──► advance … ──► synchronise ──► advance …
              (to the next moment         (new dirty pages by
               at which QEMU would look)   the chunk rule)

Between two moments nothing changes but the position of the scan, so a pass is one cumulative
sum over segments and not a loop over pages or milliseconds. All arrays have one entry per
draw first; each draw has its own clock.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from whimbrel.model.units import PAGE
from whimbrel.theory.arrays import Flags, Floats, Ints
from whimbrel.theory.layout import BLANK, STILL, Layout
from whimbrel.theory.rates import PageCost
from whimbrel.theory.rules import ITERATION, WINDOW

KNOWN_LOOKS = 4
"""Looks from the beginning of a pass whose moments are known."""


@dataclass(frozen=True)
class Scan:
    """A pre-copy on its way, D times.

    Attributes:
        clock: Seconds since the request, (D,).
        began: When this pass began, (D,).
        passes: Synchronisations so far, (D,).
        cursor: The segment to be scanned next, (D,).
        to_send: Pages dirty in QEMU's bitmap and not yet sent, (D, S, K).
        sent: Pages sent in this pass, (D, S, K).
        cleared: When each segment's dirty log was cleared in this pass, inf: not yet, (D, S).
        wire: Bytes on the wire, (D,).
        counted: Bytes as QEMU counts them, (D,).
        normal: Pages sent with content, (D,).
        zero: Pages sent as zero, (D,).
        bandwidth: Counted bytes per second in the last window; 0 until one has closed, (D,).
        window_at: When the current window began, (D,).
        window_counted: Bytes counted by then, (D,).
    """

    clock: Floats
    began: Floats
    passes: Ints
    cursor: Ints
    to_send: Floats
    sent: Floats
    cleared: Floats
    wire: Floats
    counted: Floats
    normal: Floats
    zero: Floats
    bandwidth: Floats
    window_at: Floats
    window_counted: Floats

    @property
    def left(self) -> Floats:
        """Raw bytes still to be sent as QEMU counts them: 4096 per page, zero or not, (D,)."""
        remaining: Floats = self.to_send.sum(axis=(1, 2)) * PAGE
        return remaining

    @property
    def missing(self) -> tuple[Floats, Floats]:
        """Return the pages still to be sent: those with content, and zero pages, (D,) each."""
        zero: Floats = self.to_send[:, :, :STILL].sum(axis=(1, 2))
        every: Floats = self.to_send.sum(axis=(1, 2))
        return every - zero, zero

    def only(self, which: Ints) -> "Scan":
        """Return the draws with these indices."""
        return Scan(**{each.name: getattr(self, each.name)[which] for each in fields(self)})


@dataclass(frozen=True)
class Pace:
    """How a scan proceeds until the next synchronisation.

    Attributes:
        page: Cost of a page with content.
        zero: Cost of a zero page.
        downtime_limit: Seconds.
        switchover_bandwidth: Bytes per second said to be there at switchover, or None.
        quantum: Seconds between two of QEMU's looks at what is pending, (D,).
        phase: Where between two looks the threshold is crossed, 0 to 1, (D,).
    """

    page: PageCost
    zero: PageCost
    downtime_limit: float
    switchover_bandwidth: float | None
    quantum: Floats
    phase: Floats

    def threshold(self, bandwidth: Floats) -> Floats:
        """Return the bytes that may be pending at switchover; 0 until a window has closed."""
        known = bandwidth if self.switchover_bandwidth is None else self.switchover_bandwidth
        return np.where(bandwidth > 0, known * self.downtime_limit, 0.0)


def looks_every(limited: Flags) -> Floats:
    """Return the seconds between QEMU's looks at what is pending, per draw.

    A stream at its bandwidth limit sends a window's share at once and sleeps to the window's
    end; one that is not looks after each ram_save_iterate (docs/theory.md, "The loop").
    """
    return np.where(limited, WINDOW, ITERATION)


def begin(layout: Layout, at: Floats) -> Scan:
    """Return the state after QEMU's set-up: everything to be sent but what is called free."""
    draws = len(at)
    to_send = layout.cells.copy()
    to_send[:, :, BLANK:STILL] = 0.0
    nothing = np.zeros(draws)
    return Scan(
        clock=at,
        began=at,
        passes=np.ones(draws, dtype=np.int64),
        cursor=np.zeros(draws, dtype=np.int64),
        to_send=to_send,
        sent=np.zeros_like(to_send),
        cleared=np.full((draws, layout.segments), np.inf),
        wire=nothing,
        counted=nothing,
        normal=nothing,
        zero=nothing,
        bandwidth=nothing,
        window_at=at,
        window_counted=nothing,
    )


@dataclass(frozen=True)
class _Road:
    """What lies ahead of the scan, segment by segment in the order of scanning, (D, S)."""

    order: Ints
    normal: Floats
    zero: Floats
    starts: Floats
    ends: Floats
    counted: Floats


def advance(layout: Layout, scan: Scan, pace: Pace, until: Floats) -> tuple[Scan, Flags]:
    """Scan on until QEMU synchronises, or until a moment.

    Args:
        layout: Guest memory.
        scan: The state to go on from.
        pace: Costs and limits; constant meanwhile.
        until: Seconds since the request at which to stop in any case, (D,).

    Returns:
        The new state, and for which draws a synchronisation is due.
    """
    road = _ahead(scan, pace)
    due = _next_look(scan, pace, road)
    stop = np.minimum(due, np.maximum(until, scan.clock))
    return _moved(layout, scan, pace, road, stop), due <= until


def _ahead(scan: Scan, pace: Pace) -> _Road:
    segments = scan.to_send.shape[1]
    order = (scan.cursor[:, None] + np.arange(segments)) % segments
    zero_pages = scan.to_send[:, :, :STILL].sum(axis=2)
    normal_pages = scan.to_send.sum(axis=2) - zero_pages
    normal = np.take_along_axis(normal_pages, order, axis=1)
    zero = np.take_along_axis(zero_pages, order, axis=1)
    seconds = normal * pace.page.seconds[:, None] + zero * pace.zero.seconds[:, None]
    counted = normal * pace.page.counted[:, None] + zero * pace.zero.counted[:, None]
    ends = np.cumsum(seconds, axis=1)
    return _Road(order, normal, zero, ends - seconds, ends, np.cumsum(counted, axis=1))


def _next_look(scan: Scan, pace: Pace, road: _Road) -> Floats:
    """Return when QEMU finds less pending than its threshold, or nothing left at all, (D,)."""
    pages = np.cumsum(road.normal + road.zero, axis=1)
    left = np.column_stack([pages[:, -1:], pages[:, -1:] - pages]) * PAGE
    times = np.column_stack([np.zeros(len(left)), road.ends])
    bandwidth = np.column_stack([scan.bandwidth, _window_bandwidth(scan, pace, road)])
    surplus = left - pace.threshold(bandwidth)
    crossed = scan.clock + _first_crossing(times, surplus) - scan.began
    # A pass begins with a look, so the first looks in it come at known moments; later ones have
    # drifted, since no iteration lasts exactly as long as it should. A stream at its limit looks
    # when it has sent a window's share, which may be anywhere in the window.
    soon = (crossed < KNOWN_LOOKS * pace.quantum) & (pace.quantum < WINDOW)
    known = np.maximum(1.0, np.ceil(crossed / pace.quantum)) * pace.quantum
    drifted = np.maximum(pace.quantum, crossed + pace.phase * pace.quantum)
    look = scan.began + np.where(soon, known, drifted)
    return np.minimum(look, scan.clock + road.ends[:, -1])


def _window_bandwidth(scan: Scan, pace: Pace, road: _Road) -> Floats:
    """Return the bandwidth of the last 100 ms at the end of each segment ahead, (D, S)."""
    running = _running_bandwidth(scan, road)
    if not road.zero.any():
        # Where all pages cost the same there is nothing to average; most passes are such.
        steady = (pace.page.counted / pace.page.seconds)[:, None]
        return np.where(road.ends >= WINDOW, steady, running)
    back = road.ends - WINDOW
    earlier = np.column_stack([np.zeros(len(back)), road.ends])
    index = (earlier[:, None, :] <= back[:, :, None]).sum(axis=2) - 1
    at = np.maximum(index, 0)
    counted = np.column_stack([np.zeros(len(back)), road.counted])
    last = np.minimum(at + 1, earlier.shape[1] - 1)
    t0, t1 = np.take_along_axis(earlier, at, 1), np.take_along_axis(earlier, last, 1)
    c0, c1 = np.take_along_axis(counted, at, 1), np.take_along_axis(counted, last, 1)
    share = np.clip((back - t0) / np.maximum(t1 - t0, 1e-12), 0.0, 1.0)
    sent = road.counted - (c0 + share * (c1 - c0))
    return np.where(back >= 0, sent / WINDOW, running)


def _running_bandwidth(scan: Scan, road: _Road) -> Floats:
    """Return the bandwidth at each segment's end from the window that runs now, (D, S).

    That of the window before it, until this one has closed.
    """
    span = (scan.clock - scan.window_at)[:, None] + road.ends
    counted = (scan.counted - scan.window_counted)[:, None] + road.counted
    closed = span >= WINDOW
    return np.where(closed, counted / np.where(closed, span, 1.0), scan.bandwidth[:, None])


def _first_crossing(times: Floats, surplus: Floats) -> Floats:
    """Return when the surplus first turns negative, inf where it never does, (D,)."""
    below = surplus < 0
    index = np.argmax(below, axis=1)
    before = np.maximum(index - 1, 0)
    rows = np.arange(len(times))
    high, low = surplus[rows, before], surplus[rows, index]
    fall = np.maximum(high - low, 1e-12)
    share = np.where(index > 0, np.clip(high / fall, 0.0, 1.0), 0.0)
    found = times[rows, before] + share * (times[rows, index] - times[rows, before])
    return np.where(below.any(axis=1), found, np.inf)


def _moved(layout: Layout, scan: Scan, pace: Pace, road: _Road, stop: Floats) -> Scan:
    elapsed = (stop - scan.clock)[:, None]
    spans = road.ends - road.starts
    passed = np.where(
        spans > 0, (elapsed - road.starts) / np.where(spans > 0, spans, 1.0), road.ends <= elapsed
    )
    passed = np.clip(passed, 0.0, 1.0)
    normal = (road.normal * passed).sum(axis=1)
    zero = (road.zero * passed).sum(axis=1)
    counted = scan.counted + normal * pace.page.counted + zero * pace.zero.counted
    back = np.argsort(road.order, axis=1)
    share = np.take_along_axis(passed, back, axis=1)[:, :, None]
    sent = scan.to_send * share
    whole = (passed >= 1.0).sum(axis=1)
    moved = replace(
        scan,
        clock=stop,
        cursor=(scan.cursor + whole) % layout.segments,
        to_send=scan.to_send - sent,
        sent=scan.sent + sent,
        cleared=_cleared(layout, scan, road, passed, back),
        wire=scan.wire + normal * pace.page.wire + zero * pace.zero.wire,
        counted=counted,
        normal=scan.normal + normal,
        zero=scan.zero + zero,
    )
    return _close_window(scan, moved, road)


def _cleared(layout: Layout, scan: Scan, road: _Road, passed: Floats, back: Ints) -> Floats:
    """Return when each segment's dirty log was cleared (docs/theory.md, "The chunk rule")."""
    reached = (passed > 0) & (road.normal + road.zero > 0)
    entered = np.where(reached, scan.clock[:, None] + road.starts, np.inf)
    if layout.fine:
        entered = entered + (road.ends - road.starts) * passed / 2
    here = np.take_along_axis(entered, back, axis=1)
    by_chunk = np.minimum.reduceat(here, layout.chunk_starts, axis=1)
    return np.minimum(scan.cleared, by_chunk[:, layout.chunk_of])


def _close_window(before: Scan, after: Scan, road: _Road) -> Scan:
    """Update the bandwidth as migration_update_counters does, after 100 ms or more."""
    closed = after.clock - after.window_at >= WINDOW * 0.999
    # Of a long stretch only the last 100 ms count; there bytes and time are those of its end.
    start = np.maximum(before.clock, after.clock - WINDOW)
    long = start > before.clock
    since = _counted_at(before, road, start)
    span = np.where(long, WINDOW, np.maximum(after.clock - after.window_at, 1e-12))
    base = np.where(long, since, after.window_counted)
    return replace(
        after,
        bandwidth=np.where(closed, (after.counted - base) / span, after.bandwidth),
        window_at=np.where(closed, after.clock, after.window_at),
        window_counted=np.where(closed, after.counted, after.window_counted),
    )


def _counted_at(before: Scan, road: _Road, at: Floats) -> Floats:
    elapsed = (at - before.clock)[:, None]
    spans = np.where(road.ends > road.starts, road.ends - road.starts, 1.0)
    passed = np.clip((elapsed - road.starts) / spans, 0.0, 1.0)
    steps = np.diff(road.counted, axis=1, prepend=0.0)
    total: Floats = before.counted + (steps * passed).sum(axis=1)
    return total


def synchronise(layout: Layout, scan: Scan, slow: Floats, where: Floats) -> tuple[Scan, Floats]:
    """Bring the dirty log into the bitmap: a new pass begins.

    A page sent in this pass is dirty again if it was written after its chunk's log was
    cleared; a page that was clean, if it was written since the last synchronisation; a page
    not yet sent stays what it is (docs/theory.md, "The chunk rule").

    Args:
        layout: Guest memory.
        scan: The state at the end of the pass.
        slow: Factor on the guest's writes during the pass, from throttling, (D,).
        where: Where a writer of pages in turn stood as to the scan, 0 to 1, (D,).

    Returns:
        The new state, and the pages newly found dirty, (D,).
    """
    rates = layout.rates * slow[:, None]
    clean = np.maximum(layout.cells - scan.to_send - scan.sent, 0.0)
    since = (
        scan.cleared if layout.chunked else np.broadcast_to(scan.began[:, None], scan.cleared.shape)
    )
    since = np.minimum(since, scan.clock[:, None])
    again = -np.expm1(-rates[:, None, :] * (scan.clock[:, None] - since)[:, :, None])
    afresh = -np.expm1(-rates * (scan.clock - scan.began)[:, None])[:, None, :]
    afresh = np.broadcast_to(afresh, clean.shape).copy()
    for k in np.flatnonzero(layout.cyclic):
        again[:, :, k], afresh[:, :, k] = _in_turn(
            layout, scan, rates[:, k], int(k), clean=clean, since=since
        )
        luck = _luck(rates[:, k] * (scan.clock - scan.began), where)[:, None]
        again[:, :, k] = np.minimum(again[:, :, k] * luck, 1.0)
        afresh[:, :, k] = np.minimum(afresh[:, :, k] * luck, 1.0)
    new = scan.sent * again + clean * afresh
    renewed = replace(
        scan,
        began=scan.clock,
        passes=scan.passes + 1,
        to_send=scan.to_send + new,
        sent=np.zeros_like(scan.sent),
        cleared=np.full_like(scan.cleared, np.inf),
    )
    found: Floats = new.sum(axis=(1, 2))
    return renewed, found


def called_free(layout: Layout, scan: Scan) -> tuple[Scan, Floats]:
    """Return the state after the first synchronisation of a move with free page hints.

    To tell the hypervisor what is free, the guest's balloon takes these pages for itself, and
    a Linux that clears what it hands out (init_on_alloc, the default of Debian and Ubuntu)
    writes zeros to all of them. So they were skipped once, and are dirty now.

    Returns:
        The new state, and the pages found dirty, (D,).
    """
    taken = layout.cells[:, :, BLANK:STILL]
    to_send = scan.to_send.copy()
    to_send[:, :, BLANK:STILL] = taken
    found: Floats = taken.sum(axis=(1, 2))
    return replace(scan, to_send=to_send), found


def _luck(turns: Floats, where: Floats) -> Floats:
    """Return the factor on what a writer of pages in turn makes dirty in a pass, (D,).

    It writes one stretch of memory, and the scan has sent another. What lies in both is dirty
    again, what still waits to be sent is written for nothing. Where the two stand to each other
    is not known, so a pass much shorter than a turn may find nothing, or twice the mean; in a
    whole turn everything is met.
    """
    spread: Floats = 1.0 - np.minimum(turns, 1.0)
    return 1.0 + spread * (2.0 * where - 1.0)


def _in_turn(
    layout: Layout, scan: Scan, rate: Floats, k: int, *, clean: Floats, since: Floats
) -> tuple[Floats, Floats]:
    """Return the shares of sent and of clean pages written, for pages written in turn.

    The pages longest not written are the clean ones, so they come first, and the dirty ones
    only when all clean pages have been written.
    """
    writes = np.maximum(rate * layout.cells[:, :, k].sum(axis=1), 1e-12)
    waiting = clean[:, :, k].sum(axis=1)
    dirty = (scan.to_send + scan.sent)[:, :, k].sum(axis=1)
    turned = scan.began + waiting / writes
    left = scan.clock[:, None] - np.maximum(since, turned[:, None])
    again = np.clip(left * (writes / np.maximum(dirty, 1e-12))[:, None], 0.0, 1.0)
    pages = writes * (scan.clock - scan.began)
    afresh = np.clip(pages / np.maximum(waiting, 1e-12), 0.0, 1.0)
    return again, np.broadcast_to(afresh[:, None], again.shape)

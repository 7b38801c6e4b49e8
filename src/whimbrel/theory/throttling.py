"""Auto-converge: when QEMU throttles the guest, and how hard (ram.c 1116-1173, 554-582)."""

from dataclasses import dataclass, fields

import numpy as np

from whimbrel.model.units import PAGE
from whimbrel.theory.arrays import Floats, Ints
from whimbrel.theory.precopy import Scan
from whimbrel.theory.rules import THROTTLE_SYNC, QemuRules

FIRST = 0.2
"""The first throttle (cpu-throttle-initial)."""

STEP = 0.1
"""What each later one adds (cpu-throttle-increment)."""

STRONGEST = 0.99
"""The strongest throttle (max-cpu-throttle)."""

TRIGGER = 0.5
"""Dirtied over sent bytes from which a period counts (throttle-trigger-threshold)."""

SHORTEST_PERIOD = 1.0
"""Seconds between two evaluations at least (ram.c 1173)."""


@dataclass(frozen=True)
class Throttle:
    """QEMU's throttle, D times.

    Attributes:
        level: Share of its time the guest sleeps, 0 to 1, (D,).
        hits: Periods too dirty since the last step, (D,).
        since: When the running period began, (D,).
        counted: Bytes counted by then, (D,).
        dirtied: Pages found dirty in the running period, (D,).
    """

    level: Floats
    hits: Ints
    since: Floats
    counted: Floats
    dirtied: Floats

    @classmethod
    def off(cls, at: Floats) -> "Throttle":
        """Return the state at the first synchronisation."""
        nothing = np.zeros(len(at))
        return cls(nothing, np.zeros(len(at), dtype=np.int64), at, nothing, nothing)

    def only(self, which: Ints) -> "Throttle":
        """Return the draws with these indices."""
        return Throttle(**{each.name: getattr(self, each.name)[which] for each in fields(self)})


def evaluated(throttle: Throttle, scan: Scan, found: Floats) -> Throttle:
    """Return the throttle after a synchronisation that found so many new pages, (D,).

    Every second period in which more than half as many bytes were dirtied as sent makes the
    guest sleep more.
    """
    dirtied = throttle.dirtied + found
    due = scan.clock - throttle.since > SHORTEST_PERIOD
    sent = scan.counted - throttle.counted
    hits = throttle.hits + (due & (dirtied * PAGE > sent * TRIGGER))
    step = hits >= 2  # noqa: PLR2004 - QEMU's own count (ram.c 1133)
    harder = np.where(throttle.level > 0, throttle.level + STEP, FIRST)
    return Throttle(
        level=np.where(step, np.minimum(harder, STRONGEST), throttle.level),
        hits=np.where(step, 0, hits),
        since=np.where(due, scan.clock, throttle.since),
        counted=np.where(due, scan.counted, throttle.counted),
        dirtied=np.where(due, 0.0, dirtied),
    )


def next_forced_sync(scan: Scan, begun: Floats, rules: QemuRules) -> Floats:
    """Return when a synchronisation is forced under throttling, inf for never, (D,).

    A timer looks every 5 s and forces one if there was none since it last looked, but never
    in the first pass (cpu-throttle.c 135-161).
    """
    if not rules.forced_throttle_sync:
        return np.full(len(begun), np.inf)
    looks = np.ceil((scan.began - begun) / THROTTLE_SYNC - 1e-9) + 1
    return np.where(scan.passes > 1, begun + looks * THROTTLE_SYNC, np.inf)

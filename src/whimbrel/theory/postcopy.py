"""Post-copy: the guest runs at the destination and every missing page is sent once.

Downtime ends for QEMU's source before the destination has loaded the device state
(migration.c 2866), so what it reports is less than what the guest stands still.
"""

import math
from dataclasses import dataclass

import numpy as np

from whimbrel.model.memory import LinkProfile, Survey
from whimbrel.theory.arrays import Floats
from whimbrel.theory.draws import Draws
from whimbrel.theory.layout import Layout
from whimbrel.theory.precopy import Scan
from whimbrel.theory.rates import Costs
from whimbrel.theory.switchover import stopping

FAULT_SECONDS = 0.5e-3
"""Seconds of both hosts to ask for one missing page, place it and wake the guest."""

DEVICE_QUEUE = 1e-3
"""Seconds of the stream of all other pages that an urgent one finds in the NIC's queue, though it
has a connection of its own: TCP leaves so much of each there (tcp_small_queue_check, a
`sk_pacing_shift` of 10). Seen: 1.53 ms for each page in all at 1 Gbit/s, 1.9 at 200 Mbit/s."""

ALONE = 12.0
"""Times as many pages that a guest asks for with preempt. Without it QEMU goes on behind the page
that was asked for (ram_find_and_save_block), and much of what the guest needs next lies there."""

MOST_BELIEVED = 3.0
"""Times the seconds of all missing pages that waiting for the first ones is believed to take."""


@dataclass(frozen=True)
class Pull:
    """The second half of a post-copy move, D times.

    Attributes:
        downtime: Seconds the guest stands still at the switch, (D,).
        reported: Seconds of it that QEMU's source counts, (D,).
        seconds: From the end of `reported` until the last page has arrived, (D,).
        wire: Bytes sent from the switch on, (D,).
        normal: Pages with content among what was missing, (D,).
        zero: Zero pages among it, (D,).
        waiting: Seconds the guest waits for missing pages, summed over all faults, (D,).
    """

    downtime: Floats
    reported: Floats
    seconds: Floats
    wire: Floats
    normal: Floats
    zero: Floats
    waiting: Floats


def pull(
    survey: Survey,
    draws: Draws,
    layout: Layout,
    scan: Scan,
    plain: Costs,
    *,
    draining: Floats,
    preempt: bool,
) -> Pull:
    """Return the course of a move from the switch to post-copy on.

    Args:
        survey: Hosts and link.
        draws: Their figures.
        layout: Guest memory.
        scan: The state at the switch; what it has to send is what is missing.
        plain: What pages cost on the plain stream; multifd carries none of these.
        draining: Seconds that the link needs for what waits in the buffers, (D,).
        preempt: Whether urgent pages have their own channel.
    """
    page, zero = plain.later, plain.zero
    missing = scan.to_send.sum(axis=1)
    normal, marks = scan.missing
    seconds = normal * page.seconds + marks * zero.seconds
    state = survey.source.state_bytes / draws.goodput
    reported = stopping(survey, draws) + state
    loading = survey.destination.load_seconds * draws.destination_cost * draws.answer
    each = survey.link.latency + page.seconds + fetching(survey.link, draws, preempt=preempt)
    faults = _faults(layout, missing, seconds)
    pages = asked_for(survey.destination.waking_pages, preempt=preempt)
    waking = standing(pages * draws.waking * each, seconds)
    return Pull(
        downtime=reported + draining + survey.link.latency + loading + waking,
        reported=reported,
        seconds=seconds,
        wire=normal * page.wire + marks * zero.wire + survey.source.state_bytes,
        normal=normal,
        zero=marks,
        waiting=np.minimum(faults * each, seconds),
    )


def fetching(link: LinkProfile, draws: Draws, *, preempt: bool) -> Floats:
    """Return the seconds to get one missing page but for the way and the page itself, (D,)."""
    in_flight = link.in_flight_for(1) / draws.goodput
    return FAULT_SECONDS + (np.full_like(in_flight, DEVICE_QUEUE) if preempt else in_flight)


def asked_for(waking_pages: float, *, preempt: bool) -> float:
    """Return how many pages a guest asks for before it answers."""
    return waking_pages * (ALONE if preempt else 1.0)


def standing(faults: Floats, seconds: Floats) -> Floats:
    """Return how long a guest waits for its first pages, each of which may come by itself.

    Pages come in the order of addresses, wherever the guest waits: of those that it needs at
    time t only 1 - t / seconds are missing still. So dt = (1 - t / seconds) df, and t is
    seconds * (1 - exp(-faults / seconds)): never longer than all missing pages take.

    Args:
        faults: Seconds that the pages would take if none came by itself, (D,).
        seconds: That all missing pages take, (D,).
    """
    safe = np.maximum(seconds, 1e-9)
    waited: Floats = -safe * np.expm1(-faults / safe)
    return waited


def faults(standing_still: float, seconds: float) -> float:
    """Return the `faults` that make a guest wait that long: `standing` the other way round.

    A guest that waited until the last page tells little of how many it needed; three times
    those seconds are the most that is believed.
    """
    if seconds <= 0:
        return 0.0
    left = 1 - max(0.0, standing_still) / seconds
    return seconds * min(-math.log(left), MOST_BELIEVED) if left > 0 else seconds * MOST_BELIEVED


def _faults(layout: Layout, missing: Floats, seconds: Floats) -> Floats:
    """Return how many missing pages the guest writes before they arrive, (D,).

    Pages arrive evenly over the seconds, so a page of rate λ is missed with probability
    1 - (1 - exp(-λT)) / (λT). Reads are not known to the survey and not counted.
    """
    turns = layout.rates * seconds[:, None]
    safe = np.maximum(turns, 1e-9)
    missed = np.where(turns > 1e-9, 1 + np.expm1(-safe) / safe, 0.0)  # noqa: PLR2004
    faults: Floats = (missing * missed).sum(axis=1)
    return faults

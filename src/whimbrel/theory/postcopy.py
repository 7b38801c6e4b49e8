"""Post-copy: the guest runs at the destination and every missing page is sent once.

Downtime ends for QEMU's source before the destination has loaded the device state
(migration.c 2866), so what it reports is less than what the guest stands still.
"""

import math
from dataclasses import dataclass

import numpy as np

from whimbrel.model.memory import Survey
from whimbrel.theory.arrays import Floats
from whimbrel.theory.draws import Draws
from whimbrel.theory.layout import Layout
from whimbrel.theory.precopy import Scan
from whimbrel.theory.rates import Costs
from whimbrel.theory.switchover import stopping

FAULT_SECONDS = 0.5e-3
"""Seconds of both hosts to ask for one missing page, place it and wake the guest."""

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
    queue = 0.0 if preempt else survey.link.in_flight_for(1) / draws.goodput
    each = survey.link.latency + FAULT_SECONDS + page.seconds + queue
    faults = _faults(layout, missing, seconds)
    waking = standing(survey.destination.waking_pages * draws.waking * each, seconds)
    return Pull(
        downtime=reported + draining + survey.link.latency + loading + waking,
        reported=reported,
        seconds=seconds,
        wire=normal * page.wire + marks * zero.wire + survey.source.state_bytes,
        normal=normal,
        zero=marks,
        waiting=np.minimum(faults * each, seconds),
    )


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

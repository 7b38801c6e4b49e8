"""Post-copy: the guest runs at the destination and every missing page is sent once.

Downtime ends for QEMU's source before the destination has loaded the device state
(migration.c 2866), so what it reports is less than what the guest stands still.
"""

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
    waking = np.minimum(survey.destination.waking_pages * draws.waking * each, seconds)
    return Pull(
        downtime=reported + draining + survey.link.latency + loading + waking,
        reported=reported,
        seconds=seconds,
        wire=normal * page.wire + marks * zero.wire + survey.source.state_bytes,
        normal=normal,
        zero=marks,
        waiting=np.minimum(faults * each, seconds),
    )


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

"""The stopped guest: what is sent while it stands still, and how long that takes.

Downtime is not what QEMU's arithmetic expects, remaining / bandwidth: at switchover QEMU
lifts the bandwidth limit (migration.c 3000), and stopping, buffers, device state and loading
come on top (docs/theory.md, "The stopped guest").
"""

from dataclasses import dataclass

import numpy as np

from whimbrel.model.memory import Survey
from whimbrel.model.units import GIB
from whimbrel.theory.arrays import Floats
from whimbrel.theory.draws import Draws
from whimbrel.theory.rates import PageCost

PROTECT_SECONDS = 0.03e-6
"""Seconds to re-protect one dirty page when the log is cleared; an assumption, not measured."""


@dataclass(frozen=True)
class Stop:
    """A switchover, D times.

    Attributes:
        downtime: Seconds the guest stands still, (D,).
        reported: Seconds of downtime as QEMU's source counts them, (D,).
        wire: Bytes sent meanwhile, (D,).
        counted: Likewise as QEMU counts them, (D,).
    """

    downtime: Floats
    reported: Floats
    wire: Floats
    counted: Floats


def stopping(survey: Survey, draws: Draws) -> Floats:
    """Return the seconds to stop the guest and look for dirty pages a last time, (D,)."""
    source = survey.source
    sync = source.sync_seconds * survey.memory.total / GIB
    return (source.stop_seconds + sync) * draws.source_cost


def switch_over(
    survey: Survey,
    draws: Draws,
    normal: tuple[PageCost, Floats],
    zero: tuple[PageCost, Floats],
    *,
    draining: Floats,
    clears_log: bool,
    return_path: bool,
) -> Stop:
    """Return the stop-and-copy of the last pages.

    Args:
        survey: Hosts and link.
        draws: Their figures.
        normal: Cost of a page with content, no bandwidth limit in force, and how many of them
            the stopped guest has left, (D,).
        zero: Likewise for zero pages, which are left where memory was not sent once.
        draining: Seconds that the link needs for what waits in the buffers, (D,).
        clears_log: Whether QEMU still clears the dirty log (before 10.1).
        return_path: Whether the source waits until the destination has loaded; if not, it
            does not count what is still in the buffers, nor the loading.
    """
    clearing = PROTECT_SECONDS * draws.source_cost if clears_log else 0.0
    state = np.full(draws.count, float(survey.source.state_bytes))
    (page, pages), (mark, marks) = normal, zero
    copying = pages * (page.seconds + clearing) + marks * mark.seconds
    sending = copying + state / draws.goodput
    arriving = draining + survey.link.latency
    loading = survey.destination.load_seconds * draws.destination_cost * draws.answer
    at_source = stopping(survey, draws) + sending
    whole = at_source + arriving + loading
    return Stop(
        downtime=whole,
        reported=whole if return_path else at_source,
        wire=pages * page.wire + marks * mark.wire + state,
        counted=pages * page.counted + marks * mark.counted + state,
    )

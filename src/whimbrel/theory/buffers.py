"""What waits on its way: bytes that QEMU has written and the destination has not read yet.

Socket buffers and queues take the first bytes at once, so the source is ahead of the link from
then on, and when the guest has been stopped the link still has to carry what is under way.
"""

from dataclasses import replace

import numpy as np

from whimbrel.model.memory import LinkProfile
from whimbrel.theory.arrays import Floats
from whimbrel.theory.draws import Draws
from whimbrel.theory.layout import Layout
from whimbrel.theory.precopy import Pace, Scan, advance
from whimbrel.theory.rates import PageCost

LINK_BOUND = 1.1
"""Factor on the link's time per page within which the link decides."""


def leading(link: LinkProfile, streams: int, draws: Draws, page: PageCost) -> Floats:
    """Return the seconds by which the source is ahead of the link, (D,).

    Only where the link decides; a source that is slower leaves the buffers empty.

    Args:
        link: How much the buffers hold.
        streams: TCP streams in use.
        draws: The goodput.
        page: Cost of a page with content in the first pass, limits in force.
    """
    bound = page.seconds <= page.wire / draws.goodput * LINK_BOUND
    return np.where(bound, link.in_flight_for(streams) / draws.goodput, 0.0)


def filled(layout: Layout, scan: Scan, pace: Pace, lead: Floats) -> Scan:
    """Return the state in which the buffers have taken in no time what they hold.

    Args:
        layout: Guest memory.
        scan: The state at the beginning.
        pace: Costs of pages.
        lead: Seconds that the link needs for what the buffers hold, (D,).
    """
    ahead, _ = advance(layout, scan, pace, scan.clock + lead)
    nothing = np.zeros(len(lead))
    return replace(
        ahead,
        clock=scan.clock,
        bandwidth=nothing,
        window_at=scan.clock,
        window_counted=nothing,
        cleared=np.where(np.isfinite(ahead.cleared), scan.clock[:, None], np.inf),
    )


def draining(scan: Scan, begun: Floats, goodput: Floats, page: PageCost, lead: Floats) -> Floats:
    """Return the seconds that the link needs for what waits in the buffers now, (D,).

    Args:
        scan: The state of the move.
        begun: When memory began to flow, (D,).
        goodput: Bytes per second that the link carries, (D,).
        page: Cost of a page with content.
        lead: As `leading` returns it, (D,).
    """
    busy = np.clip(scan.bandwidth * page.seconds / page.counted, 0.0, 1.0)
    # A link that was never idle still has to carry what it could not carry until now.
    behind = np.clip(begun + scan.wire / goodput - scan.clock, 0.0, lead)
    return np.maximum(lead * busy, behind)

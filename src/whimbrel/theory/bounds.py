"""Closed-form bounds on a move: what it takes at most, whatever the guest does.

They hold for every move over a link that carries at least `floor`, between hosts that need at
most the seconds of the survey's 90th percentile. No dirty rate enters them, but for one
term of post-copy's downtime (`Bounds.discarding`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.memory import DirtyCurve, LinkProfile, Survey
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.theory.draws import ANSWER_ERROR, WAKING_ERROR, Draws, draw
from whimbrel.theory.postcopy import asked_for, fetching
from whimbrel.theory.rates import Costs, PageCost, costs, limited
from whimbrel.theory.rules import DEFAULT_BANDWIDTH_LIMIT, ITERATION, WINDOW, QemuRules
from whimbrel.theory.simulate import preparation
from whimbrel.theory.switchover import PROTECT_SECONDS, stopping

Z90 = 1.2816
"""Standard deviations from the middle of a normal law to its 90th percentile."""

LOOK = 2 * WINDOW + ITERATION
"""Seconds until QEMU has seen a new limit or request: a closed window, and one iteration."""

DISCARD_BYTES = 18
"""Bytes on the wire to discard one range of pages before post-copy: 16, and a share of the
header of 12 ranges (postcopy-ram.c, MAX_DISCARDS_PER_COMMAND)."""

DISCARD_SECONDS = 1e-6
"""Seconds of the destination to discard one range; an assumption, not measured."""


@dataclass(frozen=True)
class Bounds:
    """What a move takes at most.

    Attributes:
        floor: Bytes per second that the link carries at least, by plain stream.
        pages: Pages of guest memory.
        preparation: Seconds to prepare destination memory.
        setup: Seconds from the end of that until memory flows.
        sync: Seconds to synchronise the dirty bitmap.
        first: Seconds per page in the first pass.
        pull: Seconds per page in post-copy.
        final: Seconds per page of the stopped guest, no bandwidth limit in force.
        standing: Seconds the guest stands still at least: to stop it, to send its device
            state and what is buffered, to load it.
        waking: Seconds the guest waits in post-copy for the pages that it cannot do without.
        dirty: The dirty curve at its 90th percentile.
        postcopy_floor: Bytes per second by the stream that carries post-copy.
        rest: Seconds from the end of the first pass, as QEMU counts passes, until a move that is
            to go over after it does (`Convergence`).
    """

    floor: float
    pages: int
    preparation: float
    setup: float
    sync: float
    first: float
    pull: float
    final: float
    standing: float
    waking: float
    dirty: DirtyCurve
    postcopy_floor: float
    rest: float

    @property
    def begun(self) -> float:
        """Seconds since the request by which memory flows."""
        return self.preparation + self.setup

    @property
    def first_pass(self) -> float:
        """Seconds since the request by which the first pass is over and synchronised."""
        return self.begun + self.pages * self.first + self.sync

    @property
    def gone_over(self) -> float:
        """Seconds by which a move goes over that is to do so after its first pass."""
        return self.first_pass + self.rest

    @property
    def whole(self) -> float:
        """Seconds of downtime if all memory is left to the stopped guest."""
        return self.standing + self.pages * self.final

    def discarding(self, switched: float) -> float:
        """Return the seconds to discard pages that went stale, post-copy switched on then.

        There are at most so many ranges as pages dirtied until then, and never more than
        every second page. This alone trusts the dirty curve.
        """
        ranges = min(self.pages / 2, self.dirty.distinct(switched) + 1)
        return ranges * (DISCARD_BYTES / self.postcopy_floor + DISCARD_SECONDS)

    def postcopy_downtime(self, switched: float) -> float:
        """Return the seconds the guest stands still when post-copy is begun by then."""
        return self.standing + self.discarding(switched) + self.waking

    def postcopy_total(self, switched: float) -> float:
        """Return the seconds since the request until the last page, post-copy begun by then."""
        return switched + LOOK + self.postcopy_downtime(switched) + self.pages * self.pull


def low_goodput(link: LinkProfile, streams: int) -> float:
    """Return the 10th percentile of the goodput of so many streams, bytes per second."""
    return link.goodput_for(streams) * math.exp(-Z90 * link.error)


def high_goodput(link: LinkProfile, streams: int) -> float:
    """Return its 90th percentile, bytes per second."""
    return link.goodput_for(streams) * math.exp(Z90 * link.error)


def bounds(
    survey: Survey, tuning: Tuning, rules: QemuRules | None = None, *, floor: float | None = None
) -> Bounds:
    """Return the bounds of a move.

    Args:
        survey: Guest, link and hosts, with their uncertainties.
        tuning: How it is moved.
        rules: The QEMU that moves it.
        floor: Bytes per second that the link is promised to carry in every second; None
            takes the 10th percentile of the surveyed goodput.
    """
    rules, survey = rules or QemuRules(), survey.along(tuning)
    alone = replace(tuning, channels=None, compression=None)
    worst, plain = _worst(survey, tuning, floor), _worst(survey, alone, floor)
    most = costs(survey, tuning, rules, worst)
    single = costs(survey, alone, rules, plain)
    limit = DEFAULT_BANDWIDTH_LIMIT if tuning.as_qemu_comes else tuning.bandwidth_limit
    slow = limited(most, limit)
    pull = _dearest(limited(single, limit), limited(single, limit).first)
    host = float(worst.source_cost[0])
    return Bounds(
        floor=float(worst.goodput[0]),
        pages=survey.memory.pages,
        preparation=preparation(survey, tuning) * float(worst.destination_cost[0]),
        setup=survey.source.setup_seconds * host,
        sync=survey.source.sync_seconds * survey.memory.total / (1 << 30) * host,
        first=_dearest(slow, slow.first),
        pull=pull,
        final=_dearest(most, most.first) + PROTECT_SECONDS * host,
        standing=_standing(survey, tuning, worst),
        waking=_waking(survey, tuning, plain, pull),
        dirty=_upper(survey.memory.dirty),
        postcopy_floor=float(plain.goodput[0]),
        rest=tuning.downtime_limit,
    )


def _worst(survey: Survey, tuning: Tuning, floor: float | None) -> Draws:
    """Return the survey as one draw: link at its floor, hosts and ratios at their worst."""
    streams = tuning.channels or 1
    goodput = floor if floor is not None else low_goodput(survey.link, streams)
    ratio = survey.memory.ratio(tuning.compression)
    best = draw(survey, tuning)
    return replace(
        best,
        goodput=np.array([goodput]),
        first_ratio=best.first_ratio * math.exp(Z90 * ratio.error),
        later_ratio=best.later_ratio * math.exp(Z90 * ratio.later_error),
        answer=np.array([math.exp(Z90 * ANSWER_ERROR)]),
        source_cost=np.array([math.exp(Z90 * survey.source.error)]),
        destination_cost=np.array([math.exp(Z90 * survey.destination.error)]),
    )


def _dearest(now: Costs, first: PageCost) -> float:
    """Return the seconds of the dearest kind of page."""
    return float(max(first.seconds[0], now.later.seconds[0], now.zero.seconds[0]))


def _waking(survey: Survey, tuning: Tuning, plain: Draws, page: float) -> float:
    """Return the seconds a guest waits at most for the pages that it cannot do without.

    Each page stands at the end of the queue, and none comes by itself.
    """
    preempt = tuning.postcopy is Postcopy.AFTER_FIRST_PASS_PREEMPT
    most = survey.destination.waking_pages * math.exp(Z90 * WAKING_ERROR)
    each = float(fetching(survey.link, plain, preempt=preempt)[0])
    return asked_for(most, preempt=preempt) * (survey.link.latency + each + page)


def _standing(survey: Survey, tuning: Tuning, worst: Draws) -> float:
    # A move that goes over to post-copy does so by its plain stream.
    waiting = max(survey.link.in_flight_for(count) for count in (tuning.channels or 1, 1))
    arriving = (survey.source.state_bytes + waiting) / worst.goodput
    loading = survey.destination.load_seconds * worst.destination_cost
    return float((stopping(survey, worst) + arriving + survey.link.latency + loading)[0])


def _upper(curve: DirtyCurve) -> DirtyCurve:
    more, faster = math.exp(Z90 * curve.size_error), math.exp(Z90 * curve.rate_error)
    classes = (
        replace(each, pages=each.pages * more, rate=each.rate * faster) for each in curve.classes
    )
    return DirtyCurve(tuple(classes))

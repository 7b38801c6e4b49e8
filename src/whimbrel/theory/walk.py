"""One move walked through from the request to its end, D times at once.

Each step goes to the next synchronisation. Every draw still under way makes exactly one per
step, or comes to its deadline; so the number of the pass is common to all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from whimbrel.model.method import Postcopy, Transport
from whimbrel.model.migration import Pass
from whimbrel.model.units import GIB, PAGE
from whimbrel.theory.arrays import Flags, Floats, Ints
from whimbrel.theory.buffers import draining, filled, leading
from whimbrel.theory.dirtying import slowdown
from whimbrel.theory.draws import Draws
from whimbrel.theory.fates import Best, Fates, PassLog, Pulling, Rest
from whimbrel.theory.job import Job
from whimbrel.theory.layout import Layout, lay_out
from whimbrel.theory.postcopy import pull
from whimbrel.theory.precopy import (
    Pace,
    Scan,
    advance,
    begin,
    called_free,
    looks_every,
    synchronise,
)
from whimbrel.theory.rates import PACKET, Costs, PageCost, blended, costs, limited, pinning, resent
from whimbrel.theory.rules import DEFAULT_BANDWIDTH_LIMIT, ITERATION
from whimbrel.theory.switchover import switch_over
from whimbrel.theory.throttling import STRONGEST, Throttle, evaluated, next_forced_sync
from whimbrel.theory.windows import least_sent

SEGMENTS = 64
"""About how many segments of memory to tell apart; as many as a survey tells apart."""

PATIENCE = 30
"""Passes without progress after which a draw is taken never to complete."""

WARM_UP = 3
"""Passes before progress is judged."""

PROGRESS = 0.98
"""What counts as progress: remaining over threshold falls below this share of its best."""

JITTER = 0.003
"""Seconds by which a guest runs more or less in a pass than the pass lasts: its vCPU waits for a
core now and then, and catches up. Read off passes of 56 ms that differed by 3 % (one guest)."""

_NOT_BY_ITSELF = {Postcopy.NEVER, Postcopy.IF_STALLED}


@dataclass
class Walk:
    """The draws still under way, and the fates of the others.

    Attributes:
        job: What is simulated.
        draws: Their figures; the draws under way only, as everything below but `fates`.
        phase: Returns where between two looks a threshold is crossed, given a count.
        patient: Go on to the deadline even where nothing suggests that the draw completes.
        limit: Bandwidth limit in bytes per second, None for none.
        downtime_limit: Seconds.
    """

    job: Job
    draws: Draws
    phase: Callable[[int], Floats]
    patient: bool = False
    limit: float | None = None
    downtime_limit: float = 0.3
    log: list[PassLog] = field(default_factory=list)

    def __post_init__(self) -> None:
        job, count = self.job, self.draws.count
        tuning = job.tuning
        limit = DEFAULT_BANDWIDTH_LIMIT if tuning.as_qemu_comes else tuning.bandwidth_limit
        self.limit = None if limit is None else max(limit, least_sent(tuning.channels))
        self.downtime_limit = tuning.downtime_limit
        self.layout: Layout = lay_out(job.survey.memory, self.draws, job.rules, segments=SEGMENTS)
        self.costs: Costs = costs(job.survey, tuning, job.rules, self.draws)
        plain = replace(tuning, channels=None, compression=None)
        self.plain: Costs = costs(job.survey, plain, job.rules, self.draws)
        self.active: Ints = np.arange(count)
        setup = job.survey.source.setup_seconds + pinning(job.survey, tuning)
        start = setup * self.draws.source_cost
        self.begun: Floats = start
        self.begun_at = float(start[0])
        self.pulling: Pulling | None = None
        self.pulls_at: Floats = np.full(count, np.inf)
        self.unsent: Floats = np.zeros(count)
        self.dirty_rate: Floats = np.zeros(count)
        self.scan: Scan = begin(self.layout, start)
        self.throttle = Throttle.off(start)
        self.cached: Floats = np.zeros(count)
        self.found: Floats = self.scan.left / PAGE
        self.best = Best.none(start)
        self.fates = Fates.open(count)
        self.controls = job.controls(start)
        self._record(1)
        page, streams = limited(self.costs, self.limit).first, tuning.channels or 1
        self.lead = leading(job.survey.link, streams, self.draws, page)
        if self.lead.any():
            self.scan = filled(self.layout, self.scan, self.pace(), self.lead)

    @property
    def passes(self) -> int:
        """The number of the running pass."""
        return int(self.scan.passes[0]) if len(self.active) else 0

    def pace(self) -> Pace:
        """Return how the scan proceeds until the next synchronisation."""
        page = self._page(self.costs)
        capped = limited(self.costs, self.limit)
        slow = self._page(capped)
        return Pace(
            page=slow,
            zero=capped.zero,
            downtime_limit=self.downtime_limit,
            switchover_bandwidth=self.job.tuning.switchover_bandwidth,
            quantum=looks_every(slow.seconds > page.seconds),
            phase=self.phase(len(self.active)),
        )

    def step(self, until: float = np.inf) -> bool:
        """Go on to the next synchronisation, to the deadline, or to a moment.

        Returns:
            Whether a synchronisation was made; if not, the scan stands at `until`, or no
            draw is under way any more.
        """
        pace = self.pace()
        forced = np.full(len(self.active), np.inf)
        if self.job.tuning.throttling:
            forced = next_forced_sync(self.scan, self.begun, self.job.rules)
        stop = np.minimum(np.minimum(forced, self.pulls_at), min(self.job.deadline, until))
        self.scan, due = advance(self.layout, self.scan, pace, stop)
        due |= self.scan.clock >= forced
        late = ~due & (self.scan.clock >= self.job.deadline)
        over = ~due & ~late & (self.scan.clock >= self.pulls_at)
        self._give_up(late)
        self.start_postcopy(over[~late])
        if not len(self.active) or not due.any():
            return False
        self._synchronise(pace)
        return True

    def cancel(self) -> float:
        """End all draws as they stand, and return when the first of them was ended."""
        at = float(self.scan.clock[0])
        self._give_up(np.ones(len(self.active), dtype=np.bool_))
        return at

    def start_postcopy(self, which: Flags) -> None:
        """Let the guests of these draws run at the destination now."""
        if not which.any():
            return
        job, index, on = self.job, np.flatnonzero(which), self.active[which]
        preempt = job.tuning.postcopy is Postcopy.AFTER_FIRST_PASS_PREEMPT
        plain = limited(self.plain.only(index), self.limit)
        # The stopped guest's dirty log is looked at a last time (ram_postcopy_send_discard_bitmap).
        scan, _ = synchronise(
            self.layout.only(index),
            self.scan.only(index),
            slowdown(self.throttle.level[index], job.survey.memory.busy_share),
            self.phase(len(index)),
        )
        half = pull(
            job.survey,
            self.draws.only(index),
            self.layout.only(index),
            scan,
            plain,
            draining=self._draining(index),
            preempt=preempt,
        )
        # QEMU counts it as a pass.
        number = int(scan.passes[0])
        self.log.append(PassLog(number, on, scan.clock, scan.counted, scan.left))
        fates = self.fates
        fates.postcopy[on] = True
        fates.stopped_at[on] = scan.clock
        fates.downtime[on], fates.reported[on] = half.downtime, half.reported
        fates.waiting[on] = half.waiting
        running = scan.clock + half.reported
        total = running + half.seconds
        unlimited = self.plain.only(index)
        self.pulling = Pulling(unlimited, half.normal, half.zero, running, half.seconds)
        rest = Rest(total, half.wire, half.wire, half.normal, half.zero, np.ones(len(index)))
        self._settle(index, rest)
        fates.completed[on] = total <= job.deadline
        self._drop(which)

    def repace_postcopy(self, at: float, limit: float | None) -> float:
        """Change the bandwidth limit of post-copy on its way; for a walk of one draw.

        Returns:
            The share of what was missing at the last change that has arrived by then.
        """
        if self.pulling is None or at >= self.fates.total[0]:
            return 1.0
        pulling = self.pulling
        share = float((at - pulling.since[0]) / max(float(pulling.seconds[0]), 1e-9))
        share = min(max(share, 0.0), 1.0)
        plain = limited(pulling.plain, limit)
        normal, zero = pulling.normal * (1 - share), pulling.zero * (1 - share)
        seconds = normal * plain.later.seconds + zero * plain.zero.seconds
        since = np.maximum(pulling.since, at)
        self.pulling = replace(pulling, normal=normal, zero=zero, since=since, seconds=seconds)
        self.fates.total[:] = since + seconds
        self.fates.completed[:] = self.fates.total <= self.job.deadline
        return share

    def _jitter(self) -> Floats:
        """Return by how many seconds the guest ran more or less in a pass than it lasted, (D,)."""
        chance = sum((self.phase(len(self.active)) for _ in range(3)), np.zeros(len(self.active)))
        # Three evenly spread numbers are nearly a normal one, of standard deviation 1/2.
        return JITTER * 2 * (chance - 1.5)

    def _draining(self, index: Ints) -> Floats:
        page, goodput = self._page(self.costs).only(index), self.draws.goodput[index]
        return draining(self.scan.only(index), self.begun[index], goodput, page, self.lead[index])

    def _page(self, costs_now: Costs) -> PageCost:
        if self.passes == 1:
            return costs_now.first
        if self.job.tuning.transport is Transport.RDMA:
            due = (self.scan.to_send + self.scan.sent).sum(axis=(1, 2))
            return resent(costs_now, self.found, due, self.job.survey.memory.pages)
        later = costs_now.later
        if self.job.tuning.xbzrle_cache is not None:
            later = blended(later, costs_now.difference, self._hits())
        # The end of memory, which the first pass left over, is as new as what it sent.
        return blended(later, costs_now.first, self.unsent) if self.unsent.any() else later

    def _hits(self) -> Floats:
        """Return the share of rewritten pages found in the XBZRLE cache, (D,)."""
        set_pages = np.maximum(self.draws.pages.sum(axis=1), 1.0)
        room = (self.job.tuning.xbzrle_cache or 0) / PAGE
        share: Floats = self.cached * np.minimum(1.0, room / set_pages)
        return share

    def _synchronise(self, pace: Pace) -> None:
        survey = self.job.survey
        slow = slowdown(self.throttle.level, survey.memory.busy_share)
        if self.passes > 1:
            # A page enters the cache when it is first sent again, not before (ram.c 1413).
            share = self.scan.sent.sum(axis=(1, 2)) / np.maximum(self.draws.pages.sum(axis=1), 1.0)
            self.cached = self.cached + np.minimum(share, 1.0) * (1 - self.cached)
        first, lasted = self.passes == 1, np.maximum(self.scan.clock - self.scan.began, 1e-9)
        slow = slow * np.maximum(0.0, 1 + self._jitter() / lasted)
        where = self.phase(len(self.active))
        unsent, _ = self.scan.missing
        scan, self.found = synchronise(self.layout, self.scan, slow, where)
        if first:
            scan, taken = called_free(self.layout, scan)
            self.found = self.found + taken
        with_content, _ = scan.missing
        self.unsent = unsent / np.maximum(with_content, 1.0) if first else np.zeros_like(unsent)
        self.dirty_rate = self.found * PAGE / lasted
        cost = survey.source.sync_seconds * survey.memory.total / GIB * self.draws.source_cost
        self.scan = replace(scan, clock=scan.clock + cost)
        if self.job.tuning.throttling:
            self.throttle = evaluated(self.throttle, self.scan, self.found)
        self._record(self.passes)
        self._decide(pace)

    def _decide(self, pace: Pace) -> None:
        threshold = pace.threshold(self.scan.bandwidth)
        left = self.scan.left
        done = left <= threshold if self.job.rules.completes_at_threshold else left < threshold
        # Everything sent before the first window has closed: QEMU stops without a threshold.
        done |= self.scan.bandwidth == 0
        switched = self._told_to_switch() & ~done
        stalled = np.zeros(len(done), dtype=np.bool_) if self.patient else self._stalled(threshold)
        stalled &= ~done & ~switched
        self._complete(done)
        self._extrapolate(stalled[~done])
        self.start_postcopy(switched[~done & ~stalled])

    def _told_to_switch(self) -> Flags:
        """Ask the control that also drives real moves, draw by draw, (D,)."""
        if self.job.tuning.postcopy in _NOT_BY_ITSELF or not self.job.controlled:
            return np.zeros(len(self.active), dtype=np.bool_)
        last = self.log[-1]
        for place, (draw, at, counted, remaining) in enumerate(
            zip(last.draws, last.at, last.counted, last.remaining, strict=True)
        ):
            control = self.controls[draw]
            control.hear(Pass(last.number, at, int(counted), int(remaining)))
            self.pulls_at[place] = control.pulls_at
        return self.scan.clock >= self.pulls_at

    def _stalled(self, threshold: Floats) -> Flags:
        ratio = self.scan.left / np.maximum(threshold, 1.0)
        better = (ratio < self.best.ratio * PROGRESS) | (self.passes <= WARM_UP)
        if self.job.tuning.throttling:
            better |= self.throttle.level < STRONGEST
        self.best = Best(
            ratio=np.where(better, ratio, self.best.ratio),
            streak=np.where(better, 0, self.best.streak + 1),
            clock=np.where(better, self.scan.clock, self.best.clock),
            wire=np.where(better, self.scan.wire, self.best.wire),
        )
        return self.best.streak >= PATIENCE

    def _complete(self, which: Flags) -> None:
        if not which.any():
            return
        job, index, on = self.job, np.flatnonzero(which), self.active[which]
        draws, scan = self.draws.only(index), self.scan.only(index)
        normal, zero = scan.missing
        lifted = self.costs.only(index)
        stop = switch_over(
            job.survey,
            draws,
            (self._page(self.costs).only(index), normal),
            (lifted.zero, zero),
            draining=self._draining(index),
            clears_log=job.rules.clears_log_when_stopped and job.rules.chunk_pages is not None,
            return_path=not job.tuning.as_qemu_comes,
        )
        fates = self.fates
        fates.stopped_at[on] = scan.clock
        fates.downtime[on], fates.reported[on] = stop.downtime, stop.reported
        total = scan.clock + stop.reported
        # QEMU synchronises once more when the guest has stopped, and counts it as a pass.
        self.log.append(PassLog(self.passes + 1, on, scan.clock, scan.counted, scan.left))
        passes = np.ones(len(index))
        self._settle(index, Rest(total, stop.wire, stop.counted, normal, zero, passes))
        fates.completed[on] = total <= job.deadline
        self._drop(which)

    def _extrapolate(self, which: Flags) -> None:
        """Let draws that make no progress run on as they did, to the deadline."""
        if not which.any():
            return
        index = np.flatnonzero(which)
        scan, best = self.scan.only(index), self.best.only(index)
        lasted = np.maximum(scan.clock - best.clock, 1e-9)
        ahead = np.maximum(self.job.deadline - scan.clock, 0.0) / lasted
        wire = (scan.wire - best.wire) * ahead
        rest = Rest.nothing(np.full(len(index), self.job.deadline))
        pages = wire / self._page(self.costs).only(index).wire
        more = replace(rest, wire=wire, counted=wire, normal=pages, passes=best.streak * ahead)
        self._settle(index, more)
        self._drop(which)

    def _give_up(self, which: Flags) -> None:
        if which.any():
            index = np.flatnonzero(which)
            self._settle(index, Rest.nothing(self.scan.clock[index]))
            self._drop(which)

    def _settle(self, index: Ints, rest: Rest) -> None:
        fates, on, scan = self.fates, self.active[index], self.scan.only(index)
        passes = scan.passes.astype(np.float64) + rest.passes
        frames = self._channel_syncs(passes, scan.clock)
        fates.total[on] = rest.total
        fates.wire[on] = scan.wire + rest.wire + frames
        fates.counted[on] = scan.counted + rest.counted + frames
        fates.normal[on], fates.zero[on] = scan.normal + rest.normal, scan.zero + rest.zero
        fates.passes[on] = passes
        fates.throttle[on] = self.throttle.level[index]

    def _channel_syncs(self, passes: Floats, clock: Floats) -> Floats:
        """Return the bytes by which multifd synchronises its channels (multifd.c 955), (D,)."""
        channels = self.job.tuning.channels
        if channels is None:
            return np.zeros(len(clock))
        times = passes if self.job.rules.flush_per_pass else clock / ITERATION
        return np.asarray(times * float(PACKET * channels))

    def _record(self, number: int) -> None:
        scan = self.scan
        self.log.append(PassLog(number, self.active, scan.clock, scan.counted, scan.left))

    def _drop(self, which: Flags) -> None:
        keep = np.flatnonzero(~which)
        self.active, self.scan = self.active[keep], self.scan.only(keep)
        self.draws, self.layout = self.draws.only(keep), self.layout.only(keep)
        self.costs, self.plain = self.costs.only(keep), self.plain.only(keep)
        self.throttle, self.best = self.throttle.only(keep), self.best.only(keep)
        self.begun, self.cached = self.begun[keep], self.cached[keep]
        self.lead = self.lead[keep]
        self.found, self.dirty_rate = self.found[keep], self.dirty_rate[keep]
        self.pulls_at, self.unsent = self.pulls_at[keep], self.unsent[keep]

"""One simulated move written down: what people, charts and the simulated hypervisor see."""

from dataclasses import dataclass, field, replace

import numpy as np

from whimbrel.model.migration import Observation, Pass, Phase, PhaseChange
from whimbrel.theory.layout import Layout
from whimbrel.theory.precopy import Pace, Scan, advance
from whimbrel.theory.walk import Walk

SAMPLES = 8
"""Points of the trace within one pass at most."""

SAMPLE_EVERY = 0.2
"""Seconds between them at least; shorter passes are straight enough."""


@dataclass
class Trace:
    """The observations of a walk of one draw, gathered as it goes.

    Attributes:
        points: In the order of time; straight lines lie between them.
    """

    points: list[Observation] = field(default_factory=list)

    def note(self, walk: Walk) -> None:
        """Add where the walk stands, unless it is over."""
        if len(walk.active):
            self.points.append(_seen(walk, walk.scan))

    def go(self, walk: Walk, until: float) -> None:
        """Let the walk make one step and add what would have been seen on the way."""
        layout, before, pace, first = walk.layout, walk.scan, walk.pace(), _seen(walk, walk.scan)
        walk.step(until)
        end = walk.scan.clock[0] if len(walk.active) else walk.fates.stopped_at[0]
        lasted = max(0.0, float(end - before.clock[0]))
        samples = min(SAMPLES, int(lasted / SAMPLE_EVERY) + 1)
        for at in before.clock[0] + lasted * np.arange(1, samples + 1) / samples:
            self.points.append(_after(first, layout, before, pace, float(at)))
        self.note(walk)


def _seen(walk: Walk, scan: Scan) -> Observation:
    bandwidth, left = float(scan.bandwidth[0]), float(scan.left[0])
    return Observation(
        at=float(scan.clock[0]),
        phase=Phase.PRECOPY,
        transferred=round(scan.counted[0]),
        remaining=round(left),
        total=walk.job.survey.memory.total,
        bandwidth=bandwidth,
        dirty_rate=float(walk.dirty_rate[0]),
        passes=int(scan.passes[0]),
        throttle=float(walk.throttle.level[0]),
        normal_pages=round(scan.normal[0]),
        zero_pages=round(scan.zero[0]),
        expected_downtime=left / bandwidth if bandwidth > 0 else None,
    )


def _after(first: Observation, layout: Layout, before: Scan, pace: Pace, at: float) -> Observation:
    scan, _ = advance(layout, before, pace, np.array([at]))
    return replace(
        first,
        at=float(scan.clock[0]),
        transferred=round(scan.counted[0]),
        remaining=round(scan.left[0]),
        bandwidth=float(scan.bandwidth[0]),
        normal_pages=round(scan.normal[0]),
        zero_pages=round(scan.zero[0]),
    )


def passes_of(walk: Walk) -> tuple[Pass, ...]:
    """Return the start of every pass of a walk of one draw."""
    return tuple(
        Pass(entry.number, float(entry.at[0]), round(entry.counted[0]), round(entry.remaining[0]))
        for entry in walk.log
    )


def phases_of(walk: Walk, cancelled: float | None) -> tuple[PhaseChange, ...]:
    """Return every phase of a walk of one draw; a move out of time just stops in pre-copy."""
    fates, begun = walk.fates, float(walk.begun_at)
    phases = [PhaseChange(Phase.SETUP, 0.0), PhaseChange(Phase.PRECOPY, begun)]
    stopped, total = float(fates.stopped_at[0]), float(fates.total[0])
    if cancelled is not None:
        phases += [
            PhaseChange(Phase.CANCELLING, cancelled),
            PhaseChange(Phase.CANCELLED, cancelled),
        ]
    elif fates.postcopy[0]:
        phases.append(PhaseChange(Phase.POSTCOPY, stopped + float(fates.reported[0])))
    elif fates.downtime[0] > 0:
        phases.append(PhaseChange(Phase.SWITCHOVER, stopped))
    if fates.completed[0]:
        phases.append(PhaseChange(Phase.COMPLETED, total))
    return tuple(phases)


def ending_of(
    walk: Walk, points: list[Observation], bends: list[tuple[float, float]]
) -> tuple[Observation, ...]:
    """Return what is seen of a walk of one draw from the moment its guest has stopped.

    Args:
        walk: The walk, at its end.
        points: What was seen before.
        bends: When the pace of post-copy changed, and the share of what was then missing
            that had arrived.
    """
    fates = walk.fates
    if not (fates.completed[0] or fates.postcopy[0]):
        return ()
    phase = Phase.POSTCOPY if fates.postcopy[0] else Phase.SWITCHOVER
    last = points[-1]
    entry = walk.log[-1]
    stopped = replace(
        last,
        at=float(fates.stopped_at[0]),
        phase=phase,
        passes=entry.number,
        remaining=round(entry.remaining[0]),
    )
    arrived = replace(
        stopped,
        at=float(fates.total[0]),
        transferred=round(fates.counted[0]),
        remaining=0,
        normal_pages=round(fates.normal[0]),
        zero_pages=round(fates.zero[0]),
    )
    if phase is Phase.SWITCHOVER:
        return stopped, arrived
    return _pulled(stopped, arrived, walk, bends)


def _pulled(
    stopped: Observation, arrived: Observation, walk: Walk, bends: list[tuple[float, float]]
) -> tuple[Observation, ...]:
    begun = replace(stopped, at=stopped.at + float(walk.fates.reported[0]))
    points = [stopped, begun]
    for at, share in bends:
        points.append(replace(_blend(points[-1], arrived, share), at=at))
    return (*points, arrived)


def _blend(first: Observation, second: Observation, share: float) -> Observation:
    def between(one: int, other: int) -> int:
        return round(one + share * (other - one))

    return replace(
        first,
        transferred=between(first.transferred, second.transferred),
        remaining=between(first.remaining, second.remaining),
        normal_pages=between(first.normal_pages, second.normal_pages),
        zero_pages=between(first.zero_pages, second.zero_pages),
    )


def observe(points: tuple[Observation, ...], at: float) -> Observation:
    """Return what would be seen at a moment, between two points of a trace or at its ends."""
    later = next((i for i, point in enumerate(points) if point.at > at), len(points))
    if later in {0, len(points)}:
        return replace(points[max(0, later - 1)], at=at)
    before, after = points[later - 1], points[later]
    share = (at - before.at) / (after.at - before.at)
    return replace(_blend(before, after, share), at=at)

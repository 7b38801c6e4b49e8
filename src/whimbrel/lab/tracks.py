"""Counters, observations and heartbeats of one run, over one time axis."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from whimbrel.lab.counters import Sample
from whimbrel.lab.heartbeat import Record
from whimbrel.model.migration import Observation
from whimbrel.model.scenario import Measure, Track

_GAP_STEP = 0.1
"""Seconds of time over which the longest heartbeat gap is kept: 200 beats a second are too many
for a chart, and only the longest says anything."""

_AFTERWARDS = 1.0
"""Seconds shown after a move, to see the guest run on; what the lab does then is no part of it."""


def tracks(
    samples: Sequence[Sample],
    observations: Sequence[Observation],
    record: Record,
    began: float,
    ended: float,
) -> tuple[Track, ...]:
    """Return everything that was counted from `began` until shortly after `ended`.

    Both are times of the monotonic clock; the tracks' times are seconds since `began`.
    """
    until = ended + _AFTERWARDS
    during = [sample for sample in samples if sample.time <= until]
    return (
        *_machine(during, began),
        *_interfaces(during, began),
        *_processes(during, began),
        *_hypervisor(observations),
        *_gaps(record, began, until),
    )


def _machine(samples: Sequence[Sample], began: float) -> list[Track]:
    if not samples:
        return []
    times = _times(samples, began)
    cores, nodes = range(len(samples[0].cores)), range(len(samples[0].nodes))
    return [
        *(
            _track(Measure.CPU_CORE, f"core {i}", times, [s.cores[i] for s in samples])
            for i in cores
        ),
        *(
            _track(Measure.CPU_NUMA, f"node {i}", times, [s.nodes[i] for s in samples])
            for i in nodes
        ),
    ]


def _interfaces(samples: Sequence[Sample], began: float) -> list[Track]:
    keys = sorted({key for sample in samples for key in sample.interfaces if key[1] != "lo"})
    found = []
    for host, interface in keys:
        for place, measure in ((1, Measure.SENT), (0, Measure.RECEIVED)):
            points = [
                (s.time - began, float(s.interfaces[host, interface][place]))
                for s in samples
                if (host, interface) in s.interfaces
            ]
            found.append(_rate(measure, f"host {host} {interface}", points))
    return found


def _processes(samples: Sequence[Sample], began: float) -> list[Track]:
    labels = sorted({label for sample in samples for label in sample.processes})
    found = []
    for label in labels:
        seen = [(s.time - began, s.processes[label]) for s in samples if label in s.processes]
        resident = [(at, float(p.resident)) for at, p in seen]
        found.append(_points(Measure.RESIDENT, f"host {label}", resident))
        found.append(
            _rate(Measure.CPU_HOST, f"host {label}", [(at, p.cpu.total) for at, p in seen])
        )
    return found


def _hypervisor(observations: Sequence[Observation]) -> list[Track]:
    figures: dict[Measure, Callable[[Observation], float]] = {
        Measure.REMAINING: lambda o: float(o.remaining),
        Measure.DIRTY_RATE: lambda o: o.dirty_rate,
        Measure.BANDWIDTH: lambda o: o.bandwidth,
    }
    times = tuple(o.at for o in observations)
    return [
        Track(measure, "QEMU", times, tuple(figure(o) for o in observations))
        for measure, figure in figures.items()
        if observations
    ]


def _gaps(record: Record, began: float, until: float) -> list[Track]:
    arrivals = np.asarray(record.arrivals)
    arrivals = arrivals[(arrivals >= began) & (arrivals <= until)] - began
    if arrivals.size < 2:  # noqa: PLR2004 - a gap lies between two beats
        return []
    ends, gaps = arrivals[1:], np.diff(arrivals)
    steps = (ends / _GAP_STEP).astype(int)
    first = np.flatnonzero(np.r_[True, np.diff(steps) > 0])
    longest = np.maximum.reduceat(gaps, first)
    return [_track(Measure.HEARTBEAT_GAP, "guest", tuple(ends[first].tolist()), longest.tolist())]


def _rate(measure: Measure, label: str, points: Sequence[tuple[float, float]]) -> Track:
    """Turn a counter that only grows into its rate between readings."""
    steps = [
        (later, (total - earlier_total) / (later - earlier))
        for (earlier, earlier_total), (later, total) in pairwise(points)
        if later > earlier
    ]
    return _points(measure, label, steps)


def _points(measure: Measure, label: str, points: Sequence[tuple[float, float]]) -> Track:
    return Track(measure, label, tuple(at for at, _ in points), tuple(value for _, value in points))


def _track(
    measure: Measure, label: str, times: tuple[float, ...], values: Sequence[float]
) -> Track:
    return Track(measure, label, times, tuple(values))


def _times(samples: Sequence[Sample], began: float) -> tuple[float, ...]:
    return tuple(sample.time - began for sample in samples)

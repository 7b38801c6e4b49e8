"""A synthetic result with the shape of a real one: every ending, every track."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from whimbrel.model.method import CLASSIC, Method, tuning_for
from whimbrel.model.migration import (
    Decision,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Interval, PassBand, Prediction, Verdict
from whimbrel.model.scenario import (
    Chosen,
    GuestCheck,
    GuestSpec,
    LabResult,
    LinkSpec,
    Load,
    MachineFacts,
    Measure,
    Observed,
    Run,
    Scenario,
    ScenarioResult,
    Track,
)
from whimbrel.model.units import GIB, MIB

Values = npt.NDArray[np.floating[Any]]

POSTCOPY = {Method.POSTCOPY, Method.POSTCOPY_PREEMPT}

MACHINE = MachineFacts(
    cpu="Intel(R) Xeon(R) Platinum 8175M CPU @ 2.50GHz",
    cores=2,
    numa_nodes=1,
    memory=24 * GIB,
    kernel="6.1.0-44-cloud-amd64",
    hypervisor="QEMU 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)",
    accelerator="tcg (no /dev/kvm here)",
    whimbrel="0.1.0",
    distribution="Debian GNU/Linux 12 (bookworm)",
    started="2026-03-12T14:05:09+01:00",
    command="./run lab scenarios/busy-database.toml",
)

# method: preparation, setup, total, reported, observed, wire bytes, passes
_FIGURES = {
    Method.QEMU_DEFAULT: (0.21, 0.012, 33.4, 0.021, 0.048, 3.74 * GIB, 4),
    Method.TCP: (0.62, 0.009, 31.2, 0.031, 0.052, 3.72 * GIB, 4),
    Method.MULTICHANNEL: (0.63, 0.014, 31.0, 0.018, 0.041, 3.70 * GIB, 4),
    Method.MULTINIC: (0.66, 0.011, 15.4, 0.041, 0.069, 3.71 * GIB, 4),
    Method.ENCRYPTED: (0.68, 0.019, 32.2, 0.043, 0.073, 3.74 * GIB, 4),
    Method.COMPRESSED: (0.64, 0.016, 11.8, 0.044, 0.071, 0.93 * GIB, 3),
    Method.XBZRLE: (0.66, 0.011, 33.9, 0.020, 0.055, 3.9 * GIB, 5),
    Method.AUTO_CONVERGE: (0.61, 0.010, 38.1, 0.120, 0.160, 4.4 * GIB, 9),
    Method.POSTCOPY: (0.19, 0.010, 30.6, 0.006, 0.420, 3.66 * GIB, 2),
    Method.POSTCOPY_PREEMPT: (0.19, 0.010, 30.5, 0.0, 0.110, 3.67 * GIB, 2),
    Method.AUTO: (0.64, 0.015, 11.7, 0.040, 0.068, 0.93 * GIB, 3),
}


def scenario(methods: tuple[Method, ...] = CLASSIC, nics: int = 1) -> Scenario:
    load = Load(hot=200 * MIB, dirty_rate=50.0 * MIB)
    return Scenario(
        name="busy database",
        methods=methods,
        guest=GuestSpec(redline=load),
        link=LinkSpec(count=nics),
    )


def completed(
    method: Method, repeat: int = 1, nics: int = 1, cores: int = 2, step: float = 0.1
) -> Run:
    """A run of `method`; each repeat differs by a per cent or two."""
    preparation, setup, total, reported, observed, wire, passes = _FIGURES[method]
    total *= 1 + 0.015 * (repeat - 1)
    wall = preparation + total + 0.03
    phases = _phases(method, preparation, wall)
    starts = _passes(passes, preparation, wall)
    return Run(
        method=method,
        tuning=tuning_for(method, Scenario().settings),
        repeat=repeat,
        ending=Ending.COMPLETED,
        source="a" if repeat % 2 else "b",
        observed=Observed(
            wall_time=wall,
            arrival_time=wall * 0.9 if method in POSTCOPY else wall,
            preparation_time=preparation,
            total_time=total,
            setup_time=setup,
            downtime_reported=reported,
            downtime_observed=observed,
            longest_gap=observed + 0.005,
            wire_bytes=round(wire),
            qemu_bytes=round(wire * 0.96),
            passes=passes,
            source_cpu_seconds=9.1 + total / 4,
            destination_cpu_seconds=6.3,
            source_cpu_by_class={"vcpu": 4.2, "main": 1.1, "migration": 3.8},
            destination_cpu_by_class={"main": 6.3},
            throttle_max=0.4 if method is Method.AUTO_CONVERGE else 0.0,
            dirty_rate_before=49.2 * MIB,
        ),
        guest=GuestCheck(intact=True, pages_checked=917504),
        predicted=predicted(method, total, observed, wire, passes),
        pucker=0.8,
        chosen=CHOSEN if method is Method.AUTO else None,
        passes=starts,
        phases=phases,
        decisions=_decisions(method, starts),
        tracks=_tracks(
            wall,
            preparation,
            starts,
            nics=nics,
            cores=cores,
            step=step,
            rate=wire / total,
            gap=observed,
        ),
    )


CHOSEN = Chosen(
    Method.COMPRESSED,
    ("compressed: 11.6 s", "tcp: 31.2 s, slower"),
    ("pre-copy: 99% likely", "post-copy: guaranteed, at most 50 s in all <of it>"),
    ("With post-copy allowed it would be sure to complete.",),
)


def predicted(
    method: Method, total: float, downtime: float, wire: float, passes: int
) -> Prediction:
    """What was said of it: a few per cent beside what came."""

    def about(value: float) -> Interval:
        return Interval(0.93 * value, 1.02 * value, 1.1 * value)

    none = Interval(0.0, 0.0, 0.0)
    return Prediction(
        tuning=tuning_for(method, Scenario().settings),
        deadline=120.0,
        completion_probability=0.99,
        verdict=Verdict.GO,
        total_time=about(total),
        downtime=about(downtime),
        wire_bytes=about(wire),
        passes=about(passes),
        throttle=none,
        source_cpu_seconds=about(9.0),
        destination_cpu_seconds=about(6.0),
        preparation_time=about(0.6),
        fault_seconds=none,
        band=(PassBand(1, 1.0, about(0.1), about(wire)), PassBand(2, 0.9, about(total), none)),
    )


def unavailable(method: Method = Method.RDMA) -> Run:
    reason = "this QEMU lacks rdma at both hosts"
    return Run(method, None, 1, Ending.NOT_AVAILABLE, reason)


def timed_out(method: Method, repeat: int = 1) -> Run:
    run = completed(method, repeat)
    reason = "50 MiB/s are dirtied, 112 MiB/s can be sent, and compression does not help"
    seen = replace(run.observed, wall_time=121.0, downtime_reported=None, downtime_observed=None)
    return replace(run, ending=Ending.TIMEOUT, reason=reason, observed=seen)


def failed(method: Method, repeat: int = 1) -> Run:
    reason = "QEMU said: Unable to write to socket: Broken pipe | <host b>"
    return Run(method, None, repeat, Ending.FAILED, reason, source="a")


def result(nics: int = 1, repeats: int = 1, cores: int = 2) -> LabResult:
    """The classic methods: all complete but RDMA."""
    asked = replace(scenario(nics=nics), repeats=repeats)
    runs = [
        completed(method, repeat, nics, cores)
        for repeat in range(1, repeats + 1)
        for method in CLASSIC
        if method is not Method.RDMA
    ]
    return LabResult(MACHINE, (ScenarioResult(asked, (*runs, unavailable())),))


def one(method: Method, repeat: int) -> Run:
    """A run that ends as this method's runs do in `every_method`."""
    if method is Method.RDMA:
        return unavailable()
    if method is Method.XBZRLE:
        return failed(method, repeat)
    if method is Method.AUTO_CONVERGE:
        return timed_out(method, repeat)
    return completed(method, repeat)


def every_method(repeats: int = 1) -> LabResult:
    """All nine methods, with a failure, a timeout and one that is not available."""
    asked = replace(scenario(tuple(Method)), repeats=repeats)
    runs = [one(method, repeat) for repeat in range(1, repeats + 1) for method in Method]
    return LabResult(MACHINE, (ScenarioResult(asked, tuple(runs)),))


def _phases(method: Method, preparation: float, wall: float) -> tuple[PhaseChange, ...]:
    middle = (Phase.POSTCOPY, wall * 0.9) if method in POSTCOPY else (Phase.SWITCHOVER, wall - 0.06)
    steps = (
        (Phase.IDLE, 0.0),
        (Phase.SETUP, preparation),
        (Phase.PRECOPY, preparation + 0.02),
        middle,
        (Phase.COMPLETED, wall),
    )
    return tuple(PhaseChange(phase, at) for phase, at in steps)


def _passes(count: int, preparation: float, wall: float) -> tuple[Pass, ...]:
    sizes = [3700 * MIB * 0.16**number for number in range(count)]
    shares = np.concatenate([[0.0], np.cumsum(sizes)]) / sum(sizes)
    length = wall - preparation - 0.1
    return tuple(
        Pass(
            number + 1,
            float(preparation + 0.03 + shares[number] * length),
            round(float(shares[number]) * 3700 * MIB),
            round(sizes[number]),
        )
        for number in range(count)
    )


def _decisions(method: Method, passes: tuple[Pass, ...]) -> tuple[Decision, ...]:
    if method is Method.POSTCOPY:
        return (Decision(StartPostcopy(), "the first pass has ended", passes[1].at),)
    return (Decision(SetDowntimeLimit(0.5), "24 MiB are left, 112 MiB/s are sent", passes[-1].at),)


def _tracks(
    wall: float,
    preparation: float,
    passes: tuple[Pass, ...],
    *,
    nics: int,
    cores: int,
    step: float,
    rate: float,
    gap: float,
) -> tuple[Track, ...]:
    noise = np.random.default_rng(7)
    times = np.arange(0, wall + 1, step)
    moving = (times > preparation) & (times < wall)

    def track(measure: Measure, label: str, values: Values) -> Track:
        clean = np.clip(values, 0, None)
        return Track(measure, label, tuple(times.tolist()), tuple(clean.tolist()))

    def rough(level: float | Values, size: float) -> Values:
        return level + noise.normal(0, size, len(times))

    starts = np.array([p.at for p in passes])
    sizes = np.array([p.remaining for p in passes], dtype=float)
    index = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    ends = np.append(starts[1:], wall)
    left = sizes[index] * (ends[index] - times) / (ends[index] - starts[index])
    left = np.where(moving, np.clip(left, 0, None), 0)
    share = np.clip(rough(1, 0.015), 0, 1.05)
    tracks = [
        *(
            track(Measure.CPU_CORE, f"core {core}", np.clip(rough(0.25 + 0.5 * moving, 0.12), 0, 1))
            for core in range(cores)
        ),
        track(Measure.CPU_NUMA, "node 0", np.clip(rough(0.3 + 0.4 * moving, 0.05), 0, 1)),
        track(Measure.CPU_HOST, "host a", rough(0.35, 0.03) + 0.62 * moving * share),
        track(Measure.CPU_HOST, "host b", rough(0.05, 0.02) + 0.45 * moving * share),
        track(Measure.RESIDENT, "host a", np.where(times < wall, 3.72 * GIB, 0.04 * GIB)),
        track(
            Measure.RESIDENT,
            "host b",
            0.05 * GIB + 3.7 * GIB * np.clip((times - preparation) / (wall - preparation), 0, 1),
        ),
        track(Measure.REMAINING, "QEMU", left),
        track(Measure.DIRTY_RATE, "QEMU", rough(50 * MIB, 2 * MIB) * (index > 0) * moving),
        track(Measure.BANDWIDTH, "QEMU", rate * share * moving),
    ]
    for nic in range(nics):
        flow = rate / nics * share * moving
        tracks += [
            track(Measure.SENT, f"host a wire{nic}", flow),
            track(Measure.RECEIVED, f"host b wire{nic}", flow),
            track(Measure.SENT, f"host b wire{nic}", flow * 0.01),
            track(Measure.RECEIVED, f"host a wire{nic}", flow * 0.01),
        ]
    return (*tracks, _heartbeat(wall, gap))


def _heartbeat(wall: float, gap: float) -> Track:
    beats = np.arange(0, wall + 1, 0.005)
    gaps = 0.005 + np.abs(np.random.default_rng(3).normal(0, 0.0015, len(beats)))
    gaps[np.searchsorted(beats, wall)] = gap
    measure = Measure.HEARTBEAT_GAP
    return Track(measure, "guest", tuple(beats.tolist()), tuple(gaps.tolist()))

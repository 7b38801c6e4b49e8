"""One move, measured: what the hypervisor says, and what is seen from outside.

Each figure's meaning and its pitfalls stand in docs/measures.md.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from whimbrel.errors import HostError, LabError
from whimbrel.lab.audience import Audience
from whimbrel.lab.counters import CpuTimes, interface_bytes, process_cpu
from whimbrel.lab.forecast import Said
from whimbrel.lab.guests import Guest, beat_label, checked
from whimbrel.lab.heartbeat import Record, gap_across_switchover, longest_gap
from whimbrel.lab.image import BEAT_PORT
from whimbrel.lab.plan import Planned
from whimbrel.lab.stage import End, Stage
from whimbrel.lab.tracks import tracks
from whimbrel.model.migration import ENDS, Decision, Event, PhaseChange, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.scenario import Observed, Run
from whimbrel.ports import Machine
from whimbrel.practice.encryption import new_key
from whimbrel.practice.move import Moved, Request

BEAT_WITHIN = 10.0
"""Seconds in which a guest that has arrived must be heard."""


class _Readings:
    """Takes the counters at the moments that count; a `practice.move.Watcher`."""

    def __init__(self, stage: Stage, guest: Guest, audience: Audience) -> None:
        self._stage = stage
        self._audience = audience
        self._guest = guest
        self.reception: Machine | None = None
        self.began = time.monotonic()
        self._sent_before = _sent(guest.end)
        self._sent_after: int | None = None
        self._ended = 0.0
        self._cpu_before = _cpu(guest.machine)
        self._cpu_after: CpuTimes | None = None
        self._cpu_there: CpuTimes | None = None

    def prepared(self, machine: Machine) -> None:
        """See `Watcher.prepared`."""
        self.reception = machine
        there = self._stage.other(self._guest.end)
        self._stage.beats.add(beat_label(machine), machine.channel(BEAT_PORT))
        if machine.pid is not None:
            self._stage.counters.watch_process(there.name, machine.pid)

    def happened(self, event: Event) -> None:
        """See `Watcher.happened`; the source's process ends soon after its last event."""
        if isinstance(event, PhaseChange) and event.phase in ENDS:
            self._ended = time.monotonic()
            self._sent_after = _sent(self._guest.end)
            self._cpu_after = _cpu(self._guest.machine)
            self._cpu_there = _cpu(self.reception) if self.reception else None
        self._audience.happened(event)

    def decided(self, decision: Decision) -> None:
        """See `Watcher.decided`."""
        self._audience.decided(decision)

    def arrived(self, machine: Machine) -> None:
        """See `Watcher.arrived`."""

    def observed(self, outcome: Outcome, record: Record, dirty_rate: float | None) -> Observed:
        """Put all figures together."""
        completed = outcome.ending is Ending.COMPLETED
        there = self._stage.other(self._guest.end)
        return Observed(
            wall_time=outcome.wall_time,
            arrival_time=outcome.arrival_time,
            preparation_time=outcome.preparation_time,
            total_time=outcome.total_time,
            setup_time=outcome.setup_time,
            downtime_reported=outcome.downtime_reported,
            downtime_expected=outcome.downtime_expected,
            downtime_observed=self._gap(record) if completed else None,
            longest_gap=longest_gap(record, self.began, time.monotonic()),
            wire_bytes=None if self._sent_after is None else self._sent_after - self._sent_before,
            qemu_bytes=outcome.hypervisor_bytes,
            passes=outcome.pass_count,
            source_cpu_seconds=_difference(self._cpu_before, self._cpu_after),
            destination_cpu_seconds=self._cpu_there.total if self._cpu_there else None,
            source_cpu_by_class=self._by_class(self._guest.end, from_birth=False),
            destination_cpu_by_class=self._by_class(there, from_birth=True),
            throttle_max=outcome.throttle_max,
            dirty_rate_before=dirty_rate,
        )

    def _by_class(self, end: End, *, from_birth: bool) -> dict[str, float]:
        """Return CPU seconds by the work of threads, from the samples.

        Most threads of a move have ended when it is over; the sampler saw them live.
        """
        during = [s for s in self._stage.counters.samples if s.time <= self._ended]
        seen = [s.processes[end.name].cpu.by_class for s in during if end.name in s.processes]
        if not seen:
            return {}
        before = {} if from_birth else seen[0]
        return {kind.value: used - before.get(kind, 0.0) for kind, used in seen[-1].items()}

    def _gap(self, record: Record) -> float | None:
        if self.reception is None:
            return None
        return gap_across_switchover(record, self._guest.label, beat_label(self.reception))


@dataclass(frozen=True)
class Measured:
    """A run, and the guest after it (None: it has to be booted anew)."""

    run: Run
    guest: Guest | None


async def measured_move(
    stage: Stage,
    guest: Guest,
    planned: Planned,
    deadline: float,
    audience: Audience,
    *,
    said: Said | None = None,
) -> Measured:
    """Move the guest to the other host and measure it; failures become the run's ending.

    Args:
        stage: Where.
        guest: What is moved.
        planned: How.
        deadline: Seconds after which it is given up.
        audience: Who is told on the way.
        said: What was said of this very attempt; the guard goes by it. None: nothing.
    """
    dirty_rate = await guest.dirty_rate() if guest.load.dirty_rate else 0.0
    stage.counters.samples.clear()
    if guest.machine.pid is not None:
        stage.counters.watch_process(guest.end.name, guest.machine.pid)
    await stage.warm.release()
    readings = _Readings(stage, guest, audience)
    request = _request(stage, guest, planned, deadline, said)
    moved = await _moved(request, readings, planned, stage, guest.end)
    ended = time.monotonic()
    await stage.warm.hold()
    after = await _after(stage, guest, moved, readings)
    check, problem = await checked(after, audience)
    record = stage.beats.record()
    _forget(stage, guest, after, readings)
    outcome = moved.outcome
    damaged = check is not None and not check.intact
    run = Run(
        method=planned.method,
        tuning=planned.tuning,
        repeat=planned.repeat,
        ending=Ending.FAILED if damaged or problem else outcome.ending,
        reason="the guest found its memory damaged" if damaged else problem or outcome.reason,
        observed=readings.observed(outcome, record, dirty_rate),
        guest=check,
        source=guest.end.name,
        passes=outcome.passes,
        phases=outcome.phases,
        decisions=outcome.decisions,
        tracks=tracks(stage.counters.samples, outcome.observations, record, readings.began, ended),
    )
    if after is not None and (damaged or problem):
        await after.machine.stop()
        after = None
    return Measured(run, after)


def _request(
    stage: Stage, guest: Guest, planned: Planned, deadline: float, said: Said | None
) -> Request:
    there = stage.other(guest.end)
    address = stage.address(there)
    if planned.tuning.encrypted:
        address = replace(address, key=new_key())
    request = Request(
        source=guest.end.hypervisor,
        machine=guest.machine,
        destination=there.hypervisor,
        address=address,
        tuning=planned.tuning,
        timeout=deadline,
    )
    if said is None or said.policy is None:
        return request
    return replace(
        request,
        policy=said.policy,
        certificate=said.certificate,
        prediction=said.prediction,
    )


async def _moved(
    request: Request, readings: _Readings, planned: Planned, stage: Stage, end: End
) -> Moved:
    try:
        return await planned.carry(request, readings, stage, end)
    except HostError as error:
        # Nothing was sent: the guest runs where it was.
        return Moved(Outcome(Ending.FAILED, error.what, Side.SOURCE), request.machine)


async def _after(stage: Stage, guest: Guest, moved: Moved, readings: _Readings) -> Guest | None:
    """Return the guest where it is now; when it is lost, end what is left of it."""
    if moved.machine is None:
        for machine in (guest.machine, readings.reception):
            if machine is not None:
                await machine.stop()
        return None
    if moved.machine is guest.machine:
        return guest
    arrived = Guest(moved.machine, stage.other(guest.end), guest.load)
    await asyncio.to_thread(stage.beats.wait_for_beat, arrived.label, BEAT_WITHIN)
    return arrived


def _forget(stage: Stage, before: Guest, after: Guest | None, readings: _Readings) -> None:
    machines = [before.machine, *([readings.reception] if readings.reception else [])]
    for machine in machines:
        if after is None or machine is not after.machine:
            stage.beats.remove(beat_label(machine))
    for end in (stage.a, stage.b):
        stage.counters.forget(end.name)


def _sent(end: End) -> int:
    return sum(sent for _, sent in _links(end).values())


def _links(end: End) -> Mapping[str, tuple[int, int]]:
    counted = interface_bytes(end.host)
    return {name: figures for name, figures in counted.items() if name in end.host.interfaces}


def _cpu(machine: Machine) -> CpuTimes | None:
    try:
        return process_cpu(machine.pid) if machine.pid is not None else None
    except LabError:
        return None  # it has ended; what it used is not known any more


def _difference(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    return None if before is None or after is None else after.total - before.total

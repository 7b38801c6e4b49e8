"""One move between two emulated hosts: surveyed and predicted, conducted, measured, verified."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.errors import HostError, PlaceUnknown, WhimbrelError
from whimbrel.lab.audience import Audience
from whimbrel.lab.counters import Sample
from whimbrel.lab.guests import checked
from whimbrel.lab.heartbeat import Record, gap_across_switchover, longest_gap
from whimbrel.lab.image import BEAT_PORT
from whimbrel.lab.nested.stage import (
    VM_NAME,
    NestedEnd,
    NestedGuest,
    NestedStage,
    beat_label,
    sampled,
)
from whimbrel.lab.plan import Planned
from whimbrel.lab.tracks import tracks
from whimbrel.model.migration import Decision, Event, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.prediction import Prediction
from whimbrel.model.scenario import Observed, Run, Scenario
from whimbrel.model.units import format_size
from whimbrel.ports import Machine
from whimbrel.practice.move import Moved, Request, move
from whimbrel.practice.survey import Subject, survey
from whimbrel.practice.survey_site import SiteHost, SiteLink
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import predict

BEAT_WITHIN = 30.0
"""Seconds in which a guest that has arrived must be heard."""


@dataclass(frozen=True)
class Foretold:
    """What was said of a move, and how long it took to look."""

    prediction: Prediction
    looked: float


@dataclass(frozen=True)
class NestedMeasured:
    """A run, and the guest after it (None: it has to be booted anew)."""

    run: Run
    guest: NestedGuest | None


class _Watching:
    """Hears the guest at its destination; a `practice.move.Watcher`."""

    def __init__(
        self, stage: NestedStage, there: NestedEnd, audience: Audience, pids: dict[str, int]
    ) -> None:
        self._stage, self._there, self._audience, self._pids = stage, there, audience, pids
        self.reception: Machine | None = None

    @property
    def label(self) -> str:
        """What the guest's heartbeat is called at the destination."""
        return beat_label(self._there, self.reception) if self.reception else ""

    def prepared(self, machine: Machine) -> None:
        """See `Watcher.prepared`."""
        self.reception = machine
        self._stage.beats.add(self.label, machine.channel(BEAT_PORT))
        if machine.pid is not None:
            self._pids[self._there.name] = machine.pid

    def happened(self, event: Event) -> None:
        """See `Watcher.happened`."""
        self._audience.happened(event)

    def decided(self, decision: Decision) -> None:
        """See `Watcher.decided`."""
        self._audience.decided(decision)

    def arrived(self, machine: Machine) -> None:
        """See `Watcher.arrived`."""


async def foretell(
    stage: NestedStage, guest: NestedGuest, planned: Planned, scenario: Scenario
) -> Foretold | None:
    """Survey guest, hosts and wires, and say what the move will do; None without a survey.

    Raises:
        HostError: The guest or a host cannot be looked at.
    """
    if scenario.survey is None:
        return None
    here, there = guest.end, stage.other(guest.end)
    channels = planned.tuning.channels
    subject = Subject(
        guest.machine.inspection(),
        await SiteLink.between(here.site, there.site, there.address(scenario.link).host),
        SiteHost(here.site),
        SiteHost(there.site),
        streams=(1,) if channels is None else (channels, 1),
        compressions=(scenario.settings.compression,),
    )
    generator = np.random.default_rng(planned.number)
    surveyed = await survey(subject, scenario.survey, generator=generator)
    version = (await here.hypervisor.abilities()).version
    rules = QemuRules.named(version, guest.machine.vm.accelerator)
    prediction = await asyncio.to_thread(
        predict,
        surveyed.survey,
        planned.tuning,
        rules,
        generator=generator,
        deadline=scenario.timeout,
    )
    return Foretold(prediction, surveyed.duration)


async def nested_move(
    stage: NestedStage,
    guest: NestedGuest,
    planned: Planned,
    scenario: Scenario,
    audience: Audience,
) -> NestedMeasured:
    """Move the guest to the other host and measure it; failures become the run's ending."""
    said = await _said(stage, guest, planned, scenario, audience)
    here, there = guest.end, stage.other(guest.end)
    pids = {} if guest.machine.pid is None else {here.name: guest.machine.pid}
    watching = _Watching(stage, there, audience, pids)
    before = await here.sent()
    async with sampled(stage, pids) as samples:
        began = time.monotonic()
        moved = await _moved(guest, there, planned, scenario, watching)
        ended = time.monotonic()
    carried = _difference(before, await here.sent())
    after = await _after(stage, guest, moved, watching)
    check, problem = await checked(after, audience)
    record = stage.beats.record()
    gap = gap_across_switchover(record, guest.label, watching.label)
    seen = _Seen((here.name, there.name), began, ended, carried, samples, record, gap)
    run = _run(planned, moved.outcome, seen)
    run = replace(run, guest=check, source=here.name)
    if said is not None:
        run = replace(run, predicted=said.prediction, survey_time=said.looked)
    if problem or (check is not None and not check.intact):
        reason = problem or "the guest found its memory damaged"
        run = replace(run, ending=Ending.FAILED, reason=reason)
        await remove(stage, after)
        after = None
    if scenario.link.team:
        audience.says(f"    {_spread(carried)}")
    return NestedMeasured(run, after)


async def remove(stage: NestedStage, guest: NestedGuest | None) -> None:
    """End whatever is left of the guest on either host."""
    if guest is not None:
        stage.beats.remove(guest.label)
    for end in (stage.a, stage.b):
        await end.hypervisor.remove(VM_NAME)


@dataclass(frozen=True)
class _Seen:
    """What was counted while a guest moved.

    Attributes:
        hosts: From where to where.
        began: When the move was asked for, on the monotonic clock.
        ended: When it was over.
        carried: Bytes that each of the source's wires has sent.
        samples: The counters of both hosts.
        record: The guest's heartbeat.
        gap: Seconds between its last beat at the source and its first at the destination; None
            where either was not heard.
    """

    hosts: tuple[str, str]
    began: float
    ended: float
    carried: Mapping[str, int]
    samples: Sequence[Sample]
    record: Record
    gap: float | None


async def _said(
    stage: NestedStage,
    guest: NestedGuest,
    planned: Planned,
    scenario: Scenario,
    audience: Audience,
) -> Foretold | None:
    """Say what the move will do; a survey that fails costs the prediction, not the move."""
    audience.works("surveying the guest, the wires and the hosts", 0.0)
    try:
        said = await foretell(stage, guest, planned, scenario)
    except WhimbrelError as error:
        audience.says(f"    not predicted: {error.what}")
        return None
    if said is not None:
        audience.foreseen(said.prediction)
    return said


async def _moved(
    guest: NestedGuest, there: NestedEnd, planned: Planned, scenario: Scenario, watching: _Watching
) -> Moved:
    request = Request(
        source=guest.end.hypervisor,
        machine=guest.machine,
        destination=there.hypervisor,
        address=there.address(scenario.link),
        tuning=planned.tuning,
        timeout=scenario.timeout,
    )
    try:
        return await move(request, watching)
    except HostError as error:
        # Nothing was sent: the guest runs where it was.
        return Moved(Outcome(Ending.FAILED, error.what, Side.SOURCE), guest.machine)
    except PlaceUnknown as error:
        return Moved(Outcome(Ending.FAILED, error.what, None), None)


async def _after(
    stage: NestedStage, guest: NestedGuest, moved: Moved, watching: _Watching
) -> NestedGuest | None:
    """Return the guest where it is now; when it is lost, end what is left of it."""
    if moved.machine is None:
        await remove(stage, guest)
        return None
    if moved.machine is guest.machine:
        if watching.label:
            stage.beats.remove(watching.label)
        return guest
    stage.beats.remove(guest.label)
    arrived = NestedGuest(moved.machine, stage.other(guest.end), guest.load)
    await asyncio.to_thread(stage.beats.wait_for_beat, arrived.label, BEAT_WITHIN)
    return arrived


def _run(planned: Planned, outcome: Outcome, seen: _Seen) -> Run:
    completed = outcome.ending is Ending.COMPLETED
    observed = Observed(
        wall_time=outcome.wall_time,
        arrival_time=outcome.arrival_time,
        preparation_time=outcome.preparation_time,
        total_time=outcome.total_time,
        setup_time=outcome.setup_time,
        downtime_reported=outcome.downtime_reported,
        downtime_expected=outcome.downtime_expected,
        downtime_observed=seen.gap if completed else None,
        longest_gap=longest_gap(seen.record, seen.began, seen.ended),
        wire_bytes=sum(seen.carried.values()),
        qemu_bytes=outcome.hypervisor_bytes,
        passes=outcome.pass_count,
        throttle_max=outcome.throttle_max,
        source_cpu_seconds=_used(seen.samples, seen.hosts[0]),
        destination_cpu_seconds=_used(seen.samples, seen.hosts[1], from_birth=True),
    )
    return Run(
        method=planned.method,
        tuning=planned.tuning,
        repeat=planned.repeat,
        ending=outcome.ending,
        reason=outcome.reason,
        observed=observed,
        passes=outcome.passes,
        phases=outcome.phases,
        decisions=outcome.decisions,
        tracks=tracks(seen.samples, outcome.observations, seen.record, seen.began, seen.ended),
        preset=planned.preset,
    )


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: after[name] - sent for name, sent in before.items() if name in after}


def _used(samples: Sequence[Sample], host: str, *, from_birth: bool = False) -> float | None:
    """Return the CPU seconds that the guest's QEMU on a host has used; None: it was not seen."""
    used = [each.processes[host].cpu.total for each in samples if host in each.processes]
    return used[-1] - (0.0 if from_birth else used[0]) if used else None


def _spread(carried: Mapping[str, int]) -> str:
    """Say what each wire has sent: "eth1 sent 20.1 MiB, eth2 19.8 MiB"."""
    return "sent: " + ", ".join(f"{name} {format_size(size)}" for name, size in carried.items())

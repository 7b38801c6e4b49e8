"""What is said of a real move before it begins: a survey, what past moves teach, and a plan.

    survey of guest, link, hosts ──► corrected by past moves ──► theory.planning ──► Foreseen
                                     bands widened likewise

Every figure comes from before the move it speaks of. Nothing is changed on either host, and the
guest is not disturbed (docs/survey.md).
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whimbrel.model.inventory import Capability
from whimbrel.model.memory import LinkProfile, Survey
from whimbrel.model.method import ACCELERATORS, Compression, Method, Settings
from whimbrel.model.plan import Forecast, Plan, Rejection, Wish
from whimbrel.model.record import MoveRecord
from whimbrel.model.storage import DiskLoad, StoragePrediction
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.ports import Hypervisor, Machine
from whimbrel.practice.storage_places import DiskCopy
from whimbrel.practice.storage_survey import disk_loads
from whimbrel.practice.survey import COMPRESSIONS, HIGHER, HostProbe, LinkProbe, Subject, survey
from whimbrel.theory.calibrate import LAST, learnt
from whimbrel.theory.copy_pace import copy_pace
from whimbrel.theory.planning import plan_move
from whimbrel.theory.pucker import headroom_left
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.situation import Earlier, Situation
from whimbrel.theory.storage import predict_storage, rate_for_memory
from whimbrel.theory.widening import widened, widening_for

TOLERATED = 1.0
"""Seconds of standing still that a guest's clients are taken to tolerate: vMotion's goal is
0.5 s, and a TCP peer first retransmits after 1 s (RFC 6298)."""

SHORTEST = 1.0
"""Seconds that memory is given in any case; what completes in none is refused by its own plan."""

STREAMS = (1, 2)
"""Numbers of streams that the link is probed with."""


@dataclass(frozen=True)
class Outset:
    """Everything that a forecast is made from.

    Attributes:
        machine: The guest's machine at the source.
        source: The host it runs on.
        destination: The host it shall run on.
        here: Probes the source.
        there: Probes the destination.
        link: Probes the migration network; None: `assumed` stands for it.
        assumed: What the link is taken for where it is not probed.
        version: The source's QEMU as it prints its version.
        settings: What a person set for all methods.
        wish: What is wanted, and the limits.
        method: The one that a person named; `auto` weighs all.
        depth: How deep to survey.
        past: Moves that are over, in the order of time.
        earlier: What was seen of this guest before.
        tolerance: Seconds of standing still that its clients tolerate.
        copies: Disks that are copied beforehand, over the same link.
        together: Probes all NICs that both hosts share at once; None: there is one.
        barred: Methods that a check keeps out, and why.
        afar: Whether only its hypervisor leads to the guest.
        taken: What is taken for granted rather than measured, a sentence each.
    """

    machine: Machine
    source: Hypervisor
    destination: Hypervisor
    here: HostProbe
    there: HostProbe
    link: LinkProbe | None
    version: str
    wish: Wish
    settings: Settings = Settings()
    method: Method = Method.AUTO
    depth: Depth = Depth.DEFAULT
    assumed: LinkProfile = field(default_factory=lambda: LinkProfile({1: 1.25e8}, error=0.5))
    past: Sequence[MoveRecord] = ()
    earlier: Sequence[Earlier] = ()
    tolerance: float = TOLERATED
    copies: Sequence[DiskCopy] = ()
    together: LinkProbe | None = None
    barred: Sequence[Rejection] = ()
    afar: bool = False
    taken: Sequence[str] = ()


@dataclass(frozen=True)
class Foreseen:
    """What was found and said.

    Attributes:
        surveyed: As it was measured, uncorrected.
        situation: What the plan was made from.
        plan: The plan for memory; the intervals of its chosen way are as wide as past errors
            ask for. Where disks are copied beforehand, the wished time is what they leave of it.
        storage: What copying the disks will do; None where none is copied.
    """

    surveyed: Surveyed
    situation: Situation
    plan: Plan
    storage: StoragePrediction | None = None


def compressions(
    settings: Settings, depth: Depth, common: frozenset[Capability]
) -> tuple[Compression, ...]:
    """Return what a survey measures: the usual codecs, what was set, and accelerators.

    Args:
        settings: What holds for every method.
        depth: How much time there is.
        common: What both hosts can do: accelerators that one of them lacks are left out.
    """
    higher = () if depth is Depth.QUICK else HIGHER
    fast = tuple(Compression(each) for each in ACCELERATORS if each.capability in common)
    return tuple(dict.fromkeys((settings.compression, *COMPRESSIONS, *fast, *higher)))


async def foresee(outset: Outset, generator: np.random.Generator) -> Foreseen:
    """Survey, predict and plan one move.

    Args:
        outset: The guest, the hosts and the wish.
        generator: The only source of randomness.

    Raises:
        HostError: A host cannot be reached, or the guest can neither be looked into nor counted.
    """
    channels = (*STREAMS, outset.settings.channels)
    here, there = await asyncio.gather(
        outset.source.capabilities(), outset.destination.capabilities()
    )
    subject = Subject(
        outset.machine.inspection(),
        outset.link,
        outset.here,
        outset.there,
        assumed_link=outset.assumed,
        streams=tuple(dict.fromkeys(channels)),
        compressions=compressions(outset.settings, outset.depth, here & there),
        together=outset.together,
        afar=outset.afar,
        assumed=outset.taken,
    )
    surveyed = await survey(subject, outset.depth, generator=generator)
    loads = await disk_loads(outset.machine, outset.copies) if outset.copies else ()
    found = _Found(surveyed, loads, here, there)
    return await asyncio.to_thread(_planned, outset, found, generator)


@dataclass(frozen=True)
class _Found:
    """What was asked of guest and hosts."""

    surveyed: Surveyed
    loads: Sequence[DiskLoad]
    here: frozenset[Capability]
    there: frozenset[Capability]


def _planned(outset: Outset, found: _Found, generator: np.random.Generator) -> Foreseen:
    vm, surveyed = outset.machine.vm, found.surveyed
    rules = QemuRules.named(outset.version, vm.accelerator)
    names = (outset.source.name, outset.destination.name)
    corrections = learnt(outset.past, *names, surveyed.survey.link, rules)
    facts = surveyed.destination_facts
    survey, storage = _beside(corrections.on(surveyed.survey), found, outset)
    situation = Situation(
        survey,
        source=found.here,
        destination=found.there,
        rules=rules,
        hints=vm.free_page_hints,
        tolerance=outset.tolerance,
        headroom=headroom_left(facts.available_memory, vm.memory, facts.memory or vm.memory),
        earlier=tuple(outset.earlier),
        barred=tuple(outset.barred),
    )
    wish = outset.wish
    if storage is not None:
        wish = replace(wish, total_time=max(SHORTEST, wish.total_time - storage.time.p90))
    plan = plan_move(situation, outset.settings, wish, generator=generator, method=outset.method)
    between = [each for each in outset.past if (each.source, each.destination) == names][-LAST:]
    return Foreseen(surveyed, situation, _widened(plan, between), storage)


def _beside(
    survey: Survey, found: _Found, outset: Outset
) -> tuple[Survey, StoragePrediction | None]:
    """Return the survey with the link that copies in step leave to memory, and what they do.

    Args:
        survey: Corrected by what past moves teach of memory.
        found: What was asked of guest and hosts, the survey uncorrected.
        outset: The move.
    """
    if not found.loads:
        return survey, None
    seen, count = found.surveyed.survey.link, len(found.loads)
    goodput = survey.link.goodput_for(count)
    believed = goodput / seen.goodput_for(count)
    names = (outset.source.name, outset.destination.name)
    pace = copy_pace(outset.past, *names, seen, believed=believed)
    free = seen.goodput_for(count) * pace
    limit = outset.wish.bandwidth_limit or math.inf
    said = predict_storage(found.loads, min(free, limit))
    storage = replace(said, pace=pace, limited=limit < free)
    left = rate_for_memory(goodput, storage) / goodput
    link = {count: each * left for count, each in survey.link.goodput.items()}
    return replace(survey, link=replace(survey.link, goodput=link)), storage


def _widened(plan: Plan, past: Sequence[MoveRecord]) -> Plan:
    """Return a plan whose chosen way has intervals as wide as past errors ask for."""
    if plan.chosen is None:
        return plan
    said = plan.chosen.prediction
    wider = widened(said, widening_for(past, said.tuning))
    first = Forecast(plan.chosen.candidate, wider)
    return replace(plan, ranking=(first, *plan.ranking[1:]))

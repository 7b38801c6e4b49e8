"""A survey: what a running guest, the link and both hosts are like before a move.

    looks at sampled pages ───────────────► dirty curve, zero share
      meanwhile: balloon, vCPUs, idle cores
    content of some, dirtied ones apart ──► ratios, codec speeds
    touching and copying memory ──────────► host profiles
    probing the link ─────────────────────► goodput

The guest runs on, undisturbed: nothing is logged in its memory, and no page is provided to it
by being read. docs/survey.md says what each figure costs and where it fails.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from whimbrel.errors import WhimbrelError
from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import Codec, Compression
from whimbrel.model.survey import Depth, HostFacts, LinkReading, Surveyed
from whimbrel.ports import Inspection
from whimbrel.practice.survey_afar import survey_afar
from whimbrel.practice.survey_dirty import UNSTEADY
from whimbrel.practice.survey_guest import GuestReading, survey_guest
from whimbrel.practice.survey_host import Idle, Shortenings, own_cpu, spare_cores
from whimbrel.practice.survey_plan import EFFORTS, Effort

COMPRESSIONS = (Compression(Codec.ZLIB, 1), Compression(Codec.ZSTD, 1))
"""What is measured unless told otherwise."""

HIGHER = (Compression(Codec.ZSTD, 3),)
"""Levels that are measured besides, where the survey is not quick; they need idle cores."""


class LinkProbe(Protocol):
    """Finds out what the migration network carries, from source to destination."""

    async def probe(self, streams: Sequence[int], seconds: float) -> LinkReading:
        """Measure the goodput of each number of streams for so many seconds."""


class HostProbe(Protocol):
    """Finds out what one host has and what moving memory costs on it."""

    async def idle(self) -> Idle:
        """Return how long the host's cores have been idle."""

    async def facts(self) -> HostFacts:
        """Return what the host has."""

    async def cost(self, base: HostProfile, shortened: Shortenings, touched: int) -> HostProfile:
        """Return `base` with all that can be measured quickly; `spare_cores` stays."""


@dataclass(frozen=True)
class Subject:
    """What shall be surveyed.

    Attributes:
        guest: A look into its memory.
        link: Probes the network; None leaves the link as `assumed_link` has it.
        source: Probes the source.
        destination: Probes the destination; the same object where both are one machine.
        source_profile: The source as past moves have shown it.
        destination_profile: The destination likewise.
        assumed_link: What the link is taken for where it is not probed.
        streams: Numbers of streams that moves may use, the likeliest first.
        compressions: Codecs and levels that moves may use.
        together: Probes all NICs at once, over MPTCP; None: there is one.
        afar: Whether only its hypervisor leads to the guest, so that each page that is looked at
            takes long.
        assumed: What is taken for granted rather than measured, a sentence each.
    """

    guest: Inspection
    link: LinkProbe | None
    source: HostProbe
    destination: HostProbe | None = None
    source_profile: HostProfile = HostProfile()
    destination_profile: HostProfile = HostProfile()
    assumed_link: LinkProfile = field(default_factory=lambda: LinkProfile({1: 1.25e9}))
    streams: Sequence[int] = (1, 2)
    compressions: Sequence[Compression] = COMPRESSIONS
    together: LinkProbe | None = None
    afar: bool = False
    assumed: Sequence[str] = ()


async def survey(
    subject: Subject,
    depth: Depth = Depth.DEFAULT,
    *,
    generator: np.random.Generator | None = None,
) -> Surveyed:
    """Survey a guest, the link and both hosts without disturbing the guest.

    Args:
        subject: What to survey.
        depth: How much time to take: at most 3, 8 or 60 seconds.
        generator: Chooses the pages; fresh randomness where None.

    Raises:
        HostError: The hypervisor fails, or can neither be looked into nor count.
    """
    effort = EFFORTS[depth]
    began, used = time.monotonic(), own_cpu()
    there = subject.destination or subject.source
    probes = (subject.source, there)
    before = [await probe.idle() for probe in probes]
    chance = generator or np.random.default_rng()
    guest = await _guest(subject, depth, chance)
    after = [await probe.idle() for probe in probes]
    spare = [spare_cores(*readings) for readings in zip(before, after, strict=True)]
    facts = [await probe.facts() for probe in probes]
    shared = there is subject.source or facts[0].same_machine(facts[1])
    halves = [each / (1 + shared) for each in spare]
    profiles = await _profiles(subject, None if shared else there, halves, guest, effort)
    reading = await _probed(subject, effort)
    return Surveyed(
        survey=Survey(
            guest.memory,
            _link(subject, reading),
            *profiles,
            shared_cores=spare[0] if shared else None,
        ),
        depth=depth,
        duration=time.monotonic() - began,
        cpu_seconds=own_cpu() - used,
        source_facts=facts[0],
        destination_facts=facts[1],
        link=reading,
        sampled_pages=guest.sampled,
        looks=guest.looks,
        notes=(*guest.notes, *_notes(guest.memory, reading, shared=shared)),
        assumed=tuple(subject.assumed),
    )


async def _guest(subject: Subject, depth: Depth, chance: np.random.Generator) -> GuestReading:
    if subject.afar:
        return await survey_afar(subject.guest, depth, subject.compressions, chance)
    return await survey_guest(subject.guest, EFFORTS[depth], subject.compressions, chance)


async def _profiles(
    subject: Subject,
    there: HostProbe | None,
    spare: Sequence[float],
    guest: GuestReading,
    effort: Effort,
) -> tuple[HostProfile, HostProfile]:
    """Have both hosts time themselves at once; one machine only once (`there` is None)."""
    base = replace(subject.source_profile, spare_cores=spare[0])
    timed = subject.source.cost(base, guest.shortened, effort.touched)
    if there is None:
        source, kept = await timed, subject.destination_profile
        same = replace(
            source,
            setup_seconds=kept.setup_seconds,
            load_seconds=kept.load_seconds,
            error=kept.error,
        )
        return source, same
    base = replace(subject.destination_profile, spare_cores=spare[1])
    source, destination = await asyncio.gather(
        timed, there.cost(base, guest.shortened, effort.touched)
    )
    return source, destination


async def _probed(subject: Subject, effort: Effort) -> LinkReading | None:
    if subject.link is None:
        return None
    streams = subject.streams[: effort.probes]
    found = await subject.link.probe(streams, effort.probe)
    if subject.together is None:
        return found
    try:
        return replace(found, multipath=await subject.together.probe(streams, effort.probe))
    except WhimbrelError as error:
        note = f"All NICs together are not used, since they could not be probed. {error.what}"
        return replace(found, notes=(*found.notes, note))


def _link(subject: Subject, reading: LinkReading | None) -> LinkProfile:
    if reading is None:
        return subject.assumed_link
    every = reading.multipath
    return replace(
        _measured(subject.assumed_link, reading),
        multipath=None if every is None else _measured(subject.assumed_link, every),
    )


def _measured(assumed: LinkProfile, reading: LinkReading) -> LinkProfile:
    return replace(
        assumed,
        goodput=reading.goodput,
        latency=reading.latency,
        error=reading.error,
        in_flight=reading.in_flight,
        rdma=reading.rdma,
        multipath=None,
    )


def _notes(memory: MemoryProfile, reading: LinkReading | None, *, shared: bool) -> list[str]:
    notes = []
    curve = memory.dirty
    if curve.unsteadiness >= UNSTEADY:
        notes.append(
            f"The guest is unsteady: its dirty rate varies by {curve.unsteadiness:.0%} from one "
            "moment to the next. A deeper survey, or waiting, may help."
        )
    if curve.classes:
        notes.append(f"Windows beyond {curve.horizon:.1f} s are extrapolated.")
    if reading is None:
        notes.append("The link was not probed.")
    else:
        notes.extend(reading.notes)
    if shared:
        notes.append("Both hosts are one machine: its idle cores are shared out in halves.")
    return notes

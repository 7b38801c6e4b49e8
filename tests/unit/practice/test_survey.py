import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from whimbrel.errors import HostError, Unsupported
from whimbrel.hypervisors.simulated.inspect import SimulatedInspection
from whimbrel.lab.this_host import ThisHost
from whimbrel.model.memory import DirtyCurve, HostProfile, MemoryProfile, PageClass
from whimbrel.model.method import Codec, Compression
from whimbrel.model.survey import Depth, HostFacts, LinkReading
from whimbrel.model.units import MIB
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED, Look
from whimbrel.practice.survey import Subject, survey
from whimbrel.practice.survey_guest import empty_pages, sample
from whimbrel.practice.survey_host import Shortenings
from whimbrel.practice.survey_plan import EFFORTS

HOT = PageClass(8_000, 0.5)
GUEST = MemoryProfile(
    total=256 * MIB,
    zero_share=0.5,
    untouched_share=0.4,
    free_hintable=8 * MIB,
    dirty=DirtyCurve((HOT,)),
    busy_share=0.25,
)


class Wire:
    """A link that carries what it is said to."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def probe(self, streams: Sequence[int], seconds: float) -> LinkReading:
        self.asked += streams
        return LinkReading(dict.fromkeys(streams, 1e8), 0.001)


class Unreadable(SimulatedInspection):
    """A guest on another host."""

    async def provided(self) -> bytes:
        raise Unsupported("Not here.")

    async def look(self, pages: Sequence[int]) -> Look:
        raise Unsupported("Not here.")


class Broken:
    """NICs that MPTCP does not join."""

    async def probe(self, streams: Sequence[int], seconds: float) -> LinkReading:
        raise HostError("Nothing arrives.")


async def test_nics_that_cannot_be_probed_together_are_told_and_not_used() -> None:
    subject = Subject(SimulatedInspection(GUEST), Wire(), ThisHost(), streams=(1,))
    joined = await survey(replace(subject, together=Wire()), Depth.QUICK)
    assert joined.survey.link.multipath is not None
    broken = await survey(replace(subject, together=Broken()), Depth.QUICK)
    assert broken.survey.link.multipath is None
    assert broken.survey.link.goodput == joined.survey.link.goodput
    assert any("Nothing arrives." in note for note in broken.notes)


async def test_a_survey_finds_what_the_guest_was_made_of() -> None:
    wire = Wire()
    chance = np.random.default_rng(1)
    subject = Subject(SimulatedInspection(GUEST), wire, ThisHost(), streams=(2, 1))
    found = await survey(subject, Depth.QUICK, generator=chance)
    memory = found.survey.memory
    assert memory.total == GUEST.total
    assert memory.untouched_share == pytest.approx(0.4, abs=1e-4)
    assert memory.zero_share == pytest.approx(0.5, abs=0.01)
    assert memory.free_hintable == pytest.approx(8 * MIB, abs=4 * MIB)
    assert memory.busy_share == pytest.approx(0.25, abs=0.1)
    assert memory.dirty.distinct(1.0) == pytest.approx(GUEST.dirty.distinct(1.0), rel=0.15)
    for level in (Compression(Codec.ZLIB), Compression(Codec.ZSTD)):
        assert memory.ratio(level).all == pytest.approx(0.5, abs=0.1)
        assert found.survey.source.compression_speed(level) < 1e10
    assert wire.asked == [2]
    assert found.survey.link.goodput == {2: 1e8}


async def test_a_writer_that_comes_round_just_behind_the_horizon_is_watched_for_longer() -> None:
    watched = EFFORTS[Depth.QUICK].schedule[-1]
    turning = PageClass(12_000, 1 / (1.1 * watched), cyclic=True)
    guest = replace(GUEST, zero_share=0.4, dirty=DirtyCurve((turning,)))
    subject = Subject(SimulatedInspection(guest), None, ThisHost())
    found = await survey(subject, Depth.QUICK, generator=np.random.default_rng(1))
    assert found.looks == len(EFFORTS[Depth.QUICK].schedule) + 1
    dirty = found.survey.memory.dirty
    assert dirty.horizon > 1.1 * watched
    assert dirty.distinct(10 * watched) == pytest.approx(turning.pages, rel=0.1)


class Elsewhere(ThisHost):
    """A host with a kernel of its own, which is timed only together with the other."""

    def __init__(self, begun: asyncio.Barrier, boot_id: str) -> None:
        self._begun, self._boot_id = begun, boot_id

    async def cost(self, base: HostProfile, shortened: Shortenings, touched: int) -> HostProfile:
        async with asyncio.timeout(20):
            await self._begun.wait()
        return base

    async def facts(self) -> HostFacts:
        return replace(await super().facts(), boot_id=self._boot_id)


class Once(ThisHost):
    """This machine, where nobody asks again what it costs."""

    async def cost(self, base: HostProfile, shortened: Shortenings, touched: int) -> HostProfile:
        raise AssertionError


async def test_hosts_that_are_one_machine_share_its_idle_cores_and_are_timed_once() -> None:
    subject = Subject(SimulatedInspection(GUEST), Wire(), ThisHost(), streams=(1,))
    for there in (None, Once()):
        found = await survey(replace(subject, destination=there), Depth.QUICK)
        assert found.survey.shared_cores is not None
        assert found.survey.destination.copy_seconds == found.survey.source.copy_seconds
        assert any("one machine" in note for note in found.notes)


async def test_two_machines_have_their_own_cores_and_are_timed_at_once() -> None:
    both = asyncio.Barrier(2)
    here, there = Elsewhere(both, "a"), Elsewhere(both, "b")
    subject = Subject(SimulatedInspection(GUEST), Wire(), here, streams=(1,), destination=there)
    found = await survey(subject, Depth.QUICK)
    assert found.survey.shared_cores is None
    assert not any("one machine" in note for note in found.notes)


async def test_a_survey_says_what_it_cost() -> None:
    began = time.monotonic()
    found = await survey(Subject(SimulatedInspection(GUEST), None, ThisHost()), Depth.QUICK)
    assert EFFORTS[Depth.QUICK].schedule[-1] < found.duration <= time.monotonic() - began
    assert 0 < found.cpu_seconds < 2 * found.duration  # its own thread and that of the codecs
    assert found.looks == len(EFFORTS[Depth.QUICK].schedule)
    assert found.sampled_pages == EFFORTS[Depth.QUICK].pages
    assert any("not probed" in note for note in found.notes)


async def test_where_memory_cannot_be_read_the_hypervisor_counts() -> None:
    found = await survey(Subject(Unreadable(GUEST), None, ThisHost()), Depth.QUICK)
    memory = found.survey.memory
    assert found.looks == 0
    assert memory.dirty.distinct(0.3) == pytest.approx(GUEST.dirty.distinct(0.3), rel=0.1)
    assert memory.ratios == {}
    assert any("counted" in note for note in found.notes)


def test_a_sample_is_spread_evenly_over_what_is_in_memory() -> None:
    there = np.full(10_000, NEVER_PROVIDED, dtype=np.uint8)
    there[2_000:6_000] = IN_MEMORY
    chosen = sample(there, 100, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 100
    assert (there[chosen] == IN_MEMORY).all()
    assert np.bincount((chosen.astype(int) - 2_000) // 400).tolist() == [10] * 10
    assert len(sample(there, 5_000, np.random.default_rng(0))) == 4_000


@pytest.mark.parametrize("depth", Depth)
def test_every_depth_leaves_time_for_the_rest(depth: Depth) -> None:
    effort = EFFORTS[depth]
    most = {Depth.QUICK: 3.0, Depth.DEFAULT: 8.0, Depth.DEEP: 60.0}[depth]
    # A probe warms up for 0.2 s, and its two programs take up to half a second to start.
    assert effort.schedule[-1] + effort.probes * (effort.probe + 0.7) + 0.8 <= most
    assert list(effort.schedule) == sorted(effort.schedule)


def test_zero_pages_of_programs_are_not_taken_for_unused_memory() -> None:
    chance = np.random.default_rng(0)
    there = np.full(100_000, IN_MEMORY, dtype=np.uint8)
    there[:10_240] = NEVER_PROVIDED  # whole stretches, as the host provides memory
    zero = chance.random(100_000) < 0.25  # strewn among others
    zero[10_240:30_720] = True
    pages = sample(there, 4096, chance)
    assert empty_pages(pages, zero[pages], there) == pytest.approx(30_720, abs=512)

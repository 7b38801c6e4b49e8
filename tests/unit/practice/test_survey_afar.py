"""A guest that only its hypervisor leads to: a few pages, read twice, and written ones counted."""

import asyncio

import numpy as np
import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.simulated.inspect import SimulatedInspection
from whimbrel.lab.this_host import ThisHost
from whimbrel.model.memory import DirtyCurve, MemoryProfile, PageClass
from whimbrel.model.survey import Depth
from whimbrel.model.units import MIB
from whimbrel.ports import IN_MEMORY, Look, Written
from whimbrel.practice.survey import Subject, survey
from whimbrel.practice.survey_plan import AFAR

GUEST = MemoryProfile(
    total=256 * MIB,
    zero_share=0.5,
    untouched_share=0.4,
    free_hintable=8 * MIB,
    dirty=DirtyCurve((PageClass(8_000, 0.5),)),
    busy_share=0.25,
)


class Peeked(SimulatedInspection):
    """What libvirt hands out: pages, slowly; nobody tells which of them are in memory."""

    def __init__(self, profile: MemoryProfile) -> None:
        super().__init__(profile, speed=20.0)
        self.read_pages = 0

    async def provided(self) -> bytes:
        return bytes([IN_MEMORY]) * self.pages

    async def look(self, pages: object) -> Look:
        raise AssertionError("each look would take seconds")

    async def read(self, pages: object) -> bytes:
        self.read_pages += len(pages)  # type: ignore[arg-type]
        return await super().read(pages)  # type: ignore[arg-type]


class Uncounted(Peeked):
    """A guest whose hypervisor is too old to count."""

    async def written(self, window: float) -> Written:
        raise Unsupported("It cannot.")


async def test_a_few_pages_tell_what_the_guest_is_made_of() -> None:
    guest = Peeked(GUEST)
    chance = np.random.default_rng(1)
    subject = Subject(guest, None, ThisHost(), afar=True, assumed=("The link is ASSUMED.",))
    found = await survey(subject, Depth.DEEP, generator=chance)
    memory = found.survey.memory
    assert found.sampled_pages == AFAR[Depth.DEEP].pages
    assert found.looks == 2
    assert memory.total == GUEST.total
    assert memory.zero_share == pytest.approx(0.5, abs=4 * memory.zero_error + 0.02)
    assert memory.dirty.distinct(1.0) == pytest.approx(GUEST.dirty.distinct(1.0), rel=0.25)
    assert memory.ratios
    assert memory.untouched_share == 0.0
    assert memory.free_hintable == pytest.approx(8 * MIB, rel=2.0)
    assert found.assumed == ("The link is ASSUMED.",)
    assert any("read through its hypervisor" in note for note in found.notes)


@pytest.mark.parametrize("depth", list(Depth))
async def test_it_reads_hundreds_of_pages_and_counts_whole_seconds(depth: Depth) -> None:
    effort = AFAR[depth]
    assert all(each == round(each) for each in effort.counted)
    assert 2 * effort.pages + effort.runs * 128 < 6000


async def test_where_nobody_counts_the_pages_themselves_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def at_once(_: float) -> None:
        real = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, real.set_result, None)
        await real

    monkeypatch.setattr("asyncio.sleep", at_once)
    found = await survey(Subject(Uncounted(GUEST), None, ThisHost(), afar=True), Depth.QUICK)
    assert found.survey.memory.dirty.classes
    assert any("cannot count" in note for note in found.notes)

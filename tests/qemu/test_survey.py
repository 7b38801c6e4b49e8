"""Surveys of a real guest whose writer and content are known exactly (docs/redline.md)."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from whimbrel.lab.accelerator import Accelerator
from whimbrel.lab.audience import Nobody
from whimbrel.lab.guests import Guest, boot, guest_vm
from whimbrel.lab.image import build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.stage import Stage, stage
from whimbrel.lab.surveyed import survey_stage
from whimbrel.model.memory import DirtyCurve
from whimbrel.model.method import Codec, Compression
from whimbrel.model.scenario import Access, GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.survey import Depth
from whimbrel.model.units import MIB, PAGE
from whimbrel.practice.survey_plan import EFFORTS
from whimbrel.theory.dirtying import curve_of

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the lab makes network namespaces: needs root"),
    pytest.mark.timeout(600),
]

ZSTD = Compression(Codec.ZSTD, 1)
MEMORY = 512 * MIB
LINK = 125e6
LOAD = Load(fill=320 * MIB, hot=64 * MIB, dirty_rate=40e6, pattern=Pattern.TEXT)

COUNTED_BY = 1024
"""Hot pages whose write counters share one page of the guest's memory."""

IDLE = 120
"""Pages that the guest's kernel and redline itself may write within some seconds."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Surroundings:
    """A guest on its stage."""

    stage: Stage
    guest: Guest

    @property
    def resident(self) -> int:
        """Bytes of memory that the guest's QEMU holds."""
        assert self.guest.machine.pid is not None
        text = Path(f"/proc/{self.guest.machine.pid}/statm").read_text()
        return int(text.split()[1]) * PAGE

    async def loaded(self, load: Load) -> None:
        async with self.guest.redline() as redline:
            await redline.fill(load)
        await asyncio.sleep(1.0)  # a second of the new load is what is surveyed

    async def rates(
        self, work: Callable[[], Awaitable[_Result]], period: float
    ) -> tuple[_Result, float, float]:
        """Return what `work` does, and the least and most that the writer wrote meanwhile.

        Bytes per second, over periods of so many seconds: a writer that is kept from its core
        for long does not make up for it, so what it was told to write is not what it wrote.
        """
        async with self.guest.redline() as redline:
            task = asyncio.ensure_future(work())
            told = [(time.monotonic(), (await redline.status()).pages_dirtied)]
            while len(told) < 2 or not task.done():
                await asyncio.sleep(period)
                pages = (await redline.status()).pages_dirtied
                told.append((time.monotonic(), pages))
        rates = [(b[1] - a[1]) * PAGE / (b[0] - a[0]) for a, b in pairwise(told)]
        return await task, min(rates), max(rates)

    async def longest_gap(self, work: Callable[[], Awaitable[object]]) -> float:
        began = time.monotonic()
        await work()
        gap = self.stage.beats.longest_gap(began, time.monotonic())
        assert gap is not None
        return gap


@asynccontextmanager
async def surroundings(load: Load) -> AsyncIterator[Surroundings]:
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    scenario = Scenario(guest=GuestSpec(MEMORY, redline=load), link=LinkSpec(LINK))
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with stage(scenario, Path(folder)) as on:
            accelerator = Accelerator("tcg", "the same everywhere")
            vm = guest_vm(scenario, image, accelerator, free_page_hints=True)
            yield Surroundings(on, await boot(on, vm, load, Nobody()))


def truth(load: Load) -> DirtyCurve:
    """Return the writer's law with that of its counters, which lie in guest memory too."""
    counters = replace(load, hot=max(PAGE, load.hot // COUNTED_BY))
    return DirtyCurve((*curve_of(load).classes, *curve_of(counters).classes))


async def test_the_dirty_curve_of_a_known_writer_is_found() -> None:
    async with surroundings(LOAD) as there:
        for access in Access:
            load = replace(LOAD, access=access)
            await there.loaded(load)
            found, *rates = await there.rates(
                lambda: survey_stage(there.stage, there.guest), period=1.0
            )
            least, most = (truth(replace(load, dirty_rate=rate)) for rate in rates)
            dirty = found.survey.memory.dirty
            error = 3 * float(np.hypot(dirty.rate_error, dirty.size_error)) + 0.06
            for window in (0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
                low = least.distinct(window) * (1 - error) - IDLE
                high = most.distinct(window) * (1 + error) + IDLE
                assert low < dirty.distinct(window) < high, (access, window, rates)


async def test_a_survey_looks_as_often_as_planned_and_says_what_it_cost() -> None:
    # That the plan fits into what each depth may take is tests/unit/practice/test_survey.py's.
    async with surroundings(LOAD) as there:
        for depth in (Depth.QUICK, Depth.DEFAULT):
            began = time.monotonic()
            found = await survey_stage(there.stage, there.guest, depth)
            assert found.looks == len(EFFORTS[depth].schedule)
            assert EFFORTS[depth].schedule[-1] < found.duration <= time.monotonic() - began
            assert 0 < found.cpu_seconds < found.duration


async def test_the_guest_is_not_disturbed_and_given_no_memory() -> None:
    # The longest gap is mostly this machine's own, which comes and goes: the quietest turns tell
    # the survey's share. Where every core is taken it waits for the looks too, some 0.1 s; a
    # survey that stopped it, to read all its memory or to log it, would keep it for longer.
    async with surroundings(LOAD) as there:
        quiet, surveyed = [], []
        for _ in range(2):
            quiet.append(await there.longest_gap(lambda: asyncio.sleep(3.0)))
            resident = there.resident
            surveyed.append(await there.longest_gap(lambda: survey_stage(there.stage, there.guest)))
            # The guest itself may take a huge page or two meanwhile; a survey that touched what
            # it looks at would bring in most of the memory that the guest has never used.
            assert abs(there.resident - resident) < 16 * MIB
        assert min(surveyed) < 2 * min(quiet) + 0.25


async def test_content_and_free_memory_are_what_they_are_known_to_be() -> None:
    async with surroundings(LOAD) as there:
        expected = ((Pattern.TEXT, 0.33), (Pattern.RANDOM, 1.0), (Pattern.CONSTANT, 0.01))
        for pattern, ratio in expected:
            await there.loaded(replace(LOAD, pattern=pattern))
            found = (await survey_stage(there.stage, there.guest, Depth.QUICK)).survey.memory
            assert found.ratio(ZSTD).dirty == pytest.approx(ratio, abs=0.04)
            # Of all memory, the guest's kernel and its page cache are a part, and a quick survey
            # looks at a few places only.
            assert found.ratio(ZSTD).all == pytest.approx(ratio, abs=0.25)
        # Mixed content has zero pages too, in use and freed; they are not what is unused.
        for kept, freed in ((Pattern.TEXT, Pattern.RANDOM), (Pattern.MIXED, Pattern.MIXED)):
            await there.loaded(replace(LOAD, fill=128 * MIB, pattern=kept, hot=0))
            async with there.guest.redline() as redline:
                await redline.free(replace(LOAD, freed=200 * MIB, pattern=freed))
            found = (await survey_stage(there.stage, there.guest)).survey.memory
            assert 0 <= found.untouched_share <= found.zero_share
            content = 200 * MIB * (0.75 if freed is Pattern.MIXED else 1.0)
            assert found.free_hintable == pytest.approx(content, abs=32 * MIB)


async def test_the_link_is_what_it_was_shaped_to() -> None:
    async with surroundings(LOAD) as there:
        found = await survey_stage(there.stage, there.guest)
        link = found.survey.link
        for streams in (1, 2):
            # What is measured within half a second is this machine's too, and buffers' of 6 MiB.
            assert 0.3 * LINK < link.goodput_for(streams) < 1.3 * LINK
        assert found.link is not None
        assert found.link.nominal == 1.25e9  # what a veth says of itself
        assert found.link.other_traffic < 0.01 * LINK
        assert 0 < link.latency < 0.2


async def test_qemu_itself_counts_where_memory_cannot_be_read() -> None:
    async with surroundings(LOAD) as there:
        inspection = there.guest.machine.inspection()
        counted, *rates = await there.rates(lambda: inspection.written(0.5), period=0.2)
    least, most = (truth(replace(LOAD, dirty_rate=rate)).distinct(0.5) for rate in rates)
    error = 3 * counted.error + IDLE
    assert 0.85 * least - error < counted.pages < 1.15 * most + error

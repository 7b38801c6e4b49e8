"""Surveys of a real guest whose writer and content are known exactly (docs/redline.md)."""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

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
from whimbrel.model.units import KIB, MIB, PAGE
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
            async with there.guest.redline() as redline:
                before, at = await redline.status(), time.monotonic()
                found = await survey_stage(there.stage, there.guest)
                after, seconds = await redline.status(), time.monotonic() - at
            rate = (after.pages_dirtied - before.pages_dirtied) * PAGE / seconds
            law, dirty = truth(replace(load, dirty_rate=rate)), found.survey.memory.dirty
            error = float(np.hypot(dirty.rate_error, dirty.size_error))
            for window in (0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
                wanted = law.distinct(window)
                allowed = wanted * (3 * error + 0.06) + IDLE
                assert abs(dirty.distinct(window) - wanted) < allowed, (access, window)


async def test_a_survey_keeps_its_time_and_says_what_it_cost() -> None:
    async with surroundings(LOAD) as there:
        for depth, most in ((Depth.QUICK, 3.0), (Depth.DEFAULT, 8.0)):
            found = await survey_stage(there.stage, there.guest, depth)
            assert found.duration < most
            assert 0 < found.cpu_seconds < found.duration / 2


async def test_the_guest_is_not_disturbed_and_given_no_memory() -> None:
    # The longest gap is mostly this machine's own; medians of turns tell the survey's share.
    async with surroundings(LOAD) as there:
        quiet, surveyed = [], []
        for _ in range(3):
            quiet.append(await there.longest_gap(lambda: asyncio.sleep(6.5)))
            resident = there.resident
            surveyed.append(await there.longest_gap(lambda: survey_stage(there.stage, there.guest)))
            assert abs(there.resident - resident) < 512 * KIB
        assert statistics.median(surveyed) < statistics.median(quiet) + 0.020


async def test_content_and_free_memory_are_what_they_are_known_to_be() -> None:
    async with surroundings(LOAD) as there:
        expected = ((Pattern.TEXT, 0.33), (Pattern.RANDOM, 1.0), (Pattern.CONSTANT, 0.01))
        for pattern, ratio in expected:
            await there.loaded(replace(LOAD, pattern=pattern))
            found = (await survey_stage(there.stage, there.guest, Depth.QUICK)).survey.memory
            # Of all memory, the guest's kernel and its page cache are a part.
            assert found.ratio(ZSTD).dirty == pytest.approx(ratio, abs=0.04)
            assert found.ratio(ZSTD).all == pytest.approx(ratio, abs=0.15)
        await there.loaded(replace(LOAD, fill=64 * MIB, pattern=Pattern.ZERO, hot=0))
        async with there.guest.redline() as redline:
            await redline.free(replace(LOAD, freed=200 * MIB, pattern=Pattern.RANDOM))
            free = (await redline.status()).memory_free
        found = (await survey_stage(there.stage, there.guest)).survey.memory
        assert found.zero_share * MEMORY > 64 * MIB
        assert 0 <= found.untouched_share <= found.zero_share
        hinted = free - found.zero_share * MEMORY
        assert found.free_hintable == pytest.approx(max(0.0, hinted), abs=8 * MIB)
        assert found.free_hintable > 100 * MIB


async def test_the_link_is_what_it_was_shaped_to() -> None:
    async with surroundings(LOAD) as there:
        found = await survey_stage(there.stage, there.guest)
        link = found.survey.link
        for streams in (1, 2):
            assert link.goodput_for(streams) == pytest.approx(LINK, rel=0.08)
        assert found.link is not None
        assert found.link.nominal == 1.25e9  # what a veth says of itself
        assert found.link.other_traffic < 0.01 * LINK
        assert 0 < link.latency < 0.02


async def test_qemu_itself_counts_where_memory_cannot_be_read() -> None:
    async with surroundings(LOAD) as there:
        counted = await there.guest.machine.inspection().written(0.5)
    wanted = truth(LOAD).distinct(0.5)
    assert counted.pages == pytest.approx(wanted, rel=0.15, abs=3 * counted.error + IDLE)

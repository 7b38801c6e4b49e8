"""The guest's part of a survey where no shell leads to its host: by what its hypervisor tells.

    some pages read ─► written pages counted, in whole seconds ─► the same pages read again
        content ──► zero share, ratios      counts, changed pages ──► dirty curve

Each page takes the hypervisor about a millisecond and the way there and back, so hundreds are
read, twice, where a shell would look at ten thousand many times. Windows below a second are
extrapolated.
"""

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whimbrel.errors import Unsupported
from whimbrel.model.memory import MemoryProfile
from whimbrel.model.method import Compression
from whimbrel.model.survey import Depth
from whimbrel.model.units import PAGE
from whimbrel.ports import Inspection
from whimbrel.practice.gently import gently
from whimbrel.practice.survey_content import Shortened, difference, shortened, split
from whimbrel.practice.survey_dirty import curve_from_counts
from whimbrel.practice.survey_guest import GuestReading, sample
from whimbrel.practice.survey_plan import AFAR, RUN, FarEffort
from whimbrel.theory.dirtying import DirtySample, sampling_error

Numbers = NDArray[np.uint64]


@dataclass(frozen=True)
class _Reading:
    """Pages as they were: the middle of the time it took, seconds, and their bytes (n, PAGE)."""

    at: float
    content: NDArray[np.uint8]


async def survey_afar(
    guest: Inspection,
    depth: Depth,
    compressions: Sequence[Compression],
    generator: np.random.Generator,
) -> GuestReading:
    """Survey one guest through its hypervisor alone; see `survey.survey`."""
    effort = AFAR[depth]
    busy, at = await guest.vcpu_seconds(), time.monotonic()
    there = np.frombuffer(await guest.provided(), dtype=np.uint8)
    pages = sample(there, effort.pages, generator)
    first = await _read(guest, pages)
    counts, refusal = await _counted(guest, effort)
    second = await _read(guest, pages)
    share = _busiest(busy, await guest.vcpu_seconds(), time.monotonic() - at)
    seen = _changed(first, second, guest.pages)
    curve = curve_from_counts([*counts, seen], guest.pages)
    runs = await _runs(guest, effort, generator)
    made, delta = await _contents(first, second, runs, compressions)
    memory = _zeroes(second, guest.pages)
    ratios = {compression: found.ratio for compression, found in made.items()}
    memory = replace(memory, dirty=curve, ratios=ratios, delta_bytes=delta, busy_share=share)
    note = (
        f"Its memory was read through its hypervisor: {len(pages)} pages, twice, where a shell "
        f"would look at many thousands. {refusal}"
    )
    reading = GuestReading(memory, made, sampled=len(pages), looks=2, notes=(note.strip(),))
    return _with_free(reading, await guest.free_bytes())


async def _counted(guest: Inspection, effort: FarEffort) -> tuple[list[DirtySample], str]:
    """Let the hypervisor count; where it cannot, say so."""
    counts = []
    try:
        for window in effort.counted:
            found = await guest.written(window)
            counts.append(DirtySample(found.window, found.pages, found.error))
    except Unsupported as error:
        await asyncio.sleep(max(effort.counted))  # the pages are compared over as long a time
        return counts, f"It cannot count what the guest writes: {error.what}"
    return counts, ""


async def _read(guest: Inspection, pages: Numbers) -> _Reading:
    began = time.monotonic()
    content = await guest.read(array("Q", pages.tobytes()))
    at = (began + time.monotonic()) / 2
    return _Reading(at, np.frombuffer(content, dtype=np.uint8).reshape(-1, PAGE))


async def _runs(
    guest: Inspection, effort: FarEffort, generator: np.random.Generator
) -> list[list[bytes]]:
    """Read runs of neighbouring pages, one from each of so many equal parts of the memory."""
    room = max(0, guest.pages - RUN)
    starts = (np.arange(effort.runs) + generator.random(effort.runs)) / effort.runs * room
    runs = [
        np.arange(start, min(start + RUN, guest.pages), dtype=np.uint64)
        for start in starts.astype(int)
    ]
    return [split((await _read(guest, run)).content.tobytes()) for run in runs]


def _changed(first: _Reading, second: _Reading, pages: int) -> DirtySample:
    changed = (first.content != second.content).any(axis=1)
    found = float(changed.mean()) * pages
    return DirtySample(second.at - first.at, found, sampling_error(pages, found, len(changed)))


def _zeroes(seen: _Reading, pages: int) -> MemoryProfile:
    zero = float((~seen.content.any(axis=1)).mean())
    count = len(seen.content)
    doubt = float(np.sqrt(max(zero * (1 - zero), 1 / count) / count))
    return MemoryProfile(pages * PAGE, zero_share=zero, zero_error=doubt)


async def _contents(
    first: _Reading,
    second: _Reading,
    runs: list[list[bytes]],
    compressions: Sequence[Compression],
) -> tuple[dict[Compression, Shortened], float | None]:
    """Compress what was read; also return the mean bytes of a rewritten page as a difference."""
    changed = (first.content != second.content).any(axis=1)
    alone = split(second.content.tobytes())
    before, after = first.content[changed].tobytes(), second.content[changed].tobytes()
    made = {}
    for each in compressions:
        found = await gently(partial(shortened, each, alone, split(after), runs))
        if found is not None:
            made[each] = found
    return made, difference(before, after)


def _busiest(before: Sequence[float], after: Sequence[float], seconds: float) -> float:
    """Return the share of its time that the busiest vCPU ran; 1 where that is not known."""
    shares = [(last - sooner) / seconds for sooner, last in zip(before, after, strict=False)]
    return min(1.0, max(0.01, *shares)) if shares else 1.0


def _with_free(found: GuestReading, free: int | None) -> GuestReading:
    """Add what the guest's kernel calls free; pages of it that are zero cost nothing anyway."""
    memory = found.memory
    if free is None:
        unknown = "What the guest calls free is not known: it has no balloon, or no driver."
        return replace(found, notes=(*found.notes, unknown))
    hintable = max(0, free - round(memory.zero_share * memory.total))
    return replace(found, memory=replace(memory, free=free, free_hintable=hintable))

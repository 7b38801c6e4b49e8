"""The guest's part of a survey: its pages sampled, watched, and read."""

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whimbrel.errors import Unsupported
from whimbrel.model.memory import DirtyCurve, MemoryProfile
from whimbrel.model.method import Compression
from whimbrel.model.units import PAGE
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED, Inspection, Look
from whimbrel.practice.gently import gently
from whimbrel.practice.survey_content import Shortened, difference, shortened, split
from whimbrel.practice.survey_dirty import (
    GROUPS,
    Marks,
    changes,
    curve,
    curve_from_counts,
    growing,
    unsteadiness,
    unturned,
    windows,
)
from whimbrel.practice.survey_plan import RUN, Effort
from whimbrel.theory.dirtying import DirtySample

Numbers = NDArray[np.uint64]
Provided = NDArray[np.uint8]

PARTS = 64
"""Equal parts of the memory for which it is told how much of its content they hold."""

STRETCH = 512
"""Pages in which the guest's kernel hands out memory at once, and the host provides it: 2 MiB."""

_TELLING = 8
"""Sampled pages by which a stretch is called empty, when all of them are zero."""

_DIFFERENCES = 256
"""Rewritten pages that are read twice, for XBZRLE."""

_COUNTED = (0.1, 0.2, 0.4)
"""Windows, seconds, that the hypervisor counts where memory cannot be read."""

_FURTHER = 1.3
"""How much longer a guest is watched whose writes may come round just behind the horizon."""

_LONGER = (0.8, 1.6)
"""Further windows where there is time."""


@dataclass(frozen=True)
class GuestReading:
    """What was found of the guest.

    Attributes:
        memory: Its memory.
        shortened: What the codecs made of it.
        empty: Zero pages that lie among zero pages only, as unused memory does.
        sampled: Pages that were watched.
        looks: How often.
        notes: What a person should know.
    """

    memory: MemoryProfile
    shortened: dict[Compression, Shortened]
    empty: float = 0.0
    sampled: int = 0
    looks: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Watched:
    """A series of looks: times (L,), marks (L, n), and the pages looked at (n,)."""

    times: NDArray[np.float64]
    marks: Marks
    pages: Numbers


async def survey_guest(
    guest: Inspection,
    effort: Effort,
    compressions: Sequence[Compression],
    generator: np.random.Generator,
) -> GuestReading:
    """Survey one guest; see `survey.survey`."""
    telling = asyncio.ensure_future(guest.free_bytes())
    try:
        busy, at = await guest.vcpu_seconds(), time.monotonic()
        try:
            found = await _by_looking(guest, effort, compressions, generator)
        except Unsupported as error:
            found = await _by_counting(guest, effort, error)
        share = _busiest(busy, await guest.vcpu_seconds(), time.monotonic() - at)
        free = await telling
    finally:
        telling.cancel()
        await asyncio.wait([telling])  # it puts the balloon's settings back
    return _with(found, share, free)


def sample(there: Provided, count: int, generator: np.random.Generator) -> Numbers:
    """Choose pages that are in memory: one from each of `count` equal stretches of them.

    Such a sample has the hot region's share almost exactly, wherever that lies.
    """
    present = np.flatnonzero(there == IN_MEMORY)
    if len(present) <= count:
        return present.astype(np.uint64)
    edges = np.linspace(0, len(present), count + 1)
    chosen = edges[:-1] + generator.random(count) * np.diff(edges)
    return present[chosen.astype(np.int64)].astype(np.uint64)


async def _by_looking(
    guest: Inspection,
    effort: Effort,
    compressions: Sequence[Compression],
    generator: np.random.Generator,
) -> GuestReading:
    before = np.frombuffer(await guest.provided(), dtype=np.uint8)
    pages = sample(before, effort.pages, generator)
    if len(pages) < GROUPS:
        raise Unsupported("The guest has hardly any memory yet.", "Survey it when it has booted.")
    watched = await _watch(guest, pages, effort)
    after = np.frombuffer(await guest.provided(), dtype=np.uint8)
    dirty = _curve(watched, before, after)
    chosen = _choose(watched, after, effort, generator)
    made, delta = await _contents(guest, chosen, compressions)
    if unturned(dirty):
        watched = await _once_more(guest, watched)
        dirty = _curve(watched, before, after)
    memory = replace(_zeroes(watched, after), dirty=dirty)
    ratios = {compression: found.ratio for compression, found in made.items()}
    return GuestReading(
        memory=replace(memory, ratios=ratios, delta_bytes=delta),
        shortened=made,
        empty=empty_pages(pages, watched.marks[-1] == 0, after),
        sampled=len(pages),
        looks=len(watched.times),
    )


async def _watch(guest: Inspection, pages: Numbers, effort: Effort) -> _Watched:
    """Look as often as the effort says; a look that comes late makes its window longer."""
    wanted = array("Q", pages.tobytes())
    looks: list[Look] = []
    began = time.monotonic()
    for at in effort.schedule:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        looks.append(await guest.look(wanted))
    return _series(looks, pages)


async def _once_more(guest: Inspection, watched: _Watched) -> _Watched:
    """Look again when all have lasted `_FURTHER` times as long, and return the longer series."""
    due = watched.times[0] + _FURTHER * (watched.times[-1] - watched.times[0])
    wanted = array("Q", watched.pages.tobytes())
    late = _series([await guest.look(wanted)], watched.pages)
    # Only a look tells how late it is by the clock of the guest's host.
    if (early := float(due - late.times[-1])) > 0:
        await asyncio.sleep(early)
        late = _series([await guest.look(wanted)], watched.pages)
    times = np.append(watched.times, late.times)
    return _Watched(times, np.vstack([watched.marks, late.marks]), watched.pages)


def _series(looks: Sequence[Look], pages: Numbers) -> _Watched:
    marks = np.stack([np.frombuffer(look.marks, dtype=np.uint64) for look in looks])
    # Half of the pages are read before this moment, half after it.
    times = np.array([(look.began + look.ended) / 2 for look in looks])
    return _Watched(times, marks, pages)


def _curve(watched: _Watched, before: Provided, after: Provided) -> DirtyCurve:
    marks, pages = watched.marks, int((before == IN_MEMORY).sum())
    # Pages that stayed zero were not written; the fit must not spread writes over them.
    full = (marks != 0).any(axis=0)
    if full.sum() >= GROUPS:
        marks, pages = marks[:, full], round(pages * float(full.mean()))
    changed = changes(marks)
    fitted = curve(windows(watched.times, changed), pages)
    spread = unsteadiness(watched.times, changed, fitted, pages)
    error = float(np.hypot(fitted.rate_error, spread))
    fitted = replace(fitted, rate_error=error, unsteadiness=spread)
    fresh = int(((before == NEVER_PROVIDED) & (after != NEVER_PROVIDED)).sum())
    untouched = int((after == NEVER_PROVIDED).sum())
    return growing(fitted, fresh, untouched, float(watched.times[-1] - watched.times[0]))


def _zeroes(watched: _Watched, there: Provided) -> MemoryProfile:
    total, count = len(there), len(watched.pages)
    untouched = int((there == NEVER_PROVIDED).sum())
    present = int((there == IN_MEMORY).sum())
    zero = watched.marks[-1] == 0
    share = float(zero.mean())
    doubt = max(share * (1 - share), 1 / count) / count * (1 - count / max(count, present))
    return MemoryProfile(
        total=total * PAGE,
        zero_share=(untouched + share * present) / total,
        zero_error=float(np.sqrt(doubt)) * present / total,
        untouched_share=untouched / total,
        content=_content(watched.pages, zero, there),
    )


def _content(pages: Numbers, zero: NDArray[np.bool_], there: Provided) -> tuple[float, ...]:
    """Return the share of all pages with content in each of `PARTS` parts of the memory.

    Args:
        pages: The sampled pages, (n,).
        zero: Which of them were zero, (n,).
        there: What each page of the guest is, (N,).
    """
    edges = np.linspace(0, len(there), PARTS + 1)
    present = np.histogram(np.flatnonzero(there == IN_MEMORY), edges)[0]
    seen = np.histogram(pages, edges)[0]
    full = np.histogram(pages[~zero], edges)[0]
    content = present * (full / np.maximum(seen, 1))
    whole = float(content.sum())
    return tuple(float(each) / whole for each in content) if whole > 0 else ()


def empty_pages(pages: Numbers, zero: NDArray[np.bool_], there: Provided) -> float:
    """Return how many pages are zero and lie among zero pages only.

    Programs keep zero pages too, strewn among others; what the guest's kernel has never given
    to anybody is zero over long stretches. A stretch counts when all that was sampled in it is
    zero; in any other only what was never provided.

    Args:
        pages: The sampled pages, (n,).
        zero: Which of them were zero, (n,).
        there: What each page of the guest is, (N,).
    """
    present = there == IN_MEMORY
    each = max(1.0, STRETCH * len(pages) / max(1, int(present.sum())))  # samples in a stretch
    length = STRETCH * max(1, round(_TELLING / each))
    edges = np.arange(0, len(there) + length, length)
    seen, full = (np.histogram(which, edges)[0] > 0 for which in (pages, pages[~zero]))
    here = np.histogram(np.flatnonzero(present), edges)[0]
    return float((there == NEVER_PROVIDED).sum() + here[seen & ~full].sum())


@dataclass(frozen=True)
class _Chosen:
    """Pages whose content is read: non-zero ones from all over, written ones, and runs."""

    alone: Numbers
    written: Numbers
    runs: list[Numbers]


def _choose(
    watched: _Watched, there: Provided, effort: Effort, generator: np.random.Generator
) -> _Chosen:
    full = watched.marks[-1] != 0
    written = changes(watched.marks).any(axis=0) & full
    return _Chosen(
        _some(watched.pages[full], effort.contents, generator),
        _some(watched.pages[written], effort.contents, generator),
        _runs(there, effort.runs, generator),
    )


async def _contents(
    guest: Inspection, chosen: _Chosen, compressions: Sequence[Compression]
) -> tuple[dict[Compression, Shortened], float | None]:
    """Read and compress; also return the mean bytes of a rewritten page as a difference."""
    dirtied = await _read(guest, chosen.written)
    alone = split(await _read(guest, chosen.alone))
    runs = [split(await _read(guest, run)) for run in chosen.runs]
    made = {}
    for each in compressions:
        found = await gently(partial(shortened, each, alone, split(dirtied), runs))
        if found is not None:
            made[each] = found
    again = await _read(guest, chosen.written[:_DIFFERENCES])
    return made, difference(dirtied[: len(again)], again)


def _runs(there: Provided, count: int, generator: np.random.Generator) -> list[Numbers]:
    """Choose runs of neighbouring pages in memory, one from each of `count` stretches."""
    present = np.flatnonzero(there == IN_MEMORY).astype(np.uint64)
    if len(present) < RUN:
        return [present]
    starts = (np.arange(count) + generator.random(count)) / count * (len(present) - RUN)
    return [present[int(start) : int(start) + RUN] for start in starts]


def _some(pages: Numbers, count: int, generator: np.random.Generator) -> Numbers:
    """Choose pages at equal distances of their order: neighbours hold the same kind of content."""
    if len(pages) <= count:
        return pages
    return pages[((np.arange(count) + generator.random()) / count * len(pages)).astype(np.int64)]


async def _read(guest: Inspection, pages: Numbers) -> bytes:
    return await guest.read(array("Q", pages.tobytes())) if len(pages) else b""


async def _by_counting(guest: Inspection, effort: Effort, why: Unsupported) -> GuestReading:
    """Let the hypervisor count; of content nothing is known then."""
    lengths = (*_COUNTED, *(_LONGER if effort.bursts > 2 else ())) * max(1, effort.bursts // 2)  # noqa: PLR2004
    counts = [await guest.written(length) for length in lengths]
    samples = [DirtySample(each.window, each.pages, each.error) for each in counts]
    memory = MemoryProfile(guest.pages * PAGE, dirty=curve_from_counts(samples, guest.pages))
    note = f"{why.what} The hypervisor counted dirty pages; content is taken as incompressible."
    return GuestReading(memory, {}, notes=(note,))


def _busiest(before: Sequence[float], after: Sequence[float], seconds: float) -> float:
    """Return the share of its time that the busiest vCPU ran; 1 where that is not known."""
    shares = [(last - first) / seconds for first, last in zip(before, after, strict=False)]
    return min(1.0, max(0.01, *shares)) if shares else 1.0


def _with(found: GuestReading, busy: float, free: int | None) -> GuestReading:
    """Add what was told meanwhile; free pages that are zero cost nothing anyway.

    The guest's kernel tells how much is free, not which pages. Empty stretches are taken for
    free; what is free besides has content as often as all memory outside of them.
    """
    memory = replace(found.memory, busy_share=busy)
    if free is None:
        unknown = "What the guest calls free is not known: it has no balloon, or no driver."
        return replace(found, memory=memory, notes=(*found.notes, unknown))
    used = max(1.0, memory.pages - found.empty)
    full = min(1.0, (1.0 - memory.zero_share) * memory.pages / used)
    hintable = round(max(0.0, free - found.empty * PAGE) * full)
    return replace(found, memory=replace(memory, free=free, free_hintable=hintable))

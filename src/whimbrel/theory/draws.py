"""A survey as arrays: one entry per draw of what its uncertainty leaves open."""

from dataclasses import dataclass, fields
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from whimbrel.model.memory import MemoryProfile, Survey
from whimbrel.model.method import Tuning
from whimbrel.model.units import GIB, PAGE
from whimbrel.theory.arrays import Flags, Floats, Ints

HEADERS = 0.003
"""Share of the stream's bytes that headers add at the network interface: 66 bytes (Ethernet, IPv4,
TCP with timestamps) on each of the segments of 8 to 64 KiB that the kernel hands to a card."""

HEADERS_ERROR = 0.7
"""Its relative uncertainty: the kernel cuts smaller segments for slower links."""

WAKING_ERROR = 0.5
"""Relative uncertainty of how many pages a guest waits for first in post-copy: which of them are
missing, and what else the guest touches in between, is chance."""

ANSWER_ERROR = 0.3
"""Relative uncertainty of how long a guest takes at the destination until it answers: it has to
wait for cores like any other program."""


@dataclass(frozen=True)
class Draws:
    """What one simulation takes for true, D times.

    Attributes:
        goodput: Bytes per second for the tuning's number of streams, shape (D,).
        zero: Zero pages, (D,).
        untouched: Share of them that the source never provided.
        blank: Zero pages among those that the guest calls free and the first pass skips, (D,);
            not counted in `zero`.
        hinted: Pages with content among them, (D,).
        still: Other pages that are never written, (D,).
        pages: Pages per class, (D, K).
        rates: Writes per page and second per class, (D, K).
        cyclic: Which classes are written in turn, (K,).
        first_ratio: Wire ratio in the first pass, (D,).
        later_ratio: Wire ratio from the second pass on, (D,).
        headers: Share that the network's own headers add to the bytes of the stream, (D,).
        waking: Factor on the pages that a guest waits for first in post-copy, (D,).
        answer: Factor on the seconds until it answers at the destination, (D,).
        source_cost: Factor on the source's seconds, (D,).
        destination_cost: Factor on the destination's seconds, (D,).
    """

    goodput: Floats
    zero: Floats
    untouched: float
    blank: Floats
    hinted: Floats
    still: Floats
    pages: Floats
    rates: Floats
    cyclic: Flags
    first_ratio: Floats
    later_ratio: Floats
    headers: Floats
    waking: Floats
    answer: Floats
    source_cost: Floats
    destination_cost: Floats

    @property
    def count(self) -> int:
        """The number of draws, D."""
        return len(self.goodput)

    def only(self, which: Ints) -> "Draws":
        """Return the draws with these indices."""
        common = {"untouched": self.untouched, "cyclic": self.cyclic}
        return Draws(
            **common,  # type: ignore[arg-type]
            **{
                each.name: getattr(self, each.name)[which]
                for each in fields(self)
                if each.name not in common
            },
        )


def draw(
    survey: Survey, tuning: Tuning, generator: np.random.Generator | None = None, count: int = 1
) -> Draws:
    """Draw from the survey's uncertainty; without a generator, take its best estimate.

    Positive quantities vary log-normally, the zero share normally within 0 to 1.
    """
    memory, link = survey.memory, survey.link
    ratio = memory.ratio(tuning.compression)

    def vary(error: float) -> Floats:
        if generator is None:
            return np.ones(count)
        return np.exp(error * _normals(generator, count))

    curve = memory.dirty
    zero, pages, gathered = _split(survey, vary(curve.size_error), generator, count)
    rates = np.array([each.rate for each in curve.classes]) * gathered
    rest = memory.pages - zero - pages.sum(axis=1)
    told = memory.free / PAGE * tuning.free_page_hints
    hinted = np.minimum(hintable(memory) * tuning.free_page_hints, rest)
    blank = np.clip(told - hinted, 0.0, zero)
    # The same deviates for both passes: what streams make of single pages is in both ratios.
    compressing = np.zeros(count) if generator is None else _normals(generator, count)
    return Draws(
        goodput=link.goodput_for(tuning.channels or 1) * vary(link.error),
        zero=zero - blank,
        untouched=memory.untouched_share / max(memory.zero_share, memory.untouched_share, 1e-12),
        blank=blank,
        hinted=hinted,
        still=rest - hinted,
        pages=pages,
        rates=rates * vary(curve.rate_error)[:, None],
        cyclic=np.array([each.cyclic for each in curve.classes], dtype=np.bool_),
        first_ratio=ratio.all * np.exp(ratio.error * compressing),
        later_ratio=ratio.dirty * np.exp(ratio.later_error * compressing),
        headers=HEADERS * vary(HEADERS_ERROR),
        waking=vary(WAKING_ERROR),
        answer=vary(ANSWER_ERROR),
        source_cost=vary(survey.source.error),
        destination_cost=vary(survey.destination.error),
    )


def _normals(generator: np.random.Generator, count: int) -> Floats:
    """Draw standard normal deviates, one from each of `count` equally likely strata.

    So a median over the draws is that of the distribution, and not off by chance (a Latin
    hypercube: McKay, Beckman, Conover 1979).
    """
    if count == 1:
        return generator.standard_normal(1)
    return generator.permutation(_strata(count))


@lru_cache(maxsize=8)
def _strata(count: int) -> Floats:
    """Return the medians of so many equally likely strata of the standard normal, (D,)."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((each + 0.5) / count) for each in range(count)])


KEPT = 5632
"""Pages of each zone that a Linux with huge pages keeps free (mm/khugepaged.c,
set_recommended_min_free_kbytes): 512 in a block, 2 and 3 * 3 blocks; 22 MiB."""

KEPT_AT_MOST = 0.05
"""Share of memory beyond which it keeps none."""

HIGH = 2.75 * GIB
"""Memory from which QEMU's q35 has some above 4 GiB, and Linux a third zone (pc_q35.c)."""


def hintable(memory: MemoryProfile) -> float:
    """Return the free pages with content that free page hints reach.

    The balloon takes pages as anybody does who may not reclaim (virtio_balloon.c,
    VIRTIO_BALLOON_FREE_PAGE_ALLOC_FLAG), so what the kernel keeps at least it does not get.
    """
    zones = 3 if memory.total >= HIGH else 2
    kept = min(zones * KEPT, KEPT_AT_MOST * memory.pages)
    return max(0.0, memory.free_hintable / PAGE - kept)


def _split(
    survey: Survey, size: Floats, generator: np.random.Generator | None, count: int
) -> tuple[Floats, Floats, Floats]:
    """Return zero pages (D,), written pages (D, K), and the factors on their rates (D, K).

    Together they are never more than there are.
    """
    memory = survey.memory
    share = np.full(count, memory.zero_share)
    if generator is not None:
        share = np.clip(share + memory.zero_error * _normals(generator, count), 0.0, 1.0)
    zero = share * memory.pages
    counts = np.array([each.pages for each in memory.dirty.classes], dtype=np.float64)
    rates = np.array([each.rate for each in memory.dirty.classes], dtype=np.float64)
    wanted = counts * size[:, None]
    room = np.maximum(memory.pages - zero - memory.free_hintable / PAGE, 0.0)
    pages = _gathered(wanted, rates, room)
    # The dirty pages were seen to change, so where the two overlap the zero share gives way.
    fitting = np.minimum(1.0, memory.pages / np.maximum(pages.sum(axis=1), 1.0))
    fewer = wanted / np.maximum(pages, 1e-12)
    pages = pages * fitting[:, None]
    return np.minimum(zero, memory.pages - pages.sum(axis=1)), pages, fewer


LEAST = 0.1
"""Share of its pages that a class keeps at least when it is gathered."""


def _gathered(pages: Floats, rates: Floats, room: Floats) -> Floats:
    """Return the pages of each class where all of them have so much room, (D, K).

    Within a few seconds a slow class shows how often it is written, not over how many pages: a
    fit may spread it over memory that nobody uses. So the slowest give way first, and the same
    writes then fall on fewer pages.

    Args:
        pages: As they were fitted, (D, K).
        rates: Writes per page and second, (K,).
        room: Pages that may be written at all, (D,).
    """
    order = np.argsort(-rates, kind="stable")
    sorted_pages = pages[:, order]
    faster = np.cumsum(sorted_pages, axis=1) - sorted_pages
    kept = np.clip(room[:, None] - faster, LEAST * sorted_pages, sorted_pages)
    found: Floats = kept[:, np.argsort(order, kind="stable")]
    return found

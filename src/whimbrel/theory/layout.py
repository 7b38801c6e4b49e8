"""Guest memory in address order: segments, their pages by class, and dirty-log chunks."""

from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.memory import MemoryProfile
from whimbrel.model.units import PAGE
from whimbrel.theory.arrays import Flags, Floats, Ints
from whimbrel.theory.draws import Draws
from whimbrel.theory.rules import QemuRules

ZERO, BLANK, HINTED, STILL, WRITTEN = 0, 1, 2, 3, 4
"""Where the kinds of pages stand among the K classes; from `WRITTEN` on the dirty classes.

Zero pages, zero pages that the guest calls free, pages with content that it calls free, and
other pages that are never written. What is called free is zero when it is sent at all.
"""

FINEST = 64
"""Segments beyond which smaller chunks count as cleared when their own pages are sent."""


@dataclass(frozen=True)
class Layout:
    """Pages by segment and class, and how the dirty log is cleared over them.

    Attributes:
        cells: Pages per draw, segment and class, (D, S, K).
        rates: Writes per page and second, (D, K).
        cyclic: Which classes are written in turn, (K,).
        chunk_starts: First segment of each chunk, (C,).
        chunk_of: Chunk of each segment, (S,).
        chunked: False where no chunk is cleared before sending (TCG).
        fine: Chunks are smaller than segments, so a page's log is cleared as it is sent.
    """

    cells: Floats
    rates: Floats
    cyclic: Flags
    chunk_starts: Ints
    chunk_of: Ints
    chunked: bool
    fine: bool

    @property
    def segments(self) -> int:
        """The number of segments, S."""
        return len(self.chunk_of)

    def only(self, which: Ints) -> "Layout":
        """Return the draws with these indices."""
        return replace(self, cells=self.cells[which], rates=self.rates[which])


def lay_out(memory: MemoryProfile, draws: Draws, rules: QemuRules, *, segments: int) -> Layout:
    """Spread the draws' pages over address space.

    Args:
        memory: Says where memory with content lies.
        draws: The pages of each class.
        rules: The size of a dirty-log chunk.
        segments: About how many segments to make; at least one per chunk up to `FINEST`.
    """
    chunk = min(rules.chunk_pages or memory.pages, memory.pages)
    fine = chunk * FINEST < memory.pages
    edges = _edges(memory.pages, memory.pages if fine else chunk, FINEST if fine else segments)
    sizes = np.diff(edges)
    content = _content(memory, edges)
    chunk_of = np.arange(len(sizes)) if fine else (edges[:-1] // chunk).astype(np.int64)
    starts = np.searchsorted(chunk_of, np.unique(chunk_of))
    kinds = np.column_stack([draws.hinted, draws.still, draws.pages])
    filled = _fitting(content[None, :, None] * kinds[:, None, :], sizes)
    empty = np.maximum(sizes - filled.sum(axis=2), 0.0)
    told = draws.blank / np.maximum(draws.blank + draws.zero, 1.0)
    blank = empty * told[:, None]
    still = np.zeros((draws.count, WRITTEN))
    return Layout(
        cells=np.concatenate([(empty - blank)[:, :, None], blank[:, :, None], filled], axis=2),
        rates=np.concatenate([still, draws.rates], axis=1),
        cyclic=np.concatenate([np.zeros(WRITTEN, dtype=np.bool_), draws.cyclic]),
        chunk_starts=starts.astype(np.int64),
        chunk_of=chunk_of,
        chunked=rules.chunk_pages is not None,
        fine=fine,
    )


def _fitting(filled: Floats, sizes: Floats) -> Floats:
    """Return pages by segment, (D, S, K), none fuller than it is large; none is lost."""
    whole = filled.sum(axis=2)
    kept = filled * np.minimum(1.0, sizes / np.maximum(whole, 1e-9))[:, :, None]
    over = (filled - kept).sum(axis=1)
    room = np.maximum(sizes - whole, 0.0)
    share = room / np.maximum(room.sum(axis=1, keepdims=True), 1e-9)
    spread: Floats = kept + share[:, :, None] * over[:, None, :]
    return spread


def _edges(pages: int, chunk: float, segments: int) -> Floats:
    """Return the pages at which segments begin and end; every chunk begins one, (S + 1,)."""
    chunks = int(np.ceil(pages / chunk))
    each = max(1, round(segments / chunks))
    starts = np.arange(chunks * each) * (chunk / each)
    return np.append(starts[starts < pages], float(pages))


def _content(memory: MemoryProfile, edges: Floats) -> Floats:
    """Return each segment's share of all memory with content, (S,); adds up to 1."""
    if memory.content:
        parts = np.linspace(0, memory.pages, len(memory.content) + 1)
        below = np.concatenate([[0.0], np.cumsum(memory.content)])
        told: Floats = np.diff(np.interp(edges, parts, below / below[-1]))
        return told
    first, last = memory.extent or (0, memory.total)
    within = np.clip(edges, first / PAGE, last / PAGE)
    share: Floats = np.diff(within) / (within[-1] - within[0])
    return share

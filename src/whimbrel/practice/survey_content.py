"""What pages hold: how far each codec shortens them, as streams do, and how fast. Pure but for CPU.

A page compressed alone tells the level, from many pages all over memory; a stream does better than
pages alone, by a factor that a few runs tell (docs/survey.md). What an accelerator does is taken
for what zlib does at its lowest level: the same format, and no slower. QEMU keeps one stream per
channel and flushes it once per packet of 128 pages (multifd-zlib.c 95-161, multifd-zstd.c
91-148); so do we. Zero pages never reach a codec and are left out.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

from whimbrel.model.memory import WireRatio
from whimbrel.model.method import Codec, Compression
from whimbrel.model.units import PAGE
from whimbrel.practice.gently import a_busy_neighbour

Packet = Sequence[bytes]
Stream = Callable[[Packet], bytes]
"""Compresses one packet of pages within its stream and returns what leaves it."""

_Piece = TypeVar("_Piece")
_Clocked = tuple[list[bytes], NDArray[np.float64]]

_UNKNOWN_ERROR = 0.2
"""Relative error of a ratio that too few pages stand behind."""

_FEW = 8

_LEAST_TRIALS, _MOST_TRIALS = 2, 6
"""How often the runs are compressed to time it."""

_ENOUGH = 0.3
"""CPU seconds of trials after which there are no more than the least."""


@dataclass(frozen=True)
class Shortened:
    """What one codec made of the samples.

    Attributes:
        ratio: Compressed over raw bytes, corrected to streams.
        speed: Raw bytes per CPU second, within streams and beside a busy core; 0: not measured.
        restoring: Raw bytes per CPU second to restore them, likewise; 0: not measured.
    """

    ratio: WireRatio
    speed: float
    restoring: float = 0.0


def split(content: bytes) -> list[bytes]:
    """Cut content into pages, leaving out those that are zero."""
    pages = [content[start : start + PAGE] for start in range(0, len(content), PAGE)]
    zero = bytes(PAGE)
    return [page for page in pages if page != zero]


def shortened(
    compression: Compression, alone: Packet, dirtied: Packet, runs: Sequence[Packet]
) -> Shortened | None:
    """Measure one codec at one level.

    Args:
        compression: The codec and level.
        alone: Non-zero pages from all over memory.
        dirtied: Non-zero pages that were written lately.
        runs: Non-zero pages as they lie in memory, up to 128 in each.

    Returns:
        None where there is no page to measure.
    """
    if not alone and not dirtied:
        return None
    found = _streamed(compression, [run for run in runs if run])
    single = _sizes(compression, alone or dirtied)
    later = _sizes(compression, dirtied or alone)
    ratio = WireRatio(
        all=float(single.mean()) * found.correction,
        dirty=float(later.mean()) * found.correction,
        error=float(np.hypot(_error(single), found.doubt)),
        dirty_error=float(np.hypot(_error(later), found.doubt)),
    )
    return Shortened(ratio, found.speed, found.restoring)


def stream(compression: Compression) -> Stream:
    """Return a new stream of the codec, as one channel of QEMU keeps it."""
    if compression.codec is not Codec.ZSTD:
        deflate = zlib.compressobj(compression.level)

        def zlib_packet(pages: Packet) -> bytes:
            return b"".join(map(deflate.compress, pages)) + deflate.flush(zlib.Z_SYNC_FLUSH)

        return zlib_packet
    encoder = zstandard.ZstdCompressor(level=compression.level).compressobj()

    def zstd_packet(pages: Packet) -> bytes:
        begun = b"".join(map(encoder.compress, pages))
        return begun + encoder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    return zstd_packet


def difference(before: bytes, after: bytes) -> float | None:
    """Return the mean bytes of a rewritten page as a difference (XBZRLE).

    Args:
        before: Pages one after the other.
        after: The same pages later; those that did not change are left out.

    Returns:
        None where no page changed.
    """
    old, new = (np.frombuffer(each, dtype=np.uint8).reshape(-1, PAGE) for each in (before, after))
    changed = old != new
    rewritten = changed.any(axis=1)
    if not rewritten.any():
        return None
    changed = changed[rewritten]
    starts = np.diff(changed, axis=1, prepend=False) & changed
    # Each stretch is led by two lengths of 1 or 2 bytes (xbzrle.c); one too long is sent whole.
    sizes = changed.sum(axis=1) + 3 * starts.sum(axis=1)
    return float(np.minimum(sizes, PAGE).mean())


@dataclass(frozen=True)
class _Streamed:
    """What streams make of runs: bytes over those of single pages, its error, and speeds."""

    correction: float = 1.0
    doubt: float = _UNKNOWN_ERROR
    speed: float = 0.0
    restoring: float = 0.0


def _streamed(compression: Compression, runs: Sequence[Packet]) -> _Streamed:
    if not runs:
        return _Streamed()
    single = np.array([_sizes(compression, run).sum() * PAGE for run in runs])
    with a_busy_neighbour():
        tried = _trials(compression, runs)
    packets = tried[0].packets
    raw = sum(len(run) for run in runs) * PAGE
    streamed = np.array([len(each) for each in packets], dtype=np.float64)
    correction = float(streamed.sum() / single.sum())
    rest = streamed - correction * single
    few = len(runs) < 3  # noqa: PLR2004 - a spread needs three values
    spread = _UNKNOWN_ERROR if few else float(rest.std(ddof=1) * np.sqrt(len(runs)) / single.sum())
    # Each run's quickest trial tells what a core can do; the others met something else besides.
    compressing = np.min([each.compressing for each in tried], axis=0).sum()
    restoring = np.min([each.restoring for each in tried], axis=0).sum()
    return _Streamed(correction, spread, float(raw / compressing), float(raw / restoring))


@dataclass(frozen=True)
class _Timed:
    """Packets of one stream, and the CPU seconds to make and to restore each of them."""

    packets: list[bytes]
    compressing: NDArray[np.float64]
    restoring: NDArray[np.float64]

    @property
    def seconds(self) -> float:
        """CPU seconds in all."""
        return float(self.compressing.sum() + self.restoring.sum())


def _trials(compression: Compression, runs: Sequence[Packet]) -> list[_Timed]:
    tried: list[_Timed] = []
    while len(tried) < _LEAST_TRIALS or (
        len(tried) < _MOST_TRIALS and sum(each.seconds for each in tried) < _ENOUGH
    ):
        tried.append(_timed(compression, runs))
    return tried


def _timed(compression: Compression, runs: Sequence[Packet]) -> _Timed:
    packet, restore = stream(compression), restorer(compression)
    packets, compressing = _clocked(packet, runs)
    _, restoring = _clocked(restore, packets)
    return _Timed(packets, compressing, restoring)


def _clocked(work: Callable[[_Piece], bytes], pieces: Sequence[_Piece]) -> _Clocked:
    """Return what `work` made of each piece, and the CPU seconds that it took."""
    made, clock = [], [time.thread_time()]
    for piece in pieces:
        made.append(work(piece))
        clock.append(time.thread_time())
    return made, np.maximum(np.diff(clock), 1e-9)


def restorer(compression: Compression) -> Callable[[bytes], bytes]:
    """Return what restores the packets of one stream, in their order."""
    if compression.codec is not Codec.ZSTD:
        return zlib.decompressobj().decompress
    return zstandard.ZstdDecompressor().decompressobj().decompress


def _sizes(compression: Compression, pages: Packet) -> NDArray[np.float64]:
    """Return compressed over raw bytes of each page alone."""
    if compression.codec is not Codec.ZSTD:
        sizes = [len(zlib.compress(page, compression.level)) for page in pages]
    else:
        encoder = zstandard.ZstdCompressor(level=compression.level)
        sizes = [len(encoder.compress(page)) for page in pages]
    return np.array(sizes, dtype=np.float64) / PAGE


def _error(ratios: NDArray[np.float64]) -> float:
    if len(ratios) < _FEW:
        return _UNKNOWN_ERROR
    return float(ratios.std(ddof=1) / np.sqrt(len(ratios)) / ratios.mean())

import math

import pytest

from whimbrel.model.memory import (
    DirtyCurve,
    HostProfile,
    LinkProfile,
    MemoryProfile,
    PageClass,
    WireRatio,
)
from whimbrel.model.method import Codec, Compression
from whimbrel.model.units import GIB

ZSTD_1 = Compression(Codec.ZSTD, 1)
ZSTD_9 = Compression(Codec.ZSTD, 9)
ZLIB_1 = Compression(Codec.ZLIB, 1)


def test_a_random_class_saturates_and_a_cyclic_one_comes_to_its_end() -> None:
    random, cyclic = PageClass(1000, 0.5), PageClass(1000, 0.5, cyclic=True)
    assert random.distinct(2.0) == pytest.approx(1000 * (1 - math.exp(-1)))
    assert cyclic.distinct(1.0) == 500
    assert cyclic.distinct(2.0) == cyclic.distinct(9.0) == 1000


def test_a_curve_is_the_sum_of_its_classes() -> None:
    curve = DirtyCurve((PageClass(10, 1), PageClass(20, 0.1, cyclic=True), PageClass(70, 0)))
    assert curve.distinct(1.0) == pytest.approx(10 * (1 - math.exp(-1)) + 2)
    assert curve.working_set == 30
    assert curve.write_rate == pytest.approx(12)


def test_no_curve_dirties_nothing() -> None:
    assert DirtyCurve().distinct(10.0) == 0


def test_the_nearest_level_of_the_same_codec_stands_in() -> None:
    memory = MemoryProfile(GIB, ratios={ZSTD_1: WireRatio(0.4, 0.5), ZSTD_9: WireRatio(0.3, 0.4)})
    assert memory.ratio(Compression(Codec.ZSTD, 3)).all == 0.4
    assert memory.ratio(Compression(Codec.ZSTD, 8)).all == 0.3


def test_memory_of_unknown_ratio_counts_as_incompressible() -> None:
    memory = MemoryProfile(GIB, ratios={ZSTD_1: WireRatio(0.4, 0.5)})
    assert memory.ratio(ZLIB_1) == memory.ratio(None) == WireRatio(1.0, 1.0)


def test_a_codec_of_unknown_speed_is_no_bottleneck() -> None:
    host = HostProfile(compress_speed={ZSTD_1: 4e8})
    assert host.compression_speed(ZSTD_9) == 4e8
    assert math.isinf(host.compression_speed(ZLIB_1))


def test_a_link_tells_the_goodput_of_the_nearest_stream_count() -> None:
    link = LinkProfile({1: 1e8, 4: 3e8})
    assert [link.goodput_for(n) for n in (1, 2, 3, 4, 16)] == [1e8, 1e8, 3e8, 3e8, 3e8]

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.method import Codec, Compression
from whimbrel.model.units import PAGE
from whimbrel.practice.survey_content import difference, restorer, shortened, split, stream

BOTH = [Compression(Codec.ZLIB, 1), Compression(Codec.ZSTD, 1)]
CHANCE = np.random.default_rng(5)
NOISE = [CHANCE.bytes(PAGE) for _ in range(64)]
HALF = [CHANCE.bytes(PAGE // 2) + bytes(PAGE // 2) for _ in range(64)]
SAME = [(b"The quick brown fox. %8d" % 7 * 200)[:PAGE]] * 64


def test_zero_pages_are_left_out() -> None:
    assert split(bytes(PAGE) + NOISE[0] + bytes(PAGE)) == [NOISE[0]]
    assert split(b"") == []


@pytest.mark.parametrize("compression", BOTH)
def test_noise_stays_as_long_as_it_is(compression: Compression) -> None:
    found = shortened(compression, NOISE, NOISE, [NOISE[:32], NOISE[32:48], NOISE[48:]])
    assert found is not None
    assert found.ratio.all == pytest.approx(1.0, abs=0.01)
    assert found.speed > 1e4  # bytes per second, not pages nor MB


@pytest.mark.parametrize("compression", BOTH)
def test_dirtied_pages_have_a_ratio_of_their_own(compression: Compression) -> None:
    found = shortened(compression, NOISE, HALF, [NOISE[:20], NOISE[20:40], NOISE[40:]])
    assert found is not None
    assert found.ratio.all == pytest.approx(1.0, abs=0.02)
    assert found.ratio.dirty == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("compression", BOTH)
def test_what_repeats_from_page_to_page_is_found_by_the_stream_only(
    compression: Compression,
) -> None:
    # Pages of noise that all are the same: a page alone cannot be shortened, a stream can.
    alike = [NOISE[0]] * 64
    found = shortened(compression, alike, alike, [alike, alike, alike])
    assert found is not None
    assert found.ratio.all < 0.2


def test_few_pages_are_not_trusted() -> None:
    found = shortened(BOTH[0], NOISE[:3], [], [])
    assert found is not None
    assert found.ratio.error >= 0.2
    assert shortened(BOTH[0], [], [], []) is None


def test_a_stream_can_be_read_back() -> None:
    for compression in BOTH:
        packet, restore = stream(compression), restorer(compression)
        for pages in (SAME, NOISE[:5], SAME):
            assert restore(packet(pages)) == b"".join(pages)


def test_what_can_be_compressed_can_be_timed_both_ways() -> None:
    found = shortened(BOTH[0], SAME, SAME, [SAME, SAME, SAME])
    assert found is not None
    assert found.speed > 0
    assert found.restoring > 0


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_a_difference_is_as_long_as_what_changed(changed: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    before = np.frombuffer(chance.bytes(2 * PAGE), dtype=np.uint8).copy()
    after = before.copy()
    after[100 : 100 + changed] ^= 1
    found = difference(before.tobytes(), after.tobytes())
    assert found == changed + 3


def test_pages_that_did_not_change_have_no_difference() -> None:
    assert difference(NOISE[0], NOISE[0]) is None
    assert difference(NOISE[0], NOISE[1]) == PAGE
    assert difference(b"", b"") is None

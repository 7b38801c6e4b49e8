import pytest

from whimbrel.model.memory import HostProfile, WireRatio
from whimbrel.model.method import Codec, Compression
from whimbrel.practice.survey_content import Shortened
from whimbrel.practice.survey_host import (
    Idle,
    copying,
    costed,
    facts,
    first_touch,
    idle_now,
    spare_cores,
)


def test_what_the_survey_itself_used_counts_as_spare() -> None:
    assert spare_cores(Idle(10.0, 100.0), Idle(14.0, 102.0), own=1.0) == pytest.approx(0.75)
    assert spare_cores(Idle(10.0, 100.0), Idle(10.0, 90.0), own=0.0) == 0.0


def test_idle_time_never_runs_back_by_much() -> None:
    first, second = idle_now(), idle_now()
    assert second.at >= first.at
    assert second.idle >= first.idle - 0.1


def test_every_core_belongs_to_a_node() -> None:
    found = facts()
    assert found.cores >= 1
    assert found.available_memory > 1 << 20
    if found.nodes:
        assert sum(len(node.cores) for node in found.nodes) >= found.cores


def test_costs_are_small_and_above_zero() -> None:
    assert 0 <= first_touch(4 << 20) < 1e-3
    sent, received = copying(4 << 20)
    assert 0 < sent < 1e-3
    assert 0 <= received < 1e-3


def test_what_only_moves_can_tell_is_kept() -> None:
    zstd, zlib = Compression(Codec.ZSTD, 1), Compression(Codec.ZLIB, 1)
    base = HostProfile(setup_seconds=0.5, state_bytes=1234, compress_speed={zlib: 5e7, zstd: 1e8})
    ratio = WireRatio(0.5, 0.5)
    timed = {zstd: Shortened(ratio, 3e8, 9e8), zlib: Shortened(ratio, 0.0)}
    found = costed(base, 1.5, timed, 4 << 20)
    assert (found.setup_seconds, found.state_bytes, found.spare_cores) == (0.5, 1234, 1.5)
    assert found.compress_speed == {zlib: 5e7, zstd: 3e8}
    assert found.restore_speed == {zstd: 9e8}

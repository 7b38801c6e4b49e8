import numpy as np
import pytest

from unit.theory.guests import KVM, lcg_guest
from whimbrel.model.memory import LinkProfile, MemoryProfile, Survey, WireRatio
from whimbrel.model.method import Codec, Compression, Tuning
from whimbrel.model.units import GIB, MIB
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate
from whimbrel.theory.throttling import Throttle

CHANGES = [
    ("raw_accounting", (8, 0), (8, 1)),
    ("clears_log_when_stopped", (10, 0), (10, 1)),
]
ADDITIONS = [
    ("flush_per_pass", (8, 0), (8, 1)),
    ("zero_pages_in_channels", (8, 2), (9, 0)),
    ("forced_throttle_sync", (9, 1), (9, 2)),
    ("postcopy_with_channels", (10, 0), (10, 1)),
    ("completes_at_threshold", (10, 1), (10, 2)),
]


@pytest.mark.parametrize(("rule", "last", "first"), CHANGES)
def test_a_rule_that_was_dropped_holds_up_to_its_last_release(
    rule: str, last: tuple[int, int], first: tuple[int, int]
) -> None:
    assert getattr(QemuRules.of(last, "kvm"), rule)
    assert not getattr(QemuRules.of(first, "kvm"), rule)


@pytest.mark.parametrize(("rule", "last", "first"), ADDITIONS)
def test_a_rule_that_was_added_holds_from_its_first_release(
    rule: str, last: tuple[int, int], first: tuple[int, int]
) -> None:
    assert not getattr(QemuRules.of(last, "kvm"), rule)
    assert getattr(QemuRules.of(first, "kvm"), rule)


def test_tcg_has_no_chunks() -> None:
    assert QemuRules.of((10, 0), "tcg").chunk_pages is None
    assert QemuRules.of((10, 0), "kvm").chunk_pages == 1 << 18


def test_before_9_2_a_long_pass_delays_the_throttle() -> None:
    survey = lcg_guest(60_000, busy_share=60 / 190)
    tuning = Tuning(bandwidth_limit=200.0 * MIB, throttling=True)
    new = simulate(survey, tuning, KVM)
    old = simulate(survey, tuning, QemuRules.of((9, 1), "kvm"))
    assert new.completed
    assert old.total_time > new.total_time


def test_counting_wire_bytes_makes_the_threshold_of_compressed_moves_stricter() -> None:
    # Pending counts raw bytes; from 8.1 on the bandwidth it is held against counts wire bytes.
    codec = Compression(Codec.ZSTD, 1)
    memory = MemoryProfile(
        2 * GIB, dirty=uniform(100_000, 30_000), ratios={codec: WireRatio(0.4, 0.4)}
    )
    survey = Survey(memory, LinkProfile({2: 117e6}))
    tuning = Tuning(channels=2, compression=codec)
    old = simulate(survey, tuning, QemuRules.of((7, 2), "kvm"))
    new = simulate(survey, tuning, KVM)
    assert old.passes[-1].remaining > new.passes[-1].remaining
    assert old.downtime > new.downtime
    assert old.counted_bytes > old.wire_bytes


def test_every_throttle_step_needs_two_dirty_periods() -> None:
    survey = lcg_guest(60_000)
    course = simulate(survey, Tuning(bandwidth_limit=100e6, throttling=True), KVM, deadline=90)
    levels = sorted({point.throttle for point in course.trace})
    assert levels[:3] == pytest.approx([0.0, 0.2, 0.3])
    changed = {t: min(p.at for p in course.trace if p.throttle == t) for t in levels}
    steps = np.diff([changed[t] for t in levels[1:]])
    assert (steps > 5).all()


def test_a_throttle_begins_at_nothing() -> None:
    assert Throttle.off(np.zeros(3)).level.tolist() == [0, 0, 0]

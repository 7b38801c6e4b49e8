from dataclasses import replace

import pytest

from unit.theory.guests import KVM, still_guest
from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey, WireRatio
from whimbrel.model.method import Codec, Compression, PreparedMemory, Tuning
from whimbrel.model.units import GIB
from whimbrel.theory.draws import draw
from whimbrel.theory.rates import Costs, costs, limited
from whimbrel.theory.rules import QemuRules

ZSTD = Compression(Codec.ZSTD, 1)


def cost_of(survey: Survey, tuning: Tuning, rules: QemuRules = KVM) -> Costs:
    return costs(survey, tuning, rules, draw(survey, tuning))


def compressible(*, speed: float) -> Survey:
    memory = MemoryProfile(total=GIB, ratios={ZSTD: WireRatio(0.25, 0.5)})
    host = HostProfile(spare_cores=8, compress_speed={ZSTD: speed})
    return Survey(memory, LinkProfile({2: 1e8}), host, host)


def test_a_plain_page_takes_4104_bytes_and_a_zero_page_9() -> None:
    cost = cost_of(still_guest(), Tuning())
    assert (cost.first.wire[0], cost.zero.wire[0]) == (4104, 9)


def test_a_multifd_page_carries_its_share_of_the_packet_header() -> None:
    cost = cost_of(still_guest(), Tuning(channels=2))
    assert (cost.first.wire[0], cost.zero.wire[0]) == (4096 + 10.5, 10.5)


def test_before_9_0_the_main_channel_carries_zero_pages() -> None:
    cost = cost_of(still_guest(), Tuning(channels=2), QemuRules.of((8, 2), "kvm"))
    assert cost.zero.wire[0] == 9


def test_up_to_8_0_multifd_counts_raw_bytes_whatever_is_on_the_wire() -> None:
    tuning = Tuning(channels=2, compression=ZSTD)
    old = cost_of(compressible(speed=1e12), tuning, QemuRules.of((7, 2), "kvm"))
    new = cost_of(compressible(speed=1e12), tuning)
    assert old.first.wire[0] == new.first.wire[0] == new.first.counted[0]
    assert old.first.counted[0] == 4096 + 10.5


def test_dirty_pages_compress_at_their_own_ratio_from_the_second_pass_on() -> None:
    cost = cost_of(compressible(speed=1e12), Tuning(channels=2, compression=ZSTD))
    assert cost.first.wire[0] == 0.25 * 4096 + 10.5
    assert cost.later.wire[0] == 0.5 * 4096 + 10.5


def test_compression_is_as_slow_as_the_slower_of_link_and_cores() -> None:
    tuning = Tuning(channels=2, compression=ZSTD)
    by_link = cost_of(compressible(speed=1e12), tuning)
    by_cores = cost_of(compressible(speed=5e7), tuning)
    assert by_link.first.seconds[0] == pytest.approx((0.25 * 4096 + 10.5) / 1e8)
    assert by_cores.first.seconds[0] == pytest.approx(4096 / 5e7 / 2, rel=0.02)


def test_a_limit_slows_pages_down_to_it_and_none_changes_nothing() -> None:
    cost = cost_of(still_guest(link=1e9), Tuning())
    slow = limited(cost, 1e8)
    assert slow.first.seconds[0] == pytest.approx(4104 / 1e8)
    assert limited(cost, None) is cost


def test_a_zero_page_is_limited_by_the_search_and_not_by_the_link() -> None:
    survey = still_guest(link=1e9)
    assert cost_of(survey, Tuning()).zero.seconds[0] == survey.source.zero_seconds


def test_prepared_memory_saves_the_first_touch_in_the_first_pass_only() -> None:
    slow_touch = HostProfile(touch_seconds=1e-5)
    survey = Survey(MemoryProfile(GIB), LinkProfile({1: 1e10}), HostProfile(), slow_touch)
    raw, ready = (
        cost_of(survey, Tuning()),
        cost_of(survey, Tuning(prepared_memory=PreparedMemory())),
    )
    assert raw.first.seconds[0] > 1e-5 > ready.first.seconds[0]
    assert raw.later.seconds[0] == ready.later.seconds[0]


def test_a_difference_is_never_larger_than_the_page() -> None:
    memory = MemoryProfile(GIB, delta_bytes=4096)
    cost = cost_of(Survey(memory, LinkProfile({1: 1e8})), Tuning(xbzrle_cache=1 << 20))
    assert cost.difference.wire[0] == 4104


def test_two_hosts_on_one_machine_share_its_idle_cores() -> None:
    # Half the cores each would forbid a compressing sender what an idle receiver leaves it.
    compression = Compression(Codec.ZSTD, 1)
    host = HostProfile(spare_cores=1.0, compress_speed={compression: 200e6})
    apart = Survey(MemoryProfile(1 << 30), LinkProfile({1: 1e9, 2: 1e9}), host, host)
    tuning = Tuning(channels=2, compression=compression)
    lone, shared, wide = (
        costs(survey, tuning, QemuRules(), draw(survey, tuning)).later.seconds[0]
        for survey in (apart, replace(apart, shared_cores=2.0), replace(apart, shared_cores=8.0))
    )
    assert wide < shared < lone

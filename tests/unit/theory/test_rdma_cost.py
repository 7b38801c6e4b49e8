from dataclasses import replace

import pytest

from unit.theory.guests import KVM, still_guest
from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import Transport, Tuning
from whimbrel.model.units import GIB, PAGE
from whimbrel.theory.draws import draw
from whimbrel.theory.rates import Costs, costs, pinning
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate

RDMA = Tuning(transport=Transport.RDMA)
PINNED = replace(RDMA, pin_all=True)
CARD = LinkProfile({1: 1.1e9}, latency=100e-6, rdma=11e9)
HOST = HostProfile(
    pin_seconds=0.2e-6, touch_seconds=0.4e-6, copy_seconds=1e-6, receive_seconds=2e-6
)


def survey(*, link: LinkProfile = CARD, untouched: float = 0.0) -> Survey:
    memory = MemoryProfile(total=GIB, zero_share=0.5, untouched_share=untouched)
    return Survey(memory, link, HOST, HOST)


def cost_of(survey: Survey, tuning: Tuning) -> Costs:
    along = survey.along(tuning)
    return costs(along, tuning, QemuRules.of((10, 0), "kvm"), draw(along, tuning))


def test_a_cards_rate_counts_and_not_what_tcp_got() -> None:
    page = cost_of(survey(), PINNED).first
    assert page.seconds[0] == pytest.approx(PAGE / 11e9)
    assert (page.wire[0], page.counted[0]) == (PAGE, PAGE)


def test_emulated_rdma_shares_the_link_and_copies() -> None:
    fast = cost_of(survey(link=replace(CARD, rdma=None)), PINNED)
    slow = cost_of(survey(link=LinkProfile({1: 1e8})), PINNED)
    assert fast.first.seconds[0] == pytest.approx(PAGE / 1.1e9)
    assert slow.first.seconds[0] == pytest.approx(PAGE / 1e8)
    assert slow.source_cpu[0] == HOST.copy_seconds


def test_pinning_piece_by_piece_delays_first_pages_and_pinning_all_delays_the_start() -> None:
    piecewise, whole = cost_of(survey(), RDMA), cost_of(survey(), PINNED)
    asked = 100e-6 / 256 + 0.6e-6
    assert piecewise.first.seconds[0] == pytest.approx(whole.first.seconds[0] + asked)
    assert pinning(survey(), RDMA) == 0
    assert pinning(survey(), PINNED) == pytest.approx(0.6e-6 * GIB / PAGE)


def test_with_pin_all_zero_pages_travel_like_any_other() -> None:
    cost = cost_of(survey(untouched=0.5), PINNED)
    assert cost.zero.counted[0] == cost.first.counted[0] == PAGE


def test_without_it_memory_that_was_never_touched_is_only_told_of() -> None:
    assert cost_of(survey(untouched=0.5), RDMA).zero.counted[0] == 0
    assert cost_of(survey(untouched=0.25), RDMA).zero.counted[0] == PAGE / 2


def test_pages_written_again_wait_for_the_write_before_them() -> None:
    cost = cost_of(survey(), RDMA)
    assert cost.later.seconds[0] == pytest.approx(PAGE / 11e9 + 10e-6)


def test_a_move_with_pin_all_carries_all_memory() -> None:
    guest = still_guest()
    course = simulate(guest, PINNED, KVM)
    assert course.wire_bytes >= guest.memory.total

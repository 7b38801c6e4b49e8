from dataclasses import replace

import numpy as np
import pytest

from unit.records import SURVEY, moved
from unit.theory.guests import KVM, still_guest
from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import Method, StreamKind, Transport, Tuning
from whimbrel.model.units import GIB, PAGE
from whimbrel.theory.calibrate import calibrate
from whimbrel.theory.draws import draw
from whimbrel.theory.rates import Costs, costs, pinning, resent
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate

RDMA = Tuning(transport=Transport.RDMA)
PINNED = replace(RDMA, pin_all=True)
PAGES = GIB // PAGE
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


def mean(found: float, due: float, tuning: Tuning = PINNED) -> float:
    """Return the seconds of a page in a pass that found so many pages dirty."""
    cost = cost_of(survey(), tuning)
    page = resent(cost, np.full_like(cost.zero_cpu, found), np.full_like(cost.zero_cpu, due), PAGES)
    return float(page.seconds[0]) - PAGE / 11e9


def test_a_write_waits_only_for_another_into_its_chunk() -> None:
    assert mean(1, 1) < 1e-3 * 10e-6  # alone in its chunk
    assert mean(PAGES, PAGES) == pytest.approx(0, abs=1e-12)  # each chunk is one write
    # Every other page: a chunk's 128 pages come in 64.25 writes on average, one waits for none.
    half = PAGES / 2
    assert mean(half, half) == pytest.approx(10e-6 * 63.25 / 128)


def test_what_the_first_pass_left_over_waits_for_nothing_but_its_pinning() -> None:
    asked = 100e-6 / 256 + 0.6e-6
    assert mean(0, 5000) == pytest.approx(0, abs=1e-12)
    assert mean(0, 5000, RDMA) == pytest.approx(asked)
    few = mean(1000, 5000)
    assert few == pytest.approx(mean(1000, 1000) / 5)


@pytest.mark.parametrize("tuning", [RDMA, PINNED], ids=["piecewise", "pinned"])
def test_a_long_round_trip_does_not_make_the_stop_longer_page_by_page(tuning: Tuning) -> None:
    slow = replace(still_guest(), link=LinkProfile({1: 5e6}, latency=10e-3))
    course = simulate(slow, replace(tuning, downtime_limit=2.0), KVM)
    assert course.downtime < 2.5


def test_a_move_with_pin_all_carries_all_memory() -> None:
    guest = still_guest()
    course = simulate(guest, PINNED, KVM)
    assert course.wire_bytes >= guest.memory.total


@pytest.mark.parametrize("card", [None, 5e9], ids=["emulated", "a card"])
def test_slow_moves_by_rdma_teach_nothing_of_what_tcp_gets(card: float | None) -> None:
    link = replace(SURVEY.link, rdma=card)
    halved = {streams: rate / 2 for streams, rate in link.goodput.items()}
    slow = replace(link, goodput=halved, rdma=card and card / 2)
    record = moved(
        method=Method.RDMA, survey=replace(SURVEY, link=link), truth=replace(SURVEY, link=slow)
    )
    found = calibrate([record] * 9, "a", "b", before=2000.0)
    assert found.moves == 9
    assert found.link == 1.0
    assert set(found.pace) == {StreamKind.RDMA}
    next_one = simulate(found.on(replace(SURVEY, link=link)).along(RDMA), RDMA)
    assert next_one.total_time == pytest.approx(record.observed.total_time, rel=0.05)

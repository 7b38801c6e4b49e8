from dataclasses import replace

import pytest

from unit.theory.guests import still_guest
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.model.units import GIB
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.rivals import GEOMETRIC, INTERPOLATION, VOLUME, rivals

STILL = still_guest(0.25, link=1e8, memory=GIB)
BUSY = replace(STILL, memory=replace(STILL.memory, dirty=uniform(100_000, 50_000)))
TCP = tuning_for(Method.TCP, Settings())


def test_zero_pages_need_not_be_sent() -> None:
    said = rivals(STILL, TCP)[VOLUME]
    assert said.wire_bytes == pytest.approx(0.75 * GIB)
    assert said.total_time == pytest.approx(0.75 * GIB / 1e8)


def test_on_a_guest_that_does_not_write_all_models_agree() -> None:
    assert len({said.wire_bytes for said in rivals(STILL, TCP).values()}) == 1


def test_dirtying_costs_all_models_but_the_simplest() -> None:
    said = rivals(BUSY, TCP)
    for name in (GEOMETRIC, INTERPOLATION):
        assert said[name].total_time > said[VOLUME].total_time


def test_post_copy_sends_every_page_once_whatever_the_guest_writes() -> None:
    said = rivals(BUSY, tuning_for(Method.POSTCOPY, Settings()))
    assert {each.wire_bytes for each in said.values()} == {said[VOLUME].wire_bytes}


def test_a_bandwidth_limit_is_known_to_all() -> None:
    slow = rivals(STILL, replace(TCP, bandwidth_limit=1e7))
    fast = rivals(STILL, TCP)
    for name, said in slow.items():
        assert said.total_time == pytest.approx(10 * fast[name].total_time)


def test_the_default_cap_is_known_to_all() -> None:
    wide = replace(STILL, link=replace(STILL.link, goodput={1: 1e10}))
    tuning = tuning_for(Method.QEMU_DEFAULT, Settings())
    expected = 0.75 * GIB / (128 << 20)
    assert rivals(wide, tuning)[VOLUME].total_time == pytest.approx(expected)

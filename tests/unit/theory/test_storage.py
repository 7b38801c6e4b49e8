from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.method import Tuning
from whimbrel.model.prediction import Interval, Prediction, Verdict
from whimbrel.model.storage import CopyMode, DiskLoad
from whimbrel.model.units import GIB, MIB
from whimbrel.theory.storage import (
    BEGINNING,
    BLOCK,
    LETTING_GO,
    TABLES,
    beside,
    course,
    dirtying,
    predict_storage,
    rate_for_memory,
)

LINK = 125e6
sizes = st.floats(MIB, 100 * GIB)
rates = st.floats(1e6, 1e10)
shares = st.floats(0, 3)


@given(sizes, sizes, shares, rates)
def test_a_course_is_never_shorter_than_its_data_needs(
    data: float, area: float, share: float, rate: float
) -> None:
    found = course(data, area, share * rate, share * rate, rate)
    assert found.time >= data / rate * (1 - 1e-9)
    assert found.wire_bytes >= data * (1 - 1e-9)
    assert found.handover >= LETTING_GO


@given(sizes, sizes, st.floats(0, 0.95), rates, st.floats(1, 10))
def test_more_bandwidth_is_never_slower(
    data: float, area: float, share: float, rate: float, faster: float
) -> None:
    written = share * rate
    slow, fast = (course(data, area, written, written, each) for each in (rate, rate * faster))
    assert fast.time <= slow.time * (1 + 1e-9)
    assert fast.handover <= slow.handover * (1 + 1e-9)


@given(sizes, sizes, st.floats(0, 3), st.floats(0, 3), rates)
def test_more_writes_never_get_copies_in_step_where_fewer_did_not(
    data: float, area: float, one: float, other: float, rate: float
) -> None:
    few, many = sorted((one, other))
    calm, busy = (course(data, area, each * rate, each * rate, rate) for each in (few, many))
    assert calm.ready or not busy.ready
    assert calm.ready == (few < 1)


def test_without_writes_a_copy_takes_the_time_of_its_data() -> None:
    found = predict_storage([DiskLoad(2 * GIB, 0), DiskLoad(GIB, 0)], LINK)
    assert found.time.p50 == pytest.approx(3 * GIB / LINK + BEGINNING[1])
    assert found.wire_bytes.p50 == pytest.approx(3 * GIB)
    assert found.steady_rate.p50 == 0
    assert found.mode is CopyMode.BACKGROUND
    assert found.probability == 1


def test_holes_cost_nothing() -> None:
    sparse = predict_storage([DiskLoad(200 * MIB, 4 * GIB)], LINK)
    assert sparse.wire_bytes.p50 == pytest.approx(200 * MIB)
    assert sparse.wire_bytes.p90 == pytest.approx(200 * MIB * (1 + TABLES))


def test_small_scattered_writes_make_whole_blocks_dirty() -> None:
    least, most = dirtying(DiskLoad(GIB, GIB, write_rate=4e6, write_size=4096))
    assert least == 4e6
    assert most == pytest.approx(4e6 / 4096 * BLOCK)
    least, most = dirtying(DiskLoad(GIB, GIB, write_rate=4e6, write_size=4 * BLOCK))
    assert least == most == pytest.approx(4e6)


def test_a_guest_that_writes_faster_than_the_link_has_its_writes_blocked() -> None:
    load = DiskLoad(GIB, GIB, write_rate=2 * LINK, write_size=1 << 20)
    found = predict_storage([load], LINK)
    assert found.mode is CopyMode.WRITE_BLOCKING
    assert found.reason
    assert found.probability == 0
    assert found.time.p50 == pytest.approx(2 * GIB / LINK + BEGINNING[1])
    assert rate_for_memory(LINK, found) == pytest.approx(LINK / 2)


@given(
    st.lists(
        st.builds(
            DiskLoad,
            st.integers(1, 100 * GIB),
            st.integers(1, 100 * GIB),
            st.floats(0, 1e9),
            st.floats(512, 1e6),
        ),
        min_size=1,
        max_size=4,
    ),
    rates,
)
def test_intervals_are_in_order_and_memory_keeps_half_the_link(
    loads: list[DiskLoad], rate: float
) -> None:
    found = predict_storage(loads, rate)
    for each in (found.time, found.wire_bytes, found.steady_rate, found.handover):
        assert 0 <= each.p10 <= each.p50 <= each.p90
    assert rate / 2 <= rate_for_memory(rate, found) <= rate


def memory(deadline: float = 600.0) -> Prediction:
    each = Interval(1.0, 2.0, 3.0)
    return Prediction(
        tuning=Tuning(),
        deadline=deadline,
        completion_probability=1.0,
        verdict=Verdict.GO,
        total_time=each,
        downtime=each,
        wire_bytes=each,
        passes=each,
        throttle=each,
        source_cpu_seconds=each,
        destination_cpu_seconds=each,
        preparation_time=each,
        fault_seconds=each,
    )


def test_disks_add_to_a_memory_prediction() -> None:
    disks = predict_storage([DiskLoad(GIB, GIB, write_rate=1e6)], LINK)
    both = beside(memory(), disks)
    assert both.total_time.p50 == 2 + disks.time.p50
    assert both.downtime.p50 == 2 + disks.handover.p50
    assert both.wire_bytes.p50 == 2 + disks.wire_bytes.p50 + 2 * disks.steady_rate.p50
    assert both.verdict is Verdict.GO


def test_a_deadline_that_holds_for_memory_alone_may_not_hold_with_disks() -> None:
    disks = predict_storage([DiskLoad(100 * GIB, GIB)], LINK)
    assert beside(memory(60.0), disks).verdict is Verdict.REFUSE
    middling = replace(disks, time=Interval(10.0, 70.0, 90.0))
    assert beside(memory(60.0), middling).verdict is Verdict.BORDERLINE

from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.records import SURVEY, moved, seen
from unit.theory.guests import KVM
from whimbrel.model.memory import LinkProfile, Survey
from whimbrel.model.method import Method, Settings, StreamKind, tuning_for
from whimbrel.model.outcome import Ending
from whimbrel.model.record import MoveRecord
from whimbrel.model.units import MIB
from whimbrel.theory.calibrate import calibrate
from whimbrel.theory.corrections import WIDEST, Corrections, page_seconds
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.simulate import simulate

MOVES = 9


def learn(*records: MoveRecord, before: float = 2000.0) -> Corrections:
    return calibrate(records, "a", "b", before=before, rules=KVM)


def factors(corrections: Corrections) -> dict[str, float]:
    found = asdict(corrections)
    del found["moves"]
    for name, told in (("copies", "copy"), ("receipts", "receive"), ("scatters", "receive")):
        surveyed = SURVEY.source if told == "copy" else SURVEY.destination
        measured = getattr(surveyed, f"{told}_seconds")
        found[name] = page_seconds(found[name], measured) / measured
    found |= {f"pace of {kind}": value for kind, value in found.pop("pace").items()}
    # Seconds that are added, told as factors of one second.
    return found | {name: 1.0 + found[name] for name in ("load", "start")}


def truth(**factors_on: float) -> Survey:
    return Corrections(**factors_on).on(SURVEY)  # type: ignore[arg-type] # factors only


TRUE = moved()
"""A move that went exactly as simulated."""


def test_no_past_move_corrects_nothing() -> None:
    assert learn() == Corrections()
    assert Corrections().on(SURVEY) == SURVEY


def test_moves_that_went_as_simulated_correct_nothing() -> None:
    for method in (Method.TCP, Method.POSTCOPY, Method.QEMU_DEFAULT):
        found = learn(*[moved(method=method)] * MOVES)
        assert factors(found) == pytest.approx(dict.fromkeys(factors(found), 1.0), rel=0.02)


def test_a_link_that_gives_less_than_its_goodput_is_found() -> None:
    found = learn(*[moved(truth=truth(link=0.8))] * MOVES)
    assert found.link == pytest.approx(0.8, rel=0.02)
    assert found.moves == MOVES


def test_cores_that_take_longer_together_than_each_part_alone_are_found_by_kind() -> None:
    fast = replace(SURVEY, link=replace(SURVEY.link, goodput={1: 1e11, 2: 1e11}))
    slow = replace(fast, pace={StreamKind.CHANNELS: 1.5})
    several = moved(method=Method.MULTICHANNEL, survey=fast, truth=slow)
    found = learn(*[several, moved(survey=fast)] * MOVES)
    assert found.pace[StreamKind.CHANNELS] == pytest.approx(1.5, rel=0.05)
    assert found.pace[StreamKind.PLAIN] == pytest.approx(1.0, rel=0.05)
    assert found.link == 1.0
    for method, changed in ((Method.MULTICHANNEL, True), (Method.TCP, False)):
        tuning = tuning_for(method, Settings())
        before, after = (simulate(each, tuning, KVM) for each in (fast, found.on(fast)))
        assert (after.total_time > 1.2 * before.total_time) is changed


def test_hints_that_skip_less_than_the_guest_calls_free_are_found() -> None:
    freed = replace(SURVEY, memory=replace(SURVEY.memory, free_hintable=256 * MIB))
    less = replace(freed, memory=replace(freed.memory, free_hintable=192 * MIB))
    found = learn(*[moved(survey=freed, truth=less)] * MOVES)
    assert found.hinted == pytest.approx(0.75, rel=0.02)
    assert found.on(freed).memory.free_hintable == pytest.approx(192 * MIB, rel=0.02)
    # Little free memory tells nothing, nor does a move that sends it all.
    little = replace(freed, memory=replace(freed.memory, free_hintable=8 * MIB))
    assert learn(*[moved(survey=little, truth=less)] * MOVES).hinted == 1.0
    as_it_comes = moved(method=Method.QEMU_DEFAULT, survey=freed, truth=less)
    assert learn(*[as_it_comes] * MOVES).hinted == 1.0


def test_a_kind_of_stream_that_never_moved_is_believed_to_be_like_the_others() -> None:
    fast = replace(SURVEY, link=replace(SURVEY.link, goodput={1: 1e11, 2: 1e11}))
    slow = replace(fast, pace={StreamKind.CHANNELS: 1.5})
    several = moved(method=Method.MULTICHANNEL, survey=fast, truth=slow)
    assert learn(*[several] * MOVES).pace[StreamKind.COMPRESSED] == pytest.approx(1.5, rel=0.05)


def test_what_encryption_costs_besides_is_learnt_from_encrypted_moves_alone() -> None:
    fast = replace(SURVEY, link=replace(SURVEY.link, goodput={1: 1e11, 2: 1e11}))
    slow = replace(fast, pace={StreamKind.ENCRYPTED_CHANNELS: 1.5})
    secret = moved(method=Method.ENCRYPTED, survey=fast, truth=slow)
    found = learn(*[secret, moved(method=Method.MULTICHANNEL, survey=fast)] * MOVES)
    assert found.pace[StreamKind.ENCRYPTED_CHANNELS] == pytest.approx(1.5, rel=0.05)
    assert found.pace[StreamKind.CHANNELS] == pytest.approx(1.0, rel=0.05)


def test_one_correction_makes_the_next_prediction_right() -> None:
    slow = truth(link=0.8, load=0.04)
    method = Method.POSTCOPY
    record = moved(method=method, truth=slow)
    found = learn(*[record] * MOVES)
    course = simulate(found.on(SURVEY), record.tuning, KVM)
    assert course.total_time == pytest.approx(record.observed.total_time, rel=0.02)


def busy(survey: Survey) -> Survey:
    """Let the guest write more than pre-copy can take."""
    return replace(survey, memory=replace(survey.memory, dirty=uniform(100_000, 400_000)))


def test_what_the_hypervisor_does_not_count_tells_how_long_loading_takes() -> None:
    reported = TRUE.observed.downtime_reported or 0.0
    late = seen(TRUE, downtime=reported + 0.08)
    found = learn(*[late] * MOVES)
    assert found.load == pytest.approx(0.08, rel=0.05)
    assert found.on(SURVEY).destination.load_seconds == pytest.approx(0.085, rel=0.05)


def test_a_hypervisor_that_does_not_count_loading_tells_it_as_well() -> None:
    slow = replace(SURVEY, destination=replace(SURVEY.destination, load_seconds=0.085))
    found = learn(*[moved(method=Method.QEMU_DEFAULT, truth=slow)] * MOVES)
    assert found.load == pytest.approx(0.08, rel=0.05)


def test_post_copy_tells_how_long_stopping_takes() -> None:
    slow = replace(SURVEY, source=replace(SURVEY.source, stop_seconds=0.01))
    found = learn(*[moved(method=Method.POSTCOPY, truth=slow)] * MOVES)
    part = SURVEY.source.stop_seconds + SURVEY.source.state_bytes / 2.5e8
    assert found.stop == pytest.approx(1 + 0.009 / part, rel=0.05)
    assert found.load == 0.0


def test_post_copy_of_a_busy_guest_tells_how_many_pages_it_waits_for() -> None:
    waiting = {1: 2_000_000.0}
    survey = replace(busy(SURVEY), link=replace(SURVEY.link, in_flight=waiting))
    pages = survey.destination.waking_pages
    there = replace(survey.destination, waking_pages=2 * pages)
    record = moved(method=Method.POSTCOPY, survey=survey, truth=replace(survey, destination=there))
    assert learn(*[record] * MOVES).waking == pytest.approx(2.0, rel=0.02)


def test_a_still_guest_does_not_tell_how_many_pages_it_would_wait_for() -> None:
    late = seen(moved(method=Method.POSTCOPY), downtime=3.0)
    assert learn(*[late] * MOVES).waking == 1.0


def test_preparation_tells_how_long_starting_and_touching_take() -> None:
    plain = moved(method=Method.QEMU_DEFAULT)
    start = SURVEY.destination.start_seconds
    found = learn(*[seen(plain, preparation_time=start + 0.1)] * MOVES)
    assert found.start == pytest.approx(0.1)
    touched = SURVEY.memory.pages * SURVEY.destination.touch_seconds / 2
    prepared = learn(*[seen(TRUE, preparation_time=start + 3 * touched)] * MOVES)
    assert prepared.first_touch == pytest.approx(3.0, rel=0.3)


def test_a_downtime_that_the_hypervisor_does_not_tell_teaches_nothing() -> None:
    late = seen(TRUE, downtime=5.0, downtime_reported=None)
    assert learn(*[late] * MOVES).load == 0.0


def test_what_was_left_over_by_chance_is_not_blamed_on_loading() -> None:
    longer = (TRUE.observed.downtime or 0) + 0.3
    late = seen(TRUE, downtime=longer, downtime_reported=longer)
    assert learn(*[late] * MOVES).load == pytest.approx(0.0, abs=0.005)


DEAR = replace(
    SURVEY,
    source=replace(SURVEY.source, copy_seconds=1.2e-6),
    destination=replace(SURVEY.destination, receive_seconds=0.9e-6, scatter_seconds=0.3e-6),
)


@pytest.mark.parametrize("method", [Method.TCP, Method.MULTICHANNEL])
def test_what_pages_cost_is_found(method: Method) -> None:
    found = learn(*[moved(method=method, truth=DEAR)] * MOVES).on(SURVEY)
    assert found.source.copy_seconds == pytest.approx(1.2e-6, rel=0.02)
    receiving = {Method.TCP: 0.9e-6, Method.MULTICHANNEL: 0.6e-6}
    assert found.destination.receive_seconds == pytest.approx(receiving[method], rel=0.02)
    scattering = {Method.TCP: 0.9e-6, Method.MULTICHANNEL: 0.3e-6}
    assert found.destination.scattering == pytest.approx(scattering[method], rel=0.02)


def test_what_a_page_cost_while_a_move_waited_for_its_link_is_not_what_it_costs() -> None:
    eager, waiting = moved(method=Method.TCP, truth=DEAR), moved(method=Method.TCP)
    waking = seen(waiting, source_cpu_seconds=10 * (DEAR.source.copy_seconds / 0.6e-6))
    found = learn(*[eager] * 10, *[waking] * 10).on(SURVEY)
    assert found.source.copy_seconds == pytest.approx(1.2e-6, rel=0.02)


def test_a_destination_whose_pages_were_touched_first_does_not_tell_what_receiving_costs() -> None:
    fresh = learn(*[moved(method=Method.QEMU_DEFAULT, truth=DEAR)] * MOVES)
    assert fresh.receipts == ()


def test_pages_that_were_not_copied_do_not_tell_what_copying_costs() -> None:
    record = moved(method=Method.MULTICHANNEL)
    uncopied = replace(record, tuning=replace(record.tuning, zero_copy=True))
    assert learn(*[record] * MOVES).copies != ()
    assert learn(*[uncopied] * MOVES).copies == ()


def test_a_pace_is_not_learnt_for_what_the_pages_cost_already() -> None:
    """A dearer page explains the time, so nothing is left to be explained by the pace."""
    fast = replace(SURVEY, link=LinkProfile({1: 1e11, 2: 1e11}))
    dear = replace(fast, source=replace(fast.source, copy_seconds=2.4e-6))
    past = [moved(survey=fast, truth=dear, method=Method.TCP)] * MOVES
    found = learn(*past)
    assert found.on(fast).source.copy_seconds == pytest.approx(2.4e-6, rel=0.02)
    assert found.pace[StreamKind.PLAIN] == pytest.approx(1.0, rel=0.05)


def test_a_bandwidth_limit_says_nothing_about_the_link() -> None:
    limited = moved(method=Method.QEMU_DEFAULT)
    assert learn(*[seen(limited, total_time=100.0)] * MOVES).link == 1.0


def test_few_moves_correct_little() -> None:
    slow = moved(truth=truth(link=0.5))
    found = [learn(*[slow] * count).link for count in range(MOVES + 1)]
    assert found[0] == found[1] == 1.0
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.5, rel=0.02)


@given(st.floats(1e-3, 1e6), st.integers(0, MOVES))
@settings(max_examples=20)
def test_one_outlier_does_not_swing_it(total_time: float, others: int) -> None:
    outlier = seen(TRUE, total_time=total_time, downtime=total_time)
    found = learn(*[TRUE] * others, outlier)
    assert factors(found) == pytest.approx(dict.fromkeys(factors(found), 1.0), rel=0.01)


figures = st.none() | st.floats(0, 1e9)
counts = st.none() | st.integers(0, 10**9)


@given(
    st.lists(st.tuples(figures, figures, figures, figures, counts), min_size=1, max_size=5),
    st.sampled_from([Method.TCP, Method.QEMU_DEFAULT, Method.POSTCOPY]),
)
@settings(max_examples=25)
def test_no_figure_makes_anything_zero_or_negative(
    told: list[tuple[float | None, ...]], method: Method
) -> None:
    names = ("total_time", "downtime", "wire_bytes", "source_cpu_seconds", "normal_pages")
    base = moved(method=method)
    found = learn(*[seen(base, **dict(zip(names, each, strict=True))) for each in told] * 3)
    near = 1 + 1e-9  # of the division
    assert all(1 / WIDEST / near <= each <= WIDEST * near for each in factors(found).values())
    survey = found.on(SURVEY)
    assert survey.source.state_bytes >= 1
    assert min(survey.link.goodput.values()) > 0


def test_only_what_had_ended_before_teaches() -> None:
    slow = [moved(at, truth=truth(link=0.5)) for at in (100.0, 200.0, 300.0, 400.0)]
    assert learn(*slow, before=300.0) == learn(*slow[:2], before=300.0)
    assert learn(*slow, before=300.0).moves == 2
    assert learn(*slow, before=100.0) == Corrections()


def test_other_hosts_failed_moves_and_unsurveyed_ones_do_not_teach() -> None:
    slow = moved(truth=truth(link=0.5))
    others = [
        replace(slow, source="c"),
        replace(slow, source="b", destination="a"),
        replace(slow, ending=Ending.TIMEOUT),
        replace(slow, survey=None),
    ]
    assert learn(*others * MOVES) == Corrections()


def test_their_order_does_not_matter() -> None:
    records = [moved(at, truth=truth(link=at / 1000)) for at in (400.0, 600.0, 800.0)]
    assert learn(*records) == learn(*reversed(records))


def test_every_past_move_is_weighed_against_its_own_survey() -> None:
    stale = replace(SURVEY, link=replace(SURVEY.link, goodput={1: 5e8}))
    found = learn(*[moved(survey=stale, truth=SURVEY)] * MOVES)
    assert found.link == pytest.approx(0.5, rel=0.02)

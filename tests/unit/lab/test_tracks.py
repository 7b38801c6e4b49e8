import pytest

from whimbrel.lab.counters import CpuTimes, ProcessSample, Sample
from whimbrel.lab.heartbeat import Beat, Record
from whimbrel.lab.tracks import tracks
from whimbrel.model.migration import Observation, Phase
from whimbrel.model.scenario import Measure, Track


def sample(at: float, sent: int, cpu: float) -> Sample:
    return Sample(
        time=at,
        cores=(0.5, 1.0),
        nodes=(0.75,),
        interfaces={("a", "w0"): (10, sent), ("a", "lo"): (0, 0)},
        processes={"a": ProcessSample(4096, CpuTimes(cpu, {}))},
    )


def by_measure(found: tuple[Track, ...], measure: Measure) -> list[Track]:
    return [track for track in found if track.measure is measure]


def test_counters_become_rates_over_the_time_since_the_request() -> None:
    samples = [sample(100.0, 0, 1.0), sample(100.5, 500, 1.25)]
    found = tracks(samples, (), Record(), began=99.0, ended=101.0)
    [sent] = by_measure(found, Measure.SENT)
    assert sent.label == "host a w0"
    assert sent.times == (1.5,)
    assert sent.values == pytest.approx((1000.0,))
    [cpu] = by_measure(found, Measure.CPU_HOST)
    assert cpu.values == pytest.approx((0.5,))


def test_each_core_and_node_has_its_track() -> None:
    found = tracks([sample(1.0, 0, 0.0)], (), Record(), began=0.0, ended=9.0)
    assert [track.label for track in by_measure(found, Measure.CPU_CORE)] == ["core 0", "core 1"]
    assert [track.values for track in by_measure(found, Measure.CPU_NUMA)] == [(0.75,)]


def test_the_hypervisors_figures_keep_their_times() -> None:
    seen = [Observation(0.1, Phase.PRECOPY, remaining=7), Observation(0.2, Phase.PRECOPY)]
    [remaining] = by_measure(tracks([], seen, Record(), 0.0, 9.0), Measure.REMAINING)
    assert (remaining.times, remaining.values) == ((0.1, 0.2), (7.0, 0.0))


def test_the_longest_gap_between_heartbeats_survives_thinning() -> None:
    record = Record()
    for number, at in enumerate((10.0, 10.005, 10.010, 10.310, 10.315)):
        record.add(at, "pid 1", Beat(number, 0, 0))
    [gaps] = by_measure(tracks([], [], record, 10.0, 10.3), Measure.HEARTBEAT_GAP)
    assert max(gaps.values) == pytest.approx(0.3)
    assert len(gaps.values) <= 4


def test_nothing_seen_makes_no_tracks() -> None:
    assert tracks([], [], Record(), 0.0, 1.0) == ()


def test_what_the_lab_does_after_a_move_is_no_part_of_it() -> None:
    samples = [sample(at, 0, 0.0) for at in (0.0, 1.0, 1.5, 9.0)]
    for track in tracks(samples, (), Record(), began=0.0, ended=1.0):
        assert max(track.times) == pytest.approx(1.5)

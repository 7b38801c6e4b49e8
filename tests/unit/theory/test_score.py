import math

import numpy as np
import pytest

from unit.theory.guests import KVM, still_guest
from whimbrel.errors import ConfigError
from whimbrel.model.method import Tuning
from whimbrel.model.prediction import Interval, Prediction
from whimbrel.theory.baselines import (
    NEVER,
    expected_downtime,
    geometric,
    interpolated,
    volume_over_bandwidth,
)
from whimbrel.theory.dirtying import DirtySample
from whimbrel.theory.score import absolute_errors, coverage, relative_errors, verdicts
from whimbrel.theory.simulate import predict

LINEAR = [DirtySample(t, 10_000 * t, 1.0) for t in (0.1, 1.0, 10.0, 100.0)]


def test_errors_are_shares_of_what_happened() -> None:
    errors = relative_errors([11, 90, 100], [10, 100, 100])
    assert errors.count == 3
    assert errors.median == pytest.approx(0.1)
    assert errors.worst == pytest.approx(0.1)
    assert relative_errors([10], [20]).median == 0.5


def test_errors_of_downtime_keep_their_unit() -> None:
    assert absolute_errors([0.3, 0.1], [0.2, 0.1]).worst == pytest.approx(0.1)


@pytest.mark.parametrize(("predicted", "actual"), [([], []), ([1.0], []), ([1.0], [0.0])])
def test_errors_of_nothing_are_refused(predicted: list[float], actual: list[float]) -> None:
    with pytest.raises(ConfigError):
        relative_errors(predicted, actual)


def test_coverage_counts_what_lies_within() -> None:
    assert coverage([Interval(1, 2, 3)] * 4, [0.9, 1, 3, 3.1]) == 0.5
    with pytest.raises(ConfigError):
        coverage([], [])


def forecast(deadline: float) -> Prediction:
    return predict(
        still_guest(0.0),
        Tuning(),
        KVM,
        generator=np.random.default_rng(1),
        deadline=deadline,
        draws=4,
    )


def test_a_verdict_is_right_where_it_said_what_happened() -> None:
    go, refuse = forecast(60.0), forecast(0.1)
    found = verdicts([go, refuse, go], [True, False, False])
    assert (found.right, found.wrong, found.borderline) == (2, 1, 0)
    assert found.accuracy == pytest.approx(2 / 3)
    assert verdicts([], []).accuracy is None


def test_the_geometric_model_sums_its_passes() -> None:
    # λ = 0.5: 1000 + 500 + 250 + 125 with a threshold of 125.
    found = geometric(1000, 100, 50, 1.25)
    assert found.wire_bytes == pytest.approx(1875)
    assert found.total_time == pytest.approx(18.75)
    assert found.downtime == pytest.approx(1.25)


def test_the_geometric_model_never_ends_where_dirtying_is_faster_than_the_link() -> None:
    assert geometric(1000, 100, 100, 0.3) is NEVER
    assert not NEVER.completes


def test_without_dirtying_every_model_says_volume_over_bandwidth() -> None:
    plain = volume_over_bandwidth(1e9, 1e8)
    assert geometric(1e9, 1e8, 0, 0.3).total_time == plain.total_time
    still = interpolated(1e9, 1e8, [DirtySample(1.0, 0.0, 1.0)], 0.3)
    assert still.total_time == pytest.approx(plain.total_time)


def test_on_a_linear_curve_interpolation_is_the_geometric_model() -> None:
    ours = interpolated(1e9, 1e8, LINEAR, 0.3)
    theirs = geometric(1e9, 1e8, 10_000 * 4096, 0.3)
    assert ours.wire_bytes == pytest.approx(theirs.wire_bytes, rel=1e-6)


def test_interpolation_gives_up_on_a_guest_that_never_converges() -> None:
    assert interpolated(1e9, 1e7, LINEAR, 0.3) is NEVER


def test_qemu_expects_remaining_over_bandwidth() -> None:
    assert expected_downtime(1e8, 1e9) == pytest.approx(0.1)
    assert math.isinf(expected_downtime(1e8, 0))

from dataclasses import replace

import pytest

from unit.records import moved, seen
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Verdict
from whimbrel.theory.accuracy import accuracy, by_method

TRUE = moved()
TIME = TRUE.observed.total_time or 0.0
DOWNTIME = TRUE.observed.downtime or 0.0


def test_nothing_stored_tells_nothing() -> None:
    found = accuracy([])
    assert found.moves == 0
    assert found.total_time is found.wire_bytes is found.downtime is None
    assert found.verdicts.accuracy is None


def test_time_and_bytes_err_relatively_and_downtime_absolutely() -> None:
    prediction = TRUE.prediction
    assert prediction
    late = seen(TRUE, total_time=prediction.total_time.p50 * 2, downtime=DOWNTIME + 3.0)
    found = accuracy([late])
    assert found.total_time
    assert found.total_time.errors.median == pytest.approx(0.5)
    assert found.total_time.coverage == 0
    assert found.downtime
    assert found.downtime.errors.median == pytest.approx(3.0, abs=0.1)


def test_a_figure_that_was_not_measured_does_not_count() -> None:
    found = accuracy([TRUE, seen(TRUE, downtime=None)])
    assert found.moves == 2
    assert found.downtime
    assert found.downtime.errors.count == 1


def test_moves_that_did_not_complete_count_for_verdicts_only() -> None:
    found = accuracy([replace(TRUE, ending=Ending.TIMEOUT)])
    assert found.total_time is None
    assert found.verdicts.wrong == 1


def test_what_was_called_back_by_a_person_tells_nothing() -> None:
    assert accuracy([replace(TRUE, ending=Ending.CANCELLED)]).moves == 0


def test_moves_without_a_prediction_are_left_out() -> None:
    assert accuracy([replace(TRUE, prediction=None)]).moves == 0


@pytest.mark.parametrize(
    ("verdict", "ending", "met"),
    [
        (Verdict.GO, Ending.COMPLETED, True),
        (Verdict.GO, Ending.FAILED, False),
        (Verdict.REFUSE, Ending.TIMEOUT, True),
        (Verdict.REFUSE, Ending.COMPLETED, False),
        (Verdict.BORDERLINE, Ending.COMPLETED, None),
        (None, Ending.COMPLETED, None),
        (Verdict.GO, Ending.CANCELLED, None),
    ],
)
def test_a_verdict_is_met_by_what_it_promised(
    verdict: Verdict | None, ending: Ending, met: bool | None
) -> None:
    record = replace(TRUE, verdict=verdict, ending=ending)
    assert record.verdict_met is met
    counted = accuracy([record]).verdicts
    assert (counted.right, counted.wrong) == (int(met is True), int(met is False))


def test_each_method_is_told_by_itself() -> None:
    found = by_method([TRUE, TRUE, moved(method=Method.POSTCOPY)])
    assert {method: each.moves for method, each in found.items()} == {
        Method.TCP: 2,
        Method.POSTCOPY: 1,
    }

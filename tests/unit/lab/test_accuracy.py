"""The suite's run: when it ends, what it keeps, and what one scenario that fails costs."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count

import pytest

from unit.records import moved
from unit.report.samples import result as sample_result
from whimbrel.errors import LabError
from whimbrel.lab import accuracy
from whimbrel.lab.accuracy import SuiteResult, run_accuracy
from whimbrel.lab.audience import Audience, Nobody
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Scenario, ScenarioResult

SAMPLE = sample_result()
RUNS = SAMPLE.scenarios[0].runs[:2]
RECORD = moved()


class FakeLab:
    """Stands in for `run_lab`: two runs for each scenario, but for those named to fail."""

    def __init__(
        self,
        failing: Sequence[str] = (),
        error: BaseException | None = None,
    ) -> None:
        self._error = error or LabError("the guest did not boot.")
        self.names: list[str] = []
        self.past: list[int] = []
        self._failing = failing

    async def __call__(
        self,
        scenarios: Sequence[Scenario],
        audience: Audience,
        command: str,
        past: Iterable[MoveRecord],
    ) -> LabResult:
        [scenario] = scenarios
        self.names.append(scenario.name)
        self.past.append(len(list(past)))
        if scenario.name in self._failing:
            raise self._error
        audience.scenario_begins(scenario, len(RUNS))
        for run in RUNS:
            audience.moved(RECORD)
            audience.run_ended(run)
        result = replace(SAMPLE, scenarios=(ScenarioResult(scenario, RUNS),))
        audience.measured(result)
        return result


class Listener(Nobody):
    """Keeps what it is told last, and all sentences."""

    def __init__(self) -> None:
        self.last: LabResult | None = None
        self.sentences: list[str] = []

    def says(self, text: str) -> None:
        self.sentences.append(text)

    def measured(self, so_far: LabResult) -> None:
        self.last = so_far


Suite = Callable[..., SuiteResult]


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Suite:
    def run(
        lab: FakeLab,
        audience: Audience | None = None,
        *,
        minutes: float = 5.0,
        rescued: Callable[[SuiteResult], None] | None = None,
    ) -> SuiteResult:
        monkeypatch.setattr(accuracy, "run_lab", lab)
        clock = count(step=60.0)  # each look at the clock takes a minute
        scenarios = (Scenario(name=f"number {number}") for number in range(1, 100))
        return asyncio.run(
            run_accuracy(
                audience,
                minutes=minutes,
                scenarios=scenarios,
                clock=lambda: float(next(clock)),
                rescued=rescued,
            )
        )

    return run


def test_no_scenario_begins_when_the_time_is_over(suite: Suite) -> None:
    lab = FakeLab()
    found = suite(lab, minutes=3.0)
    assert lab.names == ["number 1", "number 2", "number 3"]
    assert found.assessment.runs == 6


def test_one_scenario_is_run_however_short_the_time(suite: Suite) -> None:
    lab = FakeLab()
    suite(lab, minutes=0.001)
    assert lab.names == ["number 1"]


def test_every_run_is_kept_without_its_counters_and_told_as_it_grows(suite: Suite) -> None:
    listener = Listener()
    found = suite(FakeLab(), listener, minutes=3.0)
    assert found.lab == listener.last
    assert [len(part.runs) for part in found.lab.scenarios] == [2, 2, 2]
    assert any(run.tracks for run in RUNS)
    assert not any(run.tracks for part in found.lab.scenarios for run in part.runs)
    assert len(found.records) == 6


def test_a_forecast_learns_from_the_moves_before_it_only(suite: Suite) -> None:
    lab = FakeLab()
    suite(lab, minutes=3.0)
    assert lab.past == [0, 2, 4]


def test_a_scenario_that_fails_costs_itself_only(suite: Suite) -> None:
    listener = Listener()
    lab = FakeLab(failing=["number 2"])
    found = suite(lab, listener, minutes=3.0)
    assert [part.scenario.name for part in found.lab.scenarios] == ["number 1", "number 3"]
    assert any("number 2 could not be finished" in text for text in listener.sentences)


def test_where_nothing_can_be_run_the_reason_is_told(suite: Suite) -> None:
    with pytest.raises(LabError, match="did not boot"):
        suite(FakeLab(failing=["number 1"]))


def test_a_suite_that_is_cancelled_hands_over_what_it_found(suite: Suite) -> None:
    kept: list[SuiteResult] = []
    lab = FakeLab(failing=["number 3"], error=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        suite(lab, rescued=kept.append)
    [found] = kept
    assert found.assessment.runs == 4
    assert len(found.lab.scenarios) == 2


def test_a_suite_that_is_cancelled_before_its_first_move_has_nothing_to_hand_over(
    suite: Suite,
) -> None:
    kept: list[SuiteResult] = []
    lab = FakeLab(failing=["number 1"], error=asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        suite(lab, rescued=kept.append)
    assert not kept

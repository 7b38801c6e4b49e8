"""The accuracy suite, run: scenario after scenario until its time is over, then assessed.

Each scenario is a lab of its own, so that one that cannot be run costs itself only. Counters
over time are let go after each: hundreds of moves would not fit into memory.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from whimbrel.errors import WhimbrelError
from whimbrel.lab.audience import Audience, Nobody, Relay
from whimbrel.lab.bench import run_lab
from whimbrel.lab.suite import MINUTES, SEED, accuracy_scenarios
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Run, Scenario, ScenarioResult
from whimbrel.theory.assessment import Assessment, Case, assess

Clock = Callable[[], float]


@dataclass(frozen=True)
class SuiteResult:
    """What a suite yields.

    Attributes:
        lab: Every run, without counters over time.
        records: What a history keeps of them.
        assessment: How good the forecasts were.
    """

    lab: LabResult
    records: tuple[MoveRecord, ...]
    assessment: Assessment


async def run_accuracy(
    audience: Audience | None = None,
    *,
    seed: int = SEED,
    minutes: float = MINUTES,
    command: str = "whimbrel lab --suite accuracy",
    scenarios: Iterable[Scenario] | None = None,
    clock: Clock = time.monotonic,
    rescued: Callable[[SuiteResult], None] | None = None,
) -> SuiteResult:
    """Run the suite on this machine.

    Args:
        audience: Who is told on the way.
        seed: Of the scenarios and their order.
        minutes: No scenario begins later; the one under way is finished.
        command: The command line that reproduces it.
        scenarios: What to run instead of the suite's own.
        clock: Seconds.
        rescued: Is told all that was found where the suite does not reach its end.

    Raises:
        LabError: The lab cannot be built here; the hint says what is needed.
        HostError: QEMU is missing or does not start.
    """
    ear = _Ear(audience or Nobody())
    end = clock() + 60 * minutes
    whole = False
    try:
        for scenario in scenarios if scenarios is not None else accuracy_scenarios(seed):
            if ear.whole is not None and clock() >= end:
                break
            await _one(scenario, ear, command)
        whole = True
    finally:
        if not whole and ear.whole is not None and rescued is not None:
            rescued(ear.result())
    return ear.result()


async def _one(scenario: Scenario, ear: "_Ear", command: str) -> None:
    """Run one scenario; where others could be run before it, its failure costs itself only."""
    try:
        await run_lab([scenario], ear, command, past=ear.records)
    except WhimbrelError as error:
        if ear.whole is None:
            raise  # nothing can be run here
        ear.says(f"{scenario.name} could not be finished: {error.what}")
    ear.turn_over()


class _Ear(Relay):
    """Keeps what a suite needs of what an audience hears."""

    def __init__(self, audience: Audience) -> None:
        super().__init__(audience)
        self.whole: LabResult | None = None
        self._cases: list[Case] = []
        self._before: LabResult | None = None
        self._scenario = Scenario()
        self._record: MoveRecord | None = None

    def scenario_begins(self, scenario: Scenario, moves: int) -> None:
        """See `Audience`."""
        self._scenario = scenario
        super().scenario_begins(scenario, moves)

    def moved(self, record: MoveRecord) -> None:
        """See `Audience`."""
        self._record = record
        super().moved(record)

    def run_ended(self, run: Run) -> None:
        """See `Audience`."""
        kept = replace(run, tracks=())
        self._cases.append(Case(self._scenario, kept, self._record))
        self._record = None
        super().run_ended(run)

    def measured(self, so_far: LabResult) -> None:
        """See `Audience`; what is handed on holds the scenarios before as well."""
        bare = replace(so_far, scenarios=tuple(map(_without_tracks, so_far.scenarios)))
        self.whole = bare if self._before is None else _joined(self._before, bare)
        super().measured(self.whole)

    @property
    def records(self) -> tuple[MoveRecord, ...]:
        """What a history keeps of the moves made until now."""
        return tuple(each.record for each in self._cases if each.record is not None)

    def turn_over(self) -> None:
        """Keep what was measured until now: another scenario begins."""
        self._before = self.whole

    def result(self) -> SuiteResult:
        """Return everything; to be called when at least one run is over."""
        assert self.whole is not None  # noqa: S101 - run_accuracy raises otherwise
        return SuiteResult(self.whole, self.records, assess(self._cases))


def _without_tracks(part: ScenarioResult) -> ScenarioResult:
    return replace(part, runs=tuple(replace(run, tracks=()) for run in part.runs))


def _joined(before: LabResult, after: LabResult) -> LabResult:
    return replace(before, scenarios=(*before.scenarios, *after.scenarios))

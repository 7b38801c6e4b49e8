"""What a suite of many labs gathers: every run, the records of moves, and what to do when it ends.

Each scenario is a lab of its own, so that one that cannot be run costs itself only. Counters
over time are let go after each: hundreds of moves would not fit into memory.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from whimbrel.errors import WhimbrelError
from whimbrel.lab.audience import Audience, Relay
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Run, Scenario, ScenarioResult
from whimbrel.theory.assessment import Case

Clock = Callable[[], float]


class Gathering(Relay):
    """Keeps what a suite needs of what an audience hears.

    Attributes:
        whole: Every run until now; None before the first is over.
        cases: The same, each with its record.
    """

    def __init__(self, audience: Audience) -> None:
        super().__init__(audience)
        self.whole: LabResult | None = None
        self.cases: list[Case] = []
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
        self.cases.append(Case(self._scenario, kept, self._record))
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
        return tuple(each.record for each in self.cases if each.record is not None)

    def turn_over(self) -> None:
        """Keep what was measured until now: another scenario begins."""
        self._before = self.whole


async def in_turn(
    scenarios: Iterable[Scenario],
    play: Callable[[Scenario], Awaitable[object]],
    gathering: Gathering,
    *,
    end: float,
    clock: Clock,
    rescued: Callable[[], None],
) -> None:
    """Play scenarios one after the other.

    Args:
        scenarios: In their order, perhaps without end.
        play: Runs one, with `gathering` as its audience.
        gathering: Hears all of them.
        end: No scenario begins later; the one under way is finished, and the first begins always.
        clock: Tells the same time as `end`.
        rescued: Is called where the end is not reached and something was measured.

    Raises:
        WhimbrelError: The very first could not be run.
    """
    whole = False
    try:
        for scenario in scenarios:
            if gathering.whole is not None and clock() >= end:
                break
            await _one(scenario, play, gathering)
        whole = True
    finally:
        if not whole and gathering.whole is not None:
            rescued()


async def _one(
    scenario: Scenario, play: Callable[[Scenario], Awaitable[object]], gathering: Gathering
) -> None:
    """Play one; where others could be played before it, its failure costs itself only."""
    try:
        await play(scenario)
    except WhimbrelError as error:
        if gathering.whole is None:
            raise  # nothing can be run here
        gathering.says(f"{scenario.name} could not be finished: {error.what}")
    gathering.turn_over()


def _without_tracks(part: ScenarioResult) -> ScenarioResult:
    return replace(part, runs=tuple(replace(run, tracks=()) for run in part.runs))


def _joined(before: LabResult, after: LabResult) -> LabResult:
    """Return both; a scenario that was gone on with on other hosts is still one."""
    last, (first, *others) = before.scenarios[-1], after.scenarios
    parts: tuple[ScenarioResult, ...] = (last, first)
    if last.scenario == first.scenario:
        parts = (replace(last, runs=(*last.runs, *first.runs)),)
    machine = before.machine
    told = {each: None for text in (before, after) for each in text.machine.hypervisor.split("; ")}
    return replace(
        before,
        machine=replace(machine, hypervisor="; ".join(told)),
        scenarios=(*before.scenarios[:-1], *parts, *others),
    )

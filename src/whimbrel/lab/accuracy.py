"""The accuracy suite, run: scenario after scenario until its time is over, then assessed."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from whimbrel.lab.audience import Audience, Nobody
from whimbrel.lab.bench import run_lab
from whimbrel.lab.gathering import Clock, Gathering, in_turn
from whimbrel.lab.suite import MINUTES, SEED, accuracy_scenarios
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Scenario
from whimbrel.theory.assessment import Assessment, assess


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
    gathering = Gathering(audience or Nobody())

    def found() -> SuiteResult:
        assert gathering.whole is not None  # noqa: S101 - in_turn raises otherwise
        return SuiteResult(gathering.whole, gathering.records, assess(gathering.cases))

    await in_turn(
        accuracy_scenarios(seed) if scenarios is None else scenarios,
        lambda scenario: run_lab([scenario], gathering, command, past=gathering.records),
        gathering,
        end=clock() + 60 * minutes,
        clock=clock,
        rescued=lambda: rescued(found()) if rescued is not None else None,
    )
    return found()

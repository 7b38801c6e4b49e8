"""One row per method: what its runs measured, or the reason why there is nothing to show.

A figure is the median over the completed runs with the lowest and the highest beside it.
Runs that did not complete never lend their figures to a row; they are told in its note.
"""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from whimbrel.model.method import Method, Postcopy
from whimbrel.model.migration import Phase
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Observed, Run, Scenario, ScenarioResult
from whimbrel.model.units import format_time


class Memory(StrEnum):
    """What became of the guest's memory, by the guest's own word."""

    INTACT = "intact"
    CORRUPT = "CORRUPT"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Spread:
    """A figure over several runs, in one unit."""

    median: float
    lowest: float
    highest: float
    count: int


@dataclass(frozen=True)
class Row:
    """A method's line in the table; None where no completed run knows the figure.

    Attributes:
        scenario: The scenario's name.
        method: The method's name.
        preset: Which of a method's settings, where one method has several rows; else empty.
        runs: How many runs there are.
        completed: How many of them completed.
        ending: `completed` where at least one did, else the first run's ending; None where
            the method was never run.
        wall_time: Seconds from the request until the guest runs at the destination and needs
            the source no more.
        arrival_time: Seconds until the guest ran there; earlier in post-copy only.
        preparation_time: Seconds of that until the destination listened.
        setup: Seconds of preparation plus QEMU's own setup.
        total_time: QEMU's own total time in seconds.
        downtime_observed: Seconds, by the guest's heartbeat.
        downtime_reported: Seconds, by QEMU.
        wire_bytes: Bytes counted at the interfaces.
        rate: Bytes per second: the bytes on the wire over QEMU's total time.
        passes: Number of passes over memory.
        source_cpu: CPU seconds of the source's QEMU.
        destination_cpu: CPU seconds of the destination's QEMU.
        memory: The verification of the guest's memory, over all runs.
        faster: Times as fast as the `baseline`; None where either did not complete, or where
            memory was corrupted.
        predicted_time: Seconds of wall time that were said beforehand, preparation included:
            the middle with its 10th and 90th percentile, each the median over the runs.
        error: Relative error of that middle against the wall time, over completed runs.
        verdict: What was advised before the first run: go, borderline or refuse; empty where
            nothing was said.
        note: Reasons and counts of runs that did not complete.
    """

    scenario: str
    method: Method
    preset: str
    runs: int
    completed: int
    ending: Ending | None
    wall_time: Spread | None
    arrival_time: Spread | None
    preparation_time: Spread | None
    setup: Spread | None
    total_time: Spread | None
    downtime_observed: Spread | None
    downtime_reported: Spread | None
    wire_bytes: Spread | None
    rate: Spread | None
    passes: Spread | None
    source_cpu: Spread | None
    destination_cpu: Spread | None
    memory: Memory
    faster: float | None
    predicted_time: Spread | None
    error: Spread | None
    verdict: str
    note: str

    @property
    def name(self) -> str:
        """What people call it."""
        return self.preset or self.method.value


def rows(result: ScenarioResult) -> tuple[Row, ...]:
    """Return a row for every method asked for, in the scenario's order."""
    plain = [_row(result, method, preset) for method, preset in _kinds(result)]
    reference = baseline(result.scenario)
    base = next((r.wall_time for r in plain if r.method is reference), None)
    return tuple(replace(row, faster=_faster(row, base)) for row in plain)


def baseline(scenario: Scenario) -> Method:
    """Return the method that speeds are told by: QEMU as it comes, on emulated hosts one stream.

    QEMU's cap is far beyond what emulated hosts carry, so the two are one there.
    """
    return Method.TCP if scenario.nested else Method.QEMU_DEFAULT


def _kinds(result: ScenarioResult) -> tuple[tuple[Method, str], ...]:
    """Methods asked for, then those that ran all the same: no run is ever left out."""
    asked = [(method, "") for method in result.scenario.methods]
    return tuple(dict.fromkeys((*asked, *((run.method, run.preset) for run in result.runs))))


def _row(result: ScenarioResult, method: Method, preset: str) -> Row:
    runs = [run for run in result.runs if (run.method, run.preset) == (method, preset)]
    completed = [run for run in runs if run.ending is Ending.COMPLETED]

    def spread(figure: Callable[[Observed], float | None]) -> Spread | None:
        return _spread(figure(run.observed) for run in completed)

    return Row(
        scenario=result.scenario.name,
        method=method,
        preset=preset,
        runs=len(runs),
        completed=len(completed),
        ending=Ending.COMPLETED if completed else runs[0].ending if runs else None,
        wall_time=spread(lambda seen: seen.wall_time),
        arrival_time=spread(lambda seen: seen.arrival_time),
        preparation_time=spread(lambda seen: seen.preparation_time),
        setup=spread(_setup),
        total_time=spread(lambda seen: seen.total_time),
        downtime_observed=spread(lambda seen: seen.downtime_observed),
        downtime_reported=spread(lambda seen: seen.downtime_reported),
        wire_bytes=spread(lambda seen: seen.wire_bytes),
        rate=spread(_rate),
        passes=spread(lambda seen: seen.passes),
        source_cpu=spread(lambda seen: seen.source_cpu_seconds),
        destination_cpu=spread(lambda seen: seen.destination_cpu_seconds),
        memory=_memory(runs),
        faster=None,
        predicted_time=_predicted(runs),
        error=_spread(_error(run) for run in completed),
        verdict=next((run.predicted.verdict.value for run in runs if run.predicted), ""),
        note=_note(runs, result.scenario.timeout),
    )


def _spread(figures: Iterable[float | None]) -> Spread | None:
    known = [figure for figure in figures if figure is not None and math.isfinite(figure)]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known), len(known))


def _predicted(runs: list[Run]) -> Spread | None:
    """Return what was said; of runs that did not complete too, since that was said of them."""
    said = [run.predicted for run in runs if run.predicted is not None]
    if not said:
        return None
    low, middle, high = (
        statistics.median(getattr(p.preparation_time, at) + getattr(p.total_time, at) for p in said)
        for at in ("p10", "p50", "p90")
    )
    return Spread(middle, low, high, len(said))


def _error(run: Run) -> float | None:
    said, wall = run.predicted, run.observed.wall_time
    if said is None or not wall:
        return None
    return (said.preparation_time.p50 + said.total_time.p50) / wall - 1


def _setup(seen: Observed) -> float | None:
    if seen.preparation_time is None or seen.setup_time is None:
        return None
    return seen.preparation_time + seen.setup_time


def _rate(seen: Observed) -> float | None:
    if seen.wire_bytes is None or not seen.total_time:
        return None
    return seen.wire_bytes / seen.total_time


def _memory(runs: list[Run]) -> Memory:
    """One corrupted run condemns the method; intact needs every completed run's word."""
    checks = [run.guest for run in runs if run.guest is not None]
    if any(not check.intact for check in checks):
        return Memory.CORRUPT
    completed = [run for run in runs if run.ending is Ending.COMPLETED]
    if completed and all(run.guest is not None for run in completed):
        return Memory.INTACT
    return Memory.NOT_CHECKED


def _faster(row: Row, base: Spread | None) -> float | None:
    if row.wall_time is None or base is None or row.memory is Memory.CORRUPT:
        return None
    return base.median / row.wall_time.median if row.wall_time.median > 0 else None


def _note(runs: list[Run], timeout: float) -> str:
    """Tell how often the method did not complete, and why; the same words only once."""
    if not runs:
        return "not run"
    words = [word for run in runs if (word := _words(run, timeout))]
    counted = {word: words.count(word) for word in words}
    if len(runs) == 1 or list(counted.values()) == [len(runs)]:
        return "; ".join(counted)
    return "; ".join(f"{count} of {len(runs)} {word}" for word, count in counted.items())


def _words(run: Run, timeout: float) -> str:
    if run.ending is Ending.COMPLETED:
        return "; ".join((*_chosen(run), *(_PRECOPY_SUFFICED,) * _precopy_sufficed(run)))
    start = {
        Ending.NOT_AVAILABLE: "not available",
        Ending.TIMEOUT: f"timeout after {format_time(timeout)}",
        Ending.FAILED: "failed",
        Ending.CANCELLED: "cancelled",
    }[run.ending]
    return f"{start}: {run.reason}" if run.reason else start


def _chosen(run: Run) -> tuple[str, ...]:
    """Return what `auto` took, and what it advised; nothing for other methods."""
    if run.chosen is None:
        return ()
    return (f"took {run.chosen.method}", *(each.rstrip(".") for each in run.chosen.advice))


def _precopy_sufficed(run: Run) -> bool:
    wanted = run.tuning is not None and run.tuning.postcopy in _BY_ITSELF
    return wanted and all(change.phase is not Phase.POSTCOPY for change in run.phases)


_BY_ITSELF = {Postcopy.AFTER_FIRST_PASS, Postcopy.AFTER_FIRST_PASS_PREEMPT}

_PRECOPY_SUFFICED = "pre-copy was done before post-copy was due"

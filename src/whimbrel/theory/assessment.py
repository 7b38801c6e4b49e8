"""How good the forecasts of a whole suite were, beside what nobody could have done better.

cases ─┬─ records ──► accuracy of ours, by method      theory.accuracy
├─ surveys ──► accuracy of the simple models     theory.rivals
├─ repeats ──► the noise floor: no forecast can beat how a move differs from itself
└─ scenarios ► regret: `auto` against the best method there was
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import Run, Scenario
from whimbrel.theory.accuracy import Accuracy, accuracy, by_method
from whimbrel.theory.baselines import Baseline
from whimbrel.theory.rivals import rivals
from whimbrel.theory.score import Errors, Verdicts, absolute_errors, relative_errors

PROMISED = (Method.TCP, Method.MULTICHANNEL, Method.COMPRESSED, Method.POSTCOPY)
"""The methods whose accuracy is promised; the others may have wider bands."""

OURS = "whimbrel"
EXPECTED_DOWNTIME = "QEMU's expected downtime"
"""What the models are called."""


@dataclass(frozen=True)
class Case:
    """One run of a suite: what was asked for, what became of it, and what was kept of it.

    Attributes:
        scenario: What was asked for.
        run: What became of it.
        record: What a history keeps of it; None where nothing was predicted.
    """

    scenario: Scenario
    run: Run
    record: MoveRecord | None


@dataclass(frozen=True)
class Rival:
    """How a simple model did on the same moves; None where it says nothing.

    A move that it expects never to end, and that did end, counts with an infinite error.
    """

    name: str
    total_time: Errors | None
    wire_bytes: Errors | None
    downtime: Errors | None
    verdicts: Verdicts | None


@dataclass(frozen=True)
class Noise:
    """How far repeats of the same move lie from their own median.

    Attributes:
        groups: Moves that were repeated.
        total_time: Relative.
        wire_bytes: Relative.
        downtime: In seconds.
    """

    groups: int
    total_time: Errors
    wire_bytes: Errors
    downtime: Errors


@dataclass(frozen=True)
class Regret:
    """`auto` in one scenario against the methods that say what they do.

    Attributes:
        scenario: Its name.
        chosen: What `auto` took.
        seconds: Wall time of `auto`; infinite where it did not complete.
        best: The method that was fastest in this scenario.
        best_seconds: Its wall time.
        default_seconds: Wall time of `qemu-default`; None where it was not run.
        default_completed: Whether that completed; if not, its time is what it was given.
    """

    scenario: str
    chosen: str
    seconds: float
    best: Method
    best_seconds: float
    default_seconds: float | None
    default_completed: bool

    @property
    def ratio(self) -> float:
        """Time of `auto` over that of the best; 1 is perfect, below 1 it was better."""
        return self.seconds / self.best_seconds


@dataclass(frozen=True)
class Assessment:
    """Everything that a suite says of theory.

    Attributes:
        runs: How many moves were made.
        promised: Accuracy over the `PROMISED` methods.
        methods: Accuracy of each method.
        rivals: The simple models on the moves of `promised`.
        noise: The noise floor; None without repeats.
        regrets: One for each scenario in which `auto` ran beside others.
    """

    runs: int
    promised: Accuracy
    methods: Mapping[Method, Accuracy]
    rivals: tuple[Rival, ...]
    noise: Noise | None
    regrets: tuple[Regret, ...]

    @property
    def borderline_share(self) -> float:
        """Share of the promised predictions that were borderline, 0 to 1."""
        met = self.promised.verdicts
        told = met.right + met.wrong + met.borderline
        return met.borderline / told if told else 0.0

    @property
    def regret(self) -> float | None:
        """Geometric mean of `Regret.ratio`; None without any."""
        return _geometric_mean([each.ratio for each in self.regrets])

    @property
    def speedup(self) -> float | None:
        """Geometric mean of the time of `qemu-default` over that of `auto`.

        Where the default did not complete, it counts with the time it was given: at least.
        """
        pairs = [(each.default_seconds, each.seconds) for each in self.regrets]
        return _geometric_mean([default / auto for default, auto in pairs if default is not None])


def assess(cases: Sequence[Case]) -> Assessment:
    """Return how good the forecasts of all these runs were."""
    records = [each.record for each in cases if each.record is not None]
    promised = [each for each in records if each.method in PROMISED]
    return Assessment(
        runs=sum(each.run.ending is not Ending.NOT_AVAILABLE for each in cases),
        promised=accuracy(promised),
        methods=by_method(records),
        rivals=_rivals(promised),
        noise=_noise(cases),
        regrets=_regrets(cases),
    )


def _geometric_mean(values: Sequence[float]) -> float | None:
    return float(np.exp(np.mean(np.log(values)))) if values else None


def time_errors(records: Sequence[MoveRecord]) -> dict[str, list[float]]:
    """Return the relative errors of total time by model, ours first, of moves that completed."""
    found: dict[str, list[float]] = {OURS: []}
    for each in records:
        seen = each.observed.total_time
        if not seen or not each.completed or each.prediction is None or each.survey is None:
            continue
        said = {OURS: each.prediction.total_time.p50}
        said |= {name: one.total_time for name, one in rivals(each.survey, each.tuning).items()}
        for name, seconds in said.items():
            found.setdefault(name, []).append(abs(seconds - seen) / seen)
    return found


def _rivals(records: Sequence[MoveRecord]) -> tuple[Rival, ...]:
    told = [(each, rivals(each.survey, each.tuning)) for each in records if each.survey]
    names = list(dict.fromkeys(name for _, said in told for name in said))
    simple = (_rival(name, [(record, said[name]) for record, said in told]) for name in names)
    own = [
        (each.observed.downtime_expected, each.observed.downtime)
        for each in records
        if each.completed
    ]
    of_qemu = Rival(EXPECTED_DOWNTIME, None, None, _errors(own, relative=False), None)
    return (*simple, of_qemu)


def _rival(name: str, told: Sequence[tuple[MoveRecord, Baseline]]) -> Rival:
    done = [(said, record.observed) for record, said in told if record.completed]
    met = [
        (said.total_time <= record.prediction.deadline) == record.completed
        for record, said in told
        if record.prediction and record.completed is not None
    ]
    return Rival(
        name,
        _errors([(said.total_time, seen.total_time) for said, seen in done], relative=True),
        _errors([(said.wire_bytes, seen.wire_bytes) for said, seen in done], relative=True),
        _errors([(said.downtime, seen.downtime) for said, seen in done], relative=False),
        Verdicts(sum(met), len(met) - sum(met), 0),
    )


def _errors(pairs: Sequence[tuple[float | None, float | None]], *, relative: bool) -> Errors | None:
    known = [(said, seen) for said, seen in pairs if said is not None and seen]
    if not known:
        return None
    measure = relative_errors if relative else absolute_errors
    return measure([said for said, _ in known], [seen for _, seen in known])


def _noise(cases: Sequence[Case]) -> Noise | None:
    def key(case: Case) -> tuple[str, str]:
        return case.scenario.name, case.run.method.value

    done = [each for each in cases if each.run.ending is Ending.COMPLETED]
    together = [list(group) for _, group in groupby(sorted(done, key=key), key=key)]
    groups = [[each.run.observed for each in group] for group in together if len(group) > 1]
    if not groups:
        return None
    times = _spread([[each.total_time for each in group] for group in groups], relative=True)
    sent = _spread([[each.wire_bytes for each in group] for group in groups], relative=True)
    still = _spread(
        [[each.downtime_observed for each in group] for group in groups], relative=False
    )
    if times is None or sent is None or still is None:
        return None
    return Noise(len(groups), times, sent, still)


def _spread(groups: Sequence[Sequence[float | None]], *, relative: bool) -> Errors | None:
    pairs: list[tuple[float | None, float | None]] = []
    for group in groups:
        known = [value for value in group if value is not None]
        if known:
            middle = float(np.median(known))
            pairs += [(middle, value) for value in known]
    return _errors(pairs, relative=relative)


def _regrets(cases: Sequence[Case]) -> tuple[Regret, ...]:
    names = dict.fromkeys(each.scenario.name for each in cases)
    found = (_regret(name, [c.run for c in cases if c.scenario.name == name]) for name in names)
    return tuple(each for each in found if each is not None)


def _regret(name: str, runs: Sequence[Run]) -> Regret | None:
    auto = [run for run in runs if run.method is Method.AUTO]
    static = [run for run in runs if run.method is not Method.AUTO]
    timed = [(_seconds(run), run.method) for run in static if run.ending is Ending.COMPLETED]
    if not auto or not timed:
        return None
    best_seconds, best = min(timed)
    default = next((run for run in static if run.method is Method.QEMU_DEFAULT), None)
    return Regret(
        scenario=name,
        chosen=auto[0].chosen.method.value if auto[0].chosen else "",
        seconds=_seconds(auto[0]) if auto[0].ending is Ending.COMPLETED else math.inf,
        best=best,
        best_seconds=best_seconds,
        default_seconds=_seconds(default) if default else None,
        default_completed=default is not None and default.ending is Ending.COMPLETED,
    )


def _seconds(run: Run) -> float:
    return math.inf if run.observed.wall_time is None else run.observed.wall_time

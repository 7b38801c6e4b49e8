"""What others took for the same moves: times, downtimes, bytes and failures as ratios of one run.

A ratio is taken guest by guest, between two moves of the same guest over the same link, and its
mean over the guests is geometric. A move that did not complete counts with all the time that it
was given: it took longer. So ratios to one that fails are bounds, and are marked as such.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Run, Scenario, ScenarioResult

_SHORTEST = 1e-3
"""Seconds; no downtime is told more finely."""

HALF, SLOWER = 0.5, 1.05
"""The aim: this share of the best product's time at most, never slower than any by more."""


@dataclass(frozen=True)
class Peer:
    """Somebody who moves guests.

    Attributes:
        name: What its runs are called.
        product: Whose it is.
        default: Whether this is what the product does unless told otherwise.
        description: What is done, in words.
        source: Where that was read.
    """

    name: str
    product: str
    default: bool
    description: str
    source: str


@dataclass(frozen=True)
class Trial:
    """What one peer made of one guest.

    Attributes:
        guest: The guest's name.
        completed: Whether every move of it completed.
        seconds: From the request until it had moved, or what it was given; the median.
        downtime: Seconds, by the guest's own beat; None where it is not known.
        sent: Bytes on the wire; None where they are not known.
        reason: Why it did not complete; else empty.
    """

    guest: str
    completed: bool
    seconds: float
    downtime: float | None = None
    sent: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Standing:
    """How one peer stands beside the reference.

    Attributes:
        peer: Who.
        trials: What it made of each guest; none where it could not be had here.
        missing: Why not; empty where it could.
        time: Mean ratio of times; None where there is nothing to compare.
        bound: Whether a move that did not complete is in it, so that the true one is greater.
        downtime: Mean ratio of downtimes, where both completed.
        sent: Mean ratio of bytes on the wire, likewise.
    """

    peer: Peer
    trials: tuple[Trial, ...] = ()
    missing: str = ""
    time: float | None = None
    bound: bool = False
    downtime: float | None = None
    sent: float | None = None

    @property
    def completed(self) -> int:
        """How many guests it brought over."""
        return sum(trial.completed for trial in self.trials)

    @property
    def longest_downtime(self) -> float | None:
        """Seconds; of the guests that it brought over."""
        return max((t.downtime for t in self.trials if t.completed and t.downtime), default=None)


@dataclass(frozen=True)
class Against:
    """One guest, ours beside another's.

    Attributes:
        peer: The other's name.
        guest: The guest's name.
        ratio: Our time over its; infinite where only it completed.
    """

    peer: str
    guest: str
    ratio: float


@dataclass(frozen=True)
class Comparison:
    """What a peers suite found.

    Attributes:
        ours: The name of whimbrel's own runs that the aims are held against.
        best: The product whose defaults took the least time; None where none could be had.
        standings: Everyone, in the order asked for.
        guests: The guests that everyone was tried with.
        slower: The guest on which ours was slowest beside another; None: nothing to compare.
        rescued: Where ours completed and a product's default did not.
        lost: Where another completed and ours did not.
        survey: Seconds that ours looked before a move, the median; in none of the figures above.
        looked: The share of the best product's time where that is counted as well.
    """

    ours: str
    best: Peer | None
    standings: tuple[Standing, ...]
    guests: tuple[str, ...]
    slower: Against | None = None
    rescued: tuple[Against, ...] = ()
    lost: tuple[Against, ...] = ()
    survey: float | None = None
    looked: float | None = None

    @property
    def share(self) -> float | None:
        """Ours in shares of the best product's time; None where there is nothing to compare."""
        return next((s.time for s in self.standings if s.peer.name == self.ours), None)

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None where nothing tells."""
        if self.share is None or self.slower is None:
            return None
        return self.share <= HALF and self.slower.ratio <= SLOWER and not self.lost


def compare(
    results: Iterable[ScenarioResult], peers: Sequence[Peer], ours: str = "whimbrel"
) -> Comparison:
    """Compare everyone with the product whose defaults were the fastest of this run.

    Args:
        results: Whose runs are called by `Run.preset`.
        peers: Everyone, ours included, in the order of the table.
        ours: Which of them the aims are held against.
    """
    parts = tuple(results)
    found = {peer.name: _trials(peer.name, parts) for peer in peers}
    tried = [set(each) for each in found.values() if each]
    shared = set.intersection(*tried) if tried else set()
    guests = tuple(dict.fromkeys(p.scenario.name for p in parts if p.scenario.name in shared))
    best = _best(peers, found, guests)
    reference = found[best.name] if best else {}
    product = next((peer.product for peer in peers if peer.name == ours), "")
    others = {peer.name: found[peer.name] for peer in peers if peer.product != product}
    pairs = _pairs(found.get(ours, {}), others, guests)
    both = [each for each in pairs if 0 < each.ratio < math.inf]
    defaults = {peer.name for peer in peers if peer.default}
    return Comparison(
        ours=ours,
        best=best,
        standings=tuple(
            _standing(peer, found[peer.name], reference, guests, parts) for peer in peers
        ),
        guests=guests,
        slower=max(both, key=lambda each: each.ratio, default=None),
        rescued=tuple(each for each in pairs if each.ratio == 0 and each.peer in defaults),
        lost=tuple(each for each in pairs if each.ratio == math.inf),
        survey=_median(run.survey_time for p in parts for run in p.runs if run.preset == ours),
        looked=_looked(ours, parts, found.get(ours, {}), reference, guests),
    )


def _looked(
    ours: str,
    parts: Sequence[ScenarioResult],
    mine: Mapping[str, Trial],
    reference: Mapping[str, Trial],
    guests: Sequence[str],
) -> float | None:
    """Return the mean ratio of times with the time that ours looked before each move."""
    took = {
        guest: _median(
            run.survey_time
            for part in parts
            for run in part.runs
            if part.scenario.name == guest and run.preset == ours
        )
        for guest in guests
    }
    return _mean(
        (mine[guest].seconds + (took[guest] or 0.0)) / reference[guest].seconds
        for guest in guests
        if mine and reference
    )


def _pairs(
    mine: Mapping[str, Trial], others: Mapping[str, Mapping[str, Trial]], guests: Sequence[str]
) -> list[Against]:
    """Set ours beside every other product's, guest by guest."""
    pairs = (
        _against(name, mine[guest], trials[guest])
        for guest in guests
        for name, trials in others.items()
        if mine and trials
    )
    return [each for each in pairs if each is not None]


def _against(peer: str, mine: Trial, its: Trial) -> Against | None:
    """Return ours beside another's: 0 where only ours completed, infinite where only its did."""
    if not (mine.completed or its.completed):
        return None
    if not its.completed:
        return Against(peer, mine.guest, 0.0)
    ratio = mine.seconds / its.seconds if mine.completed else math.inf
    return Against(peer, mine.guest, ratio)


def _trials(name: str, parts: Iterable[ScenarioResult]) -> dict[str, Trial]:
    """Return what one peer made of each guest that it could be tried with."""
    found: dict[str, list[tuple[Scenario, Run]]] = {}
    for part in parts:
        for run in part.runs:
            # A move that ours refuses to begin is one that it does not bring over.
            begun = run.ending is not Ending.NOT_AVAILABLE or run.predicted is not None
            if run.preset == name and begun:
                found.setdefault(part.scenario.name, []).append((part.scenario, run))
    return {guest: _trial(guest, runs) for guest, runs in found.items()}


def _trial(guest: str, runs: Sequence[tuple[Scenario, Run]]) -> Trial:
    failed = [run for _, run in runs if not _completed(run)]
    seen = [run.observed for _, run in runs if _completed(run)]
    seconds = [
        run.observed.wall_time
        if _completed(run) and run.observed.wall_time is not None
        else scenario.timeout
        for scenario, run in runs
    ]
    return Trial(
        guest,
        not failed,
        median(seconds),
        _median(each.downtime_observed for each in seen),
        _median(each.wire_bytes for each in seen),
        failed[0].reason or failed[0].ending.value if failed else "",
    )


def _completed(run: Run) -> bool:
    return run.ending is Ending.COMPLETED


def _median(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return median(known) if known else None


def _best(
    peers: Iterable[Peer], found: Mapping[str, Mapping[str, Trial]], guests: Sequence[str]
) -> Peer | None:
    rivals = [peer for peer in peers if peer.default and found[peer.name] and guests]

    def time(peer: Peer) -> float:
        return _mean(found[peer.name][guest].seconds for guest in guests) or math.inf

    return min(rivals, key=time, default=None)


def _standing(
    peer: Peer,
    mine: Mapping[str, Trial],
    reference: Mapping[str, Trial],
    guests: Sequence[str],
    parts: Sequence[ScenarioResult],
) -> Standing:
    if not mine:
        return Standing(peer, missing=_missing(peer.name, parts))
    trials = tuple(mine[guest] for guest in guests)
    pairs = [(trial, reference[trial.guest]) for trial in trials if reference]
    both = [(a, b) for a, b in pairs if a.completed and b.completed]
    return Standing(
        peer,
        trials,
        time=_mean(a.seconds / b.seconds for a, b in pairs),
        bound=any(not trial.completed for trial in trials),
        downtime=_mean(_ratios(both, lambda trial: trial.downtime)),
        sent=_mean(_ratios(both, lambda trial: trial.sent)),
    )


def _ratios(
    pairs: Iterable[tuple[Trial, Trial]], pick: Callable[[Trial], float | None]
) -> Iterable[float]:
    for mine, other in pairs:
        a, b = pick(mine), pick(other)
        if a is not None and b is not None:
            yield max(a, _SHORTEST) / max(b, _SHORTEST)


def _missing(name: str, parts: Iterable[ScenarioResult]) -> str:
    reasons = (run.reason for part in parts for run in part.runs if run.preset == name)
    return next(reasons, "not tried")


def _mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean; None of nothing."""
    logs = [math.log(each) for each in values if each > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None

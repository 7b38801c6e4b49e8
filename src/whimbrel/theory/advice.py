"""What would change a verdict, or allow something better: each sentence tried by simulation.

    the wish    post-copy, a limit, the deadline    "Post-copy would finish in 13 s, …"
    the link    the least bandwidth that does       "At 2.5 Gbit/s tcp completes in 14 s."
    the guest   a quieter moment                    "Wait: the dirty rate was 50% of … 40 s ago"

A plan that is go is advised only where a limit of its wish rules something better out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.memory import DirtyCurve, Survey
from whimbrel.model.method import Method, Postcopy, Settings, tuning_for
from whimbrel.model.plan import Candidate, Plan, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.model.units import format_link, format_time
from whimbrel.theory.certificate import can_pull, certify
from whimbrel.theory.choose import CLOSE, against, figure
from whimbrel.theory.explain import described, measured
from whimbrel.theory.situation import Situation
from whimbrel.theory.trial import Found, Other, Trial, calmer, round_up

MOST = 3
"""Sentences at most."""

PATIENT = 20.0
"""Times the wished total time beyond which no deadline is advised."""

WIDEST = 16.0
"""Times the bandwidth there is beyond which none is advised."""

LONGEST_STOP = 30.0
"""Seconds beyond which no downtime limit is advised."""

CALMER = 0.95
"""Share of the surveyed dirty rate below which an earlier one counts as lower."""

UNSTEADY = 0.15
"""Unsteadiness from which a quieter moment may be hoped for (docs/survey.md)."""


@dataclass(frozen=True)
class Remedy:
    """What would help, with all it takes to try it again.

    Attributes:
        sentence: For people.
        survey: What would have to be so.
        candidate: What would then be done.
        wish: The limits that it would then keep.
    """

    sentence: str
    survey: Survey
    candidate: Candidate
    wish: Wish


def advise(situation: Situation, settings: Settings, plan: Plan, *, seed: int) -> tuple[str, ...]:
    """Return at most `MOST` sentences: what would turn a plan to go, or make it better.

    Args:
        situation: What the plan was made of.
        settings: What a person set for all methods.
        plan: The plan, whole but for its advice.
        seed: Of the draws that advice is tried with.
    """
    return tuple(each.sentence for each in remedies(situation, settings, plan, seed=seed))


def remedies(
    situation: Situation, settings: Settings, plan: Plan, *, seed: int
) -> tuple[Remedy, ...]:
    """Return what `advise` says, with what each sentence can be tried with again."""
    trial = Trial(situation, settings, plan, seed)
    asked: tuple[Callable[[Trial], Remedy | None], ...] = _ASKED
    if trial.likely:
        asked = _OF_GO if plan.verdict is Verdict.GO else _OF_UNSURE
    found: list[Remedy] = []
    for ask in asked:
        remedy = ask(trial)
        if remedy is not None:
            found.append(remedy)
        if len(found) == MOST:
            break
    return tuple(found)


def _postcopy(trial: Trial) -> Remedy | None:
    """Post-copy, where it is not allowed and nothing else is likely to complete."""
    wish = replace(trial.plan.wish, postcopy=True)
    if trial.plan.wish.postcopy or trial.likely or not can_pull(wish, trial.situation.common):
        return None
    found = trial.kept(Other(trial.situation.survey, _pulling(trial), wish, 0.0))
    if found is None:
        return None
    still = format_time(found.forecast.prediction.downtime.p50)
    finish = f"Post-copy would finish in {format_time(found.forecast.wall_time)}"
    return _remedy(f"{finish}, with {still} of downtime; it is not allowed.", found)


def _sure(trial: Trial) -> Remedy | None:
    """Post-copy as a fallback, or a later deadline, where all that is missing is a guarantee."""
    wish, best = trial.plan.wish, trial.plan.chosen
    if best is None:
        return None
    if not wish.postcopy:
        freed = replace(wish, postcopy=True)
        bound = _guaranteed(trial, best.candidate, freed)
        allowed = "With post-copy allowed it would be sure to complete, within"
        if bound is None:
            return None
        sentence = f"{allowed} {format_time(bound)}."
        return Remedy(sentence, trial.situation.survey, _pulling(trial), freed)
    bound = _guaranteed(trial, best.candidate, _patient(wish))
    if bound is None:
        return None
    later = replace(wish, total_time=round_up(bound))
    sentence = f"With a deadline of {format_time(later.total_time)} it would be sure to complete."
    return Remedy(sentence, trial.situation.survey, best.candidate, later)


def _guaranteed(trial: Trial, candidate: Candidate, wish: Wish) -> float | None:
    """Return the seconds within which a candidate is sure to complete; None where it is not."""
    situation = trial.situation
    rung = certify(
        situation.survey,
        candidate.tuning,
        wish,
        situation.common,
        situation.rules,
        generator=np.random.default_rng(trial.seed),
        floor=situation.floor,
    ).guarantee
    return None if rung is None else rung.total_time


def _patient(wish: Wish) -> Wish:
    return replace(wish, total_time=PATIENT * wish.total_time)


def _hindered(trial: Trial) -> Remedy | None:
    """The best that is likely to complete, where it is better and only a limit rules it out."""
    plan, best, goal = trial.plan, trial.plan.chosen, trial.plan.wish.goal
    told = not plan.wish.postcopy and not trial.likely
    ruled = [
        each.forecast
        for each in plan.rejected
        if each.forecast is not None
        and each.forecast.prediction.verdict is Verdict.GO
        and against(each.forecast, plan.wish)
        and not (told and each.forecast.candidate.tuning.postcopy is not Postcopy.NEVER)
    ]
    other = min(ruled, key=lambda each: figure(each, goal), default=None)
    if other is None or (best and figure(other, goal) >= figure(best, goal) * (1 - CLOSE)):
        return None
    free = Wish(PATIENT * plan.wish.total_time, math.inf, goal)
    found = trial.kept(Other(trial.situation.survey, other.candidate, free, 0.0))
    if found is None:
        return None
    name = described(other.candidate)
    instead = f" instead of {measured(best, goal)}" if best else ""
    takes = f"{name[0].upper()}{name[1:]} would take {measured(found.forecast, goal)}{instead}"
    return _remedy(f"{takes}, but {against(other, plan.wish)}.", found)


def _bandwidth_limit(trial: Trial) -> Remedy | None:
    """The least bandwidth limit with which pre-copy completes, where one is set."""
    limit, survey = trial.allowed.bandwidth_limit, trial.situation.survey
    if limit is None:
        return None

    def at(candidate: Candidate, factor: float) -> Other:
        rate = _link(limit * factor)
        tuning = replace(candidate.tuning, bandwidth_limit=rate)
        wish = replace(trial.plan.wish, bandwidth_limit=rate)
        return Other(survey, replace(candidate, tuning=tuning), wish, rate)

    found = trial.least(at, WIDEST)
    if found is None:
        return None
    rate = format_link(found.other.amount)
    return _remedy(f"With a bandwidth limit of {rate} {_completes(found)}.", found)


def _deadline(trial: Trial) -> Remedy | None:
    """The time within which pre-copy completes, where it does at all."""
    wish = trial.plan.wish
    found = trial.quickest(trial.situation.survey, _patient(wish))
    if found is None:
        return None
    prediction = found.forecast.prediction
    until = round_up(prediction.preparation_time.p90 + prediction.total_time.p90)
    if until <= wish.total_time:
        return None
    sentence = f"With a deadline of {format_time(until)} {_completes(found)}."
    return replace(_remedy(sentence, found), wish=replace(wish, total_time=until))


def _downtime_limit(trial: Trial) -> Remedy | None:
    """The least downtime limit with which pre-copy completes, beyond the wish."""
    begin, survey = trial.allowed.downtime_limit, trial.situation.survey
    wish = replace(trial.plan.wish, downtime=math.inf)

    def at(candidate: Candidate, factor: float) -> Other:
        limit = round_up(begin * factor)
        tuning = replace(candidate.tuning, downtime_limit=limit)
        return Other(survey, replace(candidate, tuning=tuning), wish, limit)

    found = trial.least(at, LONGEST_STOP / begin)
    if found is None:
        return None
    still = format_time(found.forecast.prediction.downtime.p90)
    limit = format_time(found.other.amount)
    sentence = f"With a downtime limit of {limit} {_completes(found)}, frozen for up to {still}."
    return _remedy(sentence, found)


def _bandwidth(trial: Trial) -> Remedy | None:
    """The least bandwidth of the link at which pre-copy completes."""
    survey = trial.situation.survey

    def at(candidate: Candidate, factor: float) -> Other:
        link = survey.along(candidate.tuning).link
        now = link.goodput_for(candidate.tuning.channels or 1)
        rate = _link(now * factor)
        more = {streams: each * rate / now for streams, each in link.goodput.items()}
        wider = replace(survey, link=replace(link, goodput=more))
        return Other(wider, candidate, trial.plan.wish, rate)

    found = trial.least(at, WIDEST)
    if found is None:
        return None
    return _remedy(f"At {format_link(found.other.amount)} {_completes(found)}.", found)


def _wait(trial: Trial) -> Remedy | None:
    """A quieter moment: one that was seen before, or one that unsteadiness lets hope for."""
    survey = trial.situation.survey
    for share, words in _quieter(survey.memory.dirty, trial.situation):
        found = trial.quickest(calmer(survey, share), trial.plan.wish)
        if found is not None:
            return _remedy(f"Wait: {words} {_completes(found)}.", found)
    return None


_OF_GO = (_hindered,)
"""What is asked of a plan that is go."""

_OF_UNSURE = (_sure, _hindered)
"""What is asked of a plan that is likely to complete, and not guaranteed to."""

_ASKED = (_postcopy, _hindered, _bandwidth_limit, _deadline, _wait, _downtime_limit, _bandwidth)
"""What is asked of any other, the most helpful first."""


def _quieter(curve: DirtyCurve, situation: Situation) -> Iterator[tuple[float, str]]:
    """Yield shares of the dirty rate that are worth waiting for, the latest seen first."""
    now = curve.write_rate
    for each in sorted(situation.earlier, key=lambda one: one.age):
        if each.write_rate < CALMER * now:
            share, ago = each.write_rate / now, format_time(each.age)
            yield share, f"{ago} ago the dirty rate was {share:.0%} of what it is now; then"
    if curve.unsteadiness >= UNSTEADY:
        spread = min(curve.unsteadiness, 0.9)
        yield 1 - spread, f"the dirty rate varies by {spread:.0%}; when it is that much lower,"


def _pulling(trial: Trial) -> Candidate:
    return Candidate(Method.POSTCOPY, tuning_for(Method.POSTCOPY, trial.allowed))


def _link(rate: float) -> float:
    """Return a rate in bytes that is round in bits."""
    return round_up(rate * 8) / 8


def _completes(found: Found) -> str:
    forecast = found.forecast
    return f"{described(forecast.candidate)} completes in {format_time(forecast.wall_time)}"


def _remedy(sentence: str, found: Found) -> Remedy:
    other = found.other
    return Remedy(sentence, other.survey, other.candidate, other.wish)

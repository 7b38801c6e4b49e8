"""What would be, were something else: one plan, tried again under other circumstances."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from whimbrel.model.memory import Survey
from whimbrel.model.method import Method, Postcopy, Settings
from whimbrel.model.plan import Candidate, Forecast, Plan, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.theory.candidates import within_wish
from whimbrel.theory.choose import against
from whimbrel.theory.simulate import predict, simulate
from whimbrel.theory.situation import Situation

DRAWS = 40
"""Draws that everything is tried with, beside the best estimate."""

STEP = 1.5
"""Factor between two trials of a search."""

REFINED = 2
"""How often the last step of a search is halved."""

_TRIED = (Method.TCP, Method.MULTICHANNEL, Method.MULTINIC, Method.COMPRESSED)


@dataclass(frozen=True)
class Other:
    """Other circumstances, and the amount of something that makes them so, in its own unit."""

    survey: Survey
    candidate: Candidate
    wish: Wish
    amount: float


@dataclass(frozen=True)
class Found:
    """What keeps the wish under other circumstances."""

    other: Other
    forecast: Forecast


@dataclass(frozen=True)
class Trial:
    """One plan with all it was made of.

    Attributes:
        situation: What was surveyed.
        settings: What a person set for all methods.
        plan: What came of it.
        seed: Of the draws.
    """

    situation: Situation
    settings: Settings
    plan: Plan
    seed: int

    @property
    def allowed(self) -> Settings:
        """The settings within the wish."""
        return within_wish(self.situation, self.settings, self.plan.wish)

    @property
    def likely(self) -> bool:
        """Whether what was chosen is likely to complete by itself."""
        best = self.plan.chosen
        return best is not None and best.prediction.verdict is Verdict.GO

    @property
    def weighed(self) -> list[Forecast]:
        """Everything that was predicted."""
        known = [each.forecast for each in self.plan.rejected if each.forecast is not None]
        return [*self.plan.ranking, *known]

    @property
    def precopies(self) -> list[Candidate]:
        """The likeliest unthrottled pre-copy of each method that is worth trying."""
        found = []
        for method in _TRIED:
            own = [each for each in self.weighed if _precopy(each.candidate, method)]
            if own:
                best = max(own, key=lambda each: each.prediction.completion_probability)
                found.append(best.candidate)
        return found

    def kept(self, other: Other) -> Found | None:
        """Return what becomes of a candidate that then keeps the wish; None where it does not.

        Both the best estimate and nine of ten draws have to.
        """
        tuning, wish, rules = other.candidate.tuning, other.wish, self.situation.rules
        prediction = predict(
            other.survey,
            tuning,
            rules,
            generator=np.random.default_rng(self.seed),
            deadline=wish.total_time,
            draws=DRAWS,
        )
        forecast = Forecast(other.candidate, prediction)
        if prediction.verdict is not Verdict.GO or against(forecast, wish):
            return None
        course = simulate(other.survey, tuning, rules, deadline=wish.total_time)
        late = course.preparation_time + course.total_time > wish.total_time
        broken = not course.completed or late or course.downtime > wish.downtime
        return None if broken else Found(other, forecast)

    def quickest(self, survey: Survey, wish: Wish) -> Found | None:
        """Return the quickest pre-copy that keeps a wish; None where none does."""
        tried = (self.kept(Other(survey, each, wish, 0.0)) for each in self.precopies)
        found = [each for each in tried if each is not None]
        return min(found, key=lambda each: each.forecast.wall_time, default=None)

    def least(self, at: Callable[[Candidate, float], Other], most: float) -> Found | None:
        """Return the pre-copy that keeps its wish with the least of something.

        Args:
            at: What there would be with so many times as much of it.
            most: How many times as much is tried at most.
        """
        best: Found | None = None
        for candidate in self.precopies:
            found = self._least(partial(at, candidate), most, best)
            best = found or best
        return best

    def _least(self, at: Callable[[float], Other], most: float, best: Found | None) -> Found | None:
        """Return what does with the least of something, if that is less than the best so far."""
        found: Found | None = None
        low, factor = 1.0, STEP
        while found is None and factor <= most and not _dearer(at(factor), best):
            found = self.kept(at(factor))
            low, factor = (low, factor) if found else (factor, factor * STEP)
        for _ in range(REFINED if found else 0):
            middle = math.sqrt(low * factor)
            closer = self.kept(at(middle))
            found, factor, low = (closer, middle, low) if closer else (found, factor, middle)
        return found


def _dearer(other: Other, best: Found | None) -> bool:
    return best is not None and other.amount >= best.other.amount


def round_up(value: float) -> float:
    """Return the next number of two digits: what people say, and never less than was asked."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step - 1e-9) * step


def _precopy(candidate: Candidate, method: Method) -> bool:
    tuning = candidate.tuning
    plain = tuning.postcopy in {Postcopy.NEVER, Postcopy.IF_STALLED} and not tuning.throttling
    return plain and candidate.method is method


def calmer(survey: Survey, share: float) -> Survey:
    """Return a survey of the same guest when it writes at this share of its rate."""
    curve = survey.memory.dirty
    classes = tuple(replace(each, rate=each.rate * share) for each in curve.classes)
    return replace(survey, memory=replace(survey.memory, dirty=replace(curve, classes=classes)))

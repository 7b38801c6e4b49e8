"""A plan, from a survey and a wish: the whole of what theory says about one move.

    variants ─► predict, few draws ─► aids where it is not sure ─► the leaders, more draws
                                                                        │
    Plan ◄─ advise ◄─ pucker ◄─ certify, the guaranteed first ◄─ choose ┘

Few draws tell what is far behind; only what may be taken is worth many.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.method import Method, Settings
from whimbrel.model.plan import Candidate, Certificate, Forecast, Plan, Pucker, Rejection, Wish
from whimbrel.model.prediction import Prediction, Verdict
from whimbrel.theory.advice import advise
from whimbrel.theory.candidates import aids, candidates, variants, within_wish
from whimbrel.theory.certificate import certify
from whimbrel.theory.choose import CLOSE, Choice, choose, figure
from whimbrel.theory.explain import described, measured
from whimbrel.theory.pucker import Risk, exposed_seconds, pucker
from whimbrel.theory.simulate import predict, simulate
from whimbrel.theory.situation import Situation

COARSE = 40
"""Draws with which every way is predicted once."""

FINE = 200
"""Draws with which the leaders are predicted again."""

LEADERS = 4
"""Ways that are predicted again, beside the best of every method."""


def plan_move(
    situation: Situation,
    settings: Settings,
    wish: Wish,
    *,
    generator: np.random.Generator,
    method: Method | None = None,
) -> Plan:
    """Return what to do about one guest, with everything that speaks for and against it.

    Args:
        situation: What was surveyed, and what the hosts can do.
        settings: What a person set for all methods.
        wish: What is to be small, and the limits.
        generator: The only source of randomness; the same state leads to the same plan.
        method: The one that a person named, taken as it is; None or `auto`: all are weighed.
    """
    wish = _at_either_end(situation, wish)
    work = _Work(situation, wish, int(generator.integers(2**63)))
    helpless: tuple[Rejection, ...] = ()
    if method is None or method is Method.AUTO:
        possible, rejected = variants(situation, settings, wish)
        coarse = work.foreseen(possible, COARSE)
        helped, helpless = aids(situation, wish, coarse)
        coarse += work.foreseen(helped, COARSE)
    else:
        allowed = within_wish(situation, settings, wish)
        possible, rejected = candidates(allowed, situation.source, situation.destination, (method,))
        coarse = work.foreseen(possible, COARSE)
    choice, beaten = work.chosen(coarse)
    choice, certificate = work.certified(choice)
    refused = (*rejected, *helpless, *choice.rejected, *beaten)
    plan = Plan(wish, choice.ranking, refused, certificate)
    if plan.chosen is not None:
        best = plan.chosen
        risk = pucker_of(situation, best.candidate, best.prediction)
        plan = replace(plan, pucker=risk)
    return replace(plan, advice=advise(situation, settings, plan, seed=work.seed))


def _at_either_end(situation: Situation, wish: Wish) -> Wish:
    """Return the wish with the budget that each end has: one machine's is for both of them."""
    if situation.survey.shared_cores is None or wish.cpu_budget is None:
        return wish
    return replace(wish, cpu_budget=wish.cpu_budget / 2)


def pucker_of(situation: Situation, candidate: Candidate, prediction: Prediction) -> Pucker:
    """Return the risk of one candidate."""
    course = simulate(
        situation.survey, candidate.tuning, situation.rules, deadline=prediction.deadline
    )
    risk = Risk(
        not_completing=1 - prediction.completion_probability,
        exposed=exposed_seconds(course),
        downtime=prediction.downtime.p90,
        tolerance=situation.tolerance,
        headroom=situation.headroom,
    )
    return pucker(risk)


@dataclass(frozen=True)
class _Work:
    """One plan being made; all candidates are predicted with the same draws, to be compared."""

    situation: Situation
    wish: Wish
    seed: int

    def foreseen(self, some: Iterable[Candidate], draws: int) -> list[Forecast]:
        return [Forecast(each, self._predicted(each, draws)) for each in some]

    def _predicted(self, candidate: Candidate, draws: int) -> Prediction:
        return predict(
            self.situation.survey,
            candidate.tuning,
            self.situation.rules,
            generator=np.random.default_rng(self.seed),
            deadline=self.wish.total_time,
            draws=draws,
        )

    def chosen(self, coarse: Sequence[Forecast]) -> tuple[Choice, list[Rejection]]:
        """Choose among the leaders; where few draws left none, among all there are."""
        first = choose(coarse, self.wish)
        leaders = _leaders(first.ranking)
        choice = self._again(leaders)
        if not choice.ranking:
            return self._again(coarse), []
        beaten = [each for each in first.ranking if each not in leaders]
        rejected = [_beaten(each, choice, self.wish) for each in beaten]
        return replace(choice, rejected=(*choice.rejected, *first.rejected)), rejected

    def _again(self, some: Sequence[Forecast]) -> Choice:
        return choose(self.foreseen((each.candidate for each in some), FINE), self.wish)

    def certified(self, choice: Choice) -> tuple[Choice, Certificate | None]:
        """Put the first that is sure to complete first, among those as good as the best.

        Where none is, the ranking stays, and its first keeps its certificate.
        """
        kept: Certificate | None = None
        most = min((figure(each, self.wish.goal) for each in choice.ranking), default=0.0)
        for each in choice.ranking:
            good = figure(each, self.wish.goal) <= most * (1 + CLOSE)
            if kept is not None and not (good and each.prediction.verdict is Verdict.GO):
                continue
            certificate = self._certificate(each)
            if certificate.guaranteed and each.prediction.verdict is Verdict.GO:
                rest = tuple(other for other in choice.ranking if other is not each)
                return replace(choice, ranking=(each, *rest)), certificate
            kept = kept or certificate
        return choice, kept

    def _certificate(self, forecast: Forecast) -> Certificate:
        situation = self.situation
        return certify(
            situation.survey,
            forecast.candidate.tuning,
            self.wish,
            situation.common,
            situation.rules,
            generator=np.random.default_rng(self.seed),
            floor=situation.floor,
        )


def _leaders(ranking: Sequence[Forecast]) -> list[Forecast]:
    """Return the best of each method, and the best of all."""
    methods: dict[str, Forecast] = {}
    for each in ranking:
        methods.setdefault(each.candidate.method, each)
    return [e for i, e in enumerate(ranking) if i < LEADERS or e in methods.values()]


def _beaten(forecast: Forecast, choice: Choice, wish: Wish) -> Rejection:
    """Return why a way that keeps the wish is not among the leaders."""
    best, goal = choice.ranking[0], wish.goal
    simpler = figure(forecast, goal) <= figure(best, goal)
    reason = (
        f"{described(forecast.candidate)}: {measured(forecast, goal)} against "
        f"{measured(best, goal)} of {described(best.candidate)}{', which is simpler' * simpler}"
    )
    return Rejection(forecast.candidate.method, reason, forecast)

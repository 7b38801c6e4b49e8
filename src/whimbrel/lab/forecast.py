"""What is said of a lab move before it begins, from a survey alone; and what `auto` takes.

    survey ──► predict the one method asked for     a static method runs as it is named,
           └─► theory.planning ──► Plan             even where its verdict is refuse;
                                                    only `auto` decides, and is guarded

Every figure of a survey is taken before the move it speaks of.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil

from whimbrel.lab.guests import Guest
from whimbrel.lab.plan import Planned
from whimbrel.lab.stage import Stage
from whimbrel.lab.surveyed import survey_stage
from whimbrel.model.method import Method, Policy, Postcopy, Tuning, tuning_for
from whimbrel.model.plan import Candidate, Certificate, Forecast, Plan, Wish
from whimbrel.model.prediction import Prediction
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.model.scenario import Chosen, Run, Scenario
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.model.threads import RECEIVING, SENDING, ThreadClass
from whimbrel.model.units import format_time
from whimbrel.practice.survey import COMPRESSIONS
from whimbrel.theory.calibrate import LAST, learnt
from whimbrel.theory.explain import ladder, reasons
from whimbrel.theory.planning import plan_move, pucker_of
from whimbrel.theory.pucker import headroom_left
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import predict
from whimbrel.theory.situation import Earlier, Situation
from whimbrel.theory.widening import widened, widening_for

TOLERATED = 1.0
"""Seconds of standing still that a guest's clients are taken to tolerate: vMotion's goal is
0.5 s, and a TCP peer first retransmits after 1 s (RFC 6298)."""


@dataclass(frozen=True)
class Said:
    """What was said of one move.

    Attributes:
        tuning: What the move will be set to.
        prediction: What it will do; for `auto` its verdict is the plan's.
        pucker: How it will feel.
        surveyed: What it was made from.
        timeout: Seconds after which it is given up.
        accelerator: What runs the guest.
        chosen: What `auto` decided; None for every other method.
        policy: How far the guard may go; None for every other method.
        certificate: The ladder it may climb; None for every other method.
        fallback: What `auto` begins anew with when it had to give up; None: nothing.
        refused: Why `auto` does not begin at all; empty where it does.
    """

    tuning: Tuning
    prediction: Prediction
    pucker: float
    surveyed: Surveyed
    timeout: float
    accelerator: str = "tcg"
    chosen: Chosen | None = None
    policy: Policy | None = None
    certificate: Certificate | None = None
    fallback: Tuning | None = None
    refused: str = ""


async def foresee(
    stage: Stage,
    guest: Guest,
    planned: Planned,
    scenario: Scenario,
    generator: np.random.Generator,
    *,
    earlier: Sequence[Earlier] = (),
    past: Sequence[MoveRecord] = (),
) -> Said:
    """Survey the guest, the link and the hosts, and say what the planned move will do.

    Args:
        stage: The two ends.
        guest: The guest, running on one of them.
        planned: The move.
        scenario: What belongs to all moves.
        generator: The only source of randomness.
        earlier: What was seen of this guest before, if anything.
        past: Moves of this lab that are over; what they teach corrects the survey.

    Raises:
        HostError: The guest cannot be looked into.
        LabError: The link cannot be probed.
    """
    settings = scenario.settings
    others = COMPRESSIONS if planned.method is Method.AUTO else ()
    surveyed = await survey_stage(
        stage,
        guest,
        scenario.survey or Depth.DEFAULT,
        streams=(1, settings.channels),
        compressions=tuple(dict.fromkeys((settings.compression, *others))),
        generator=generator,
    )
    common = await stage.common()
    accelerator = guest.machine.vm.accelerator
    version = (await guest.end.hypervisor.abilities()).version
    rules = QemuRules.named(version, accelerator)
    corrections = await asyncio.to_thread(
        learnt, past, host_name(accelerator), host_name(accelerator), surveyed.survey.link, rules
    )
    situation = Situation(
        corrections.on(surveyed.survey),
        source=common,
        destination=common,
        rules=rules,
        hints=guest.machine.vm.free_page_hints,
        tolerance=TOLERATED,
        headroom=_headroom(surveyed, scenario),
        earlier=tuple(earlier),
    )
    here = [each for each in past if each.source == host_name(accelerator)][-LAST:]
    job = _Job(surveyed, situation, scenario, generator, tuple(here))
    if planned.method is Method.AUTO:
        said = await asyncio.to_thread(job.decided)
    else:
        said = await asyncio.to_thread(job.said, Candidate(planned.method, planned.tuning))
    return replace(said, accelerator=accelerator)


def host_name(accelerator: str) -> str:
    """Return what both hosts of the lab are called in a history: they are one machine.

    Figures of namespaces on one machine must never be taken for those of two machines, nor
    those of an emulated guest for those of one that runs by itself.
    """
    return f"lab ({accelerator})"


def wish_of(scenario: Scenario) -> Wish:
    """Return what a scenario wishes of `auto`."""
    auto, limit = scenario.auto, scenario.settings.downtime_limit
    return Wish(
        total_time=min(scenario.timeout, auto.deadline or scenario.timeout),
        downtime=auto.max_downtime or max(TOLERATED, 2 * limit),
        goal=auto.goal,
        postcopy=auto.postcopy,
        cpu_budget=auto.cpu_budget,
        bandwidth_limit=scenario.settings.bandwidth_limit,
    )


@dataclass(frozen=True)
class _Job:
    """One survey with all that is worked out from it."""

    surveyed: Surveyed
    situation: Situation
    scenario: Scenario
    generator: np.random.Generator
    past: tuple[MoveRecord, ...] = ()

    def said(self, candidate: Candidate) -> Said:
        """Predict one candidate as it is."""
        prediction = predict(
            self.situation.survey,
            candidate.tuning,
            self.situation.rules,
            generator=self.generator,
            deadline=self.scenario.timeout,
        )
        pucker = pucker_of(self.situation, candidate, prediction).figure
        prediction = self._told(prediction)
        return Said(candidate.tuning, prediction, pucker, self.surveyed, self.scenario.timeout)

    def decided(self) -> Said:
        """Make the plan that `auto` follows."""
        wish = wish_of(self.scenario)
        plan = plan_move(self.situation, self.scenario.settings, wish, generator=self.generator)
        if plan.chosen is not None:
            return self._begun(plan, plan.chosen)
        return self._refused(plan)

    def _told(self, prediction: Prediction) -> Prediction:
        """Return a prediction with bands as wide as those of past moves should have been."""
        return widened(prediction, widening_for(self.past, prediction.tuning))

    def _begun(self, plan: Plan, best: Forecast) -> Said:
        certificate, wish = plan.certificate, plan.wish
        return Said(
            tuning=best.candidate.tuning,
            prediction=replace(self._told(best.prediction), verdict=plan.verdict),
            pucker=plan.pucker.figure if plan.pucker else 0.0,
            surveyed=self.surveyed,
            timeout=wish.total_time,
            chosen=self._chosen(plan, best.candidate.method),
            policy=Policy(downtime=wish.downtime, postcopy=wish.postcopy),
            certificate=certificate,
            fallback=certificate.anew if certificate else None,
        )

    def _refused(self, plan: Plan) -> Said:
        """Say what would come of the likeliest way, which is not taken either."""
        likeliest = _likeliest(plan)
        if likeliest is None:
            plain = tuning_for(Method.TCP, self.scenario.settings)
            told, why = self.said(Candidate(Method.TCP, plain)), "both hosts lack what is needed"
            method = Method.TCP
        else:
            candidate = likeliest[0].candidate
            method = candidate.method
            told, why = self.said(candidate), f"{method}: {likeliest[1]}"
        return replace(
            told,
            prediction=replace(told.prediction, verdict=plan.verdict),
            timeout=plan.wish.total_time,
            chosen=self._chosen(plan, method),
            refused=" ".join((f"nothing keeps the wish ({why}).", *plan.advice)).rstrip("."),
        )

    def _chosen(self, plan: Plan, method: Method) -> Chosen:
        took = f"surveyed for {format_time(self.surveyed.duration)}"
        return Chosen(method, (*reasons(plan), took), ladder(plan.certificate), plan.advice)


def _likeliest(plan: Plan) -> tuple[Forecast, str] | None:
    """Return what most probably completes of what was ruled out, what is allowed first."""
    known = [(no.forecast, no.reason) for no in plan.rejected if no.forecast is not None]

    def chance(each: tuple[Forecast, str]) -> tuple[bool, float]:
        pulls = each[0].candidate.tuning.postcopy is not Postcopy.NEVER
        return plan.wish.postcopy or not pulls, each[0].prediction.completion_probability

    return max(known, key=chance, default=None)


def _headroom(surveyed: Surveyed, scenario: Scenario) -> float:
    free = surveyed.destination_facts.available_memory
    return headroom_left(free, scenario.guest.memory, psutil.virtual_memory().total)


def _used(by_class: Mapping[str, float], kinds: Sequence[ThreadClass]) -> float | None:
    """Return the CPU seconds of these kinds of threads; None where threads were not told apart."""
    return sum(by_class.get(kind.value, 0.0) for kind in kinds) if by_class else None


def record_of(run: Run, said: Said, began: float, ended: float) -> MoveRecord:
    """Return a lab move as a history keeps it, its survey as it was before any correction.

    Args:
        run: What became of it.
        said: What was said beforehand.
        began: When it was asked for, seconds since 1970-01-01 UTC.
        ended: When it was over, likewise.
    """
    seen = run.observed
    figures = MoveFigures(
        total_time=seen.total_time,
        preparation_time=seen.preparation_time,
        downtime=seen.downtime_observed,
        downtime_reported=seen.downtime_reported,
        downtime_expected=seen.downtime_expected,
        wire_bytes=seen.wire_bytes,
        source_cpu_seconds=_used(seen.source_cpu_by_class, SENDING),
        destination_cpu_seconds=_used(
            seen.destination_cpu_by_class, SENDING if said.tuning.channels else RECEIVING
        ),
    )
    return MoveRecord(
        began=began,
        ended=ended,
        source=host_name(said.accelerator),
        destination=host_name(said.accelerator),
        vm="redline",
        method=run.method,
        tuning=said.tuning,
        ending=run.ending,
        observed=figures,
        survey=said.surveyed.survey,
        prediction=said.prediction,
        verdict=said.prediction.verdict,
    )

"""What is said of a lab move before it begins, from a survey alone; and what `auto` takes.

survey ──► predict the one method asked for        a static method runs as it is named,
       └─► predict every candidate ──► choose      even where its verdict is refuse;
                                                   only `auto` decides, and is guarded
"""

import asyncio
import re
from dataclasses import dataclass, replace

import numpy as np
import psutil

from whimbrel.lab.guests import Guest
from whimbrel.lab.plan import Planned
from whimbrel.lab.stage import Stage
from whimbrel.lab.surveyed import survey_stage
from whimbrel.model.inventory import Capability
from whimbrel.model.method import Compression, Method, Policy, Settings, Tuning, tuning_for
from whimbrel.model.plan import Candidate, Forecast, Plan, Rejection, Wish
from whimbrel.model.prediction import Prediction
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.model.scenario import Chosen, Run, Scenario
from whimbrel.model.survey import Depth, Surveyed
from whimbrel.model.units import format_time
from whimbrel.theory.candidates import NAMED, candidates
from whimbrel.theory.choose import choose
from whimbrel.theory.pucker import Risk, exposed_seconds, headroom_left, pucker
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import predict, simulate

CHANNELS = (2, 4)
"""Numbers of channels that `auto` weighs; more do not help on few cores."""

TOLERATED = 1.0
"""Seconds of standing still that a guest's clients are taken to tolerate: vMotion's goal is
0.5 s, and a TCP peer first retransmits after 1 s (RFC 6298)."""

_WEIGHED = tuple(m for m in NAMED if m is not Method.QEMU_DEFAULT)


@dataclass(frozen=True)
class Said:
    """What was said of one move.

    Attributes:
        tuning: What the move will be set to.
        prediction: What it will do.
        pucker: How it will feel.
        chosen: What `auto` decided; None for every other method.
        policy: How far the guard may go; None for every other method.
        fallback: What `auto` begins anew with when it had to give up; None: nothing.
        surveyed: What it was made from.
    """

    tuning: Tuning
    prediction: Prediction
    pucker: float
    chosen: Chosen | None
    policy: Policy | None
    fallback: Tuning | None
    surveyed: Surveyed


async def foresee(
    stage: Stage, guest: Guest, planned: Planned, scenario: Scenario, generator: np.random.Generator
) -> Said:
    """Survey the guest, the link and the hosts, and say what the planned move will do.

    Raises:
        HostError: The guest cannot be looked into.
        LabError: The link cannot be probed.
    """
    surveyed = await survey_stage(
        stage,
        guest,
        scenario.survey or Depth.DEFAULT,
        streams=(1, scenario.settings.channels),
        compressions=(scenario.settings.compression,),
        generator=generator,
    )
    version = (await guest.end.hypervisor.abilities()).version
    rules = rules_of(version, guest.machine.vm.accelerator)
    job = _Job(surveyed, rules, scenario, generator)
    if planned.method is not Method.AUTO:
        said = await asyncio.to_thread(job.predicted, planned.tuning)
        return job.said(planned.tuning, said)
    common = await stage.common()
    plan = await asyncio.to_thread(job.plan, planned.tuning, common)
    return job.decided(plan)


def rules_of(version: str, accelerator: str) -> QemuRules:
    """Return the rules of a QEMU that prints its version as "10.0.2 (Debian …)"."""
    match = re.match(r"(\d+)\.(\d+)", version)
    numbers = (int(match[1]), int(match[2])) if match else (10, 0)
    return QemuRules.of(numbers, accelerator)


@dataclass(frozen=True)
class _Job:
    """One survey with all that is worked out from it."""

    surveyed: Surveyed
    rules: QemuRules
    scenario: Scenario
    generator: np.random.Generator

    def predicted(self, tuning: Tuning) -> Prediction:
        return predict(
            self.surveyed.survey,
            tuning,
            self.rules,
            generator=self.generator,
            deadline=self.scenario.timeout,
        )

    def plan(self, start: Tuning, common: frozenset[Capability]) -> Plan:
        """Predict every candidate, and rank them."""
        possible, rejected = weighed(self.scenario.settings, start, common)
        forecasts = [Forecast(each, self.predicted(each.tuning)) for each in possible]
        choice = choose(forecasts, self.wish)
        return Plan(self.wish, choice.ranking, (*rejected, *choice.rejected))

    @property
    def wish(self) -> Wish:
        limit = self.scenario.settings.downtime_limit
        return Wish(total_time=self.scenario.timeout, downtime=max(TOLERATED, 2 * limit))

    def said(self, tuning: Tuning, prediction: Prediction) -> Said:
        figure = self._pucker(tuning, prediction)
        return Said(tuning, prediction, figure, None, None, None, self.surveyed)

    def decided(self, plan: Plan) -> Said:
        settings = self.scenario.settings
        fallback = tuning_for(Method.POSTCOPY, settings)
        best = plan.chosen
        method = best.candidate.method if best else Method.POSTCOPY
        tuning = best.candidate.tuning if best else fallback
        prediction = best.prediction if best else self.predicted(tuning)
        chosen = Chosen(method, (*reasons(plan), f"surveyed for {self._took}"))
        said = self.said(tuning, prediction)
        policy = Policy(downtime=max(settings.downtime_limit, self.wish.downtime))
        return replace(said, chosen=chosen, policy=policy, fallback=fallback)

    @property
    def _took(self) -> str:
        return format_time(self.surveyed.duration)

    def _pucker(self, tuning: Tuning, prediction: Prediction) -> float:
        memory = psutil.virtual_memory()
        course = simulate(self.surveyed.survey, tuning, self.rules, deadline=self.scenario.timeout)
        risk = Risk(
            not_completing=1 - prediction.completion_probability,
            exposed=exposed_seconds(course),
            downtime=prediction.downtime.p90,
            tolerance=TOLERATED,
            headroom=headroom_left(
                self.surveyed.destination_facts.available_memory,
                self.scenario.guest.memory,
                memory.total,
            ),
        )
        return pucker(risk).figure


def weighed(
    settings: Settings, start: Tuning, common: frozenset[Capability]
) -> tuple[list[Candidate], list[Rejection]]:
    """Return the candidates that `auto` weighs, each tuning once, and what is ruled out.

    Args:
        settings: What a person set; a bandwidth limit and the downtime limit hold for all.
        start: The plain tuning; whether the guest gives free page hints is fixed with it.
        common: What both hosts can do.
    """
    found: dict[Tuning, Candidate] = {}
    rejected: dict[Method, Rejection] = {}
    for variant in _variants(settings, start):
        possible, refused = candidates(variant, common, common, _WEIGHED)
        for each in possible:
            found.setdefault(each.tuning, each)
        rejected |= {each.method: each for each in refused}
    return list(found.values()), list(rejected.values())


def _variants(settings: Settings, start: Tuning) -> list[Settings]:
    channels = dict.fromkeys((settings.channels, *CHANNELS))
    prepared = dict.fromkeys((settings.prepared_memory, None))
    return [
        replace(
            settings, channels=count, prepared_memory=memory, free_page_hints=start.free_page_hints
        )
        for count in channels
        for memory in prepared
    ]


def reasons(plan: Plan) -> tuple[str, ...]:
    """Say why the first of a plan was taken, and why not the best of every other method."""
    if plan.chosen is None:
        return ("nothing is sure to complete but post-copy",)
    told = [_reason(plan.ranking[0])]
    seen = {plan.ranking[0].candidate.method}
    for each in plan.ranking[1:]:
        if each.candidate.method not in seen:
            seen.add(each.candidate.method)
            told.append(_reason(each))
    told += [
        f"not {each.method}: {each.reason}" for each in plan.rejected if each.method not in seen
    ]
    return tuple(dict.fromkeys(told))


def _reason(forecast: Forecast) -> str:
    tuning, prediction = forecast.candidate.tuning, forecast.prediction
    words = [f"{forecast.candidate.method}"]
    if tuning.channels:
        words.append(f"{tuning.channels} channels")
    words += [_codec(tuning.compression)] if tuning.compression else []
    words += ["memory prepared"] if tuning.prepared_memory else []
    time = f"{format_time(forecast.wall_time)}, frozen {format_time(prediction.downtime.p50)}"
    return f"{', '.join(words)}: {time}, completes {prediction.completion_probability:.0%}"


def _codec(compression: Compression) -> str:
    return f"{compression.codec}:{compression.level}"


def record_of(run: Run, said: Said, began: float, ended: float) -> MoveRecord:
    """Return a lab move as a history keeps it.

    The hosts are named as the lab's, since figures of namespaces on one machine must never be
    taken for those of two machines.

    Args:
        run: What became of it.
        said: What was said beforehand.
        began: When it was asked for, seconds since 1970-01-01 UTC.
        ended: When it was over, likewise.
    """
    seen = run.observed
    there = {"a": "b", "b": "a"}.get(run.source, "")
    figures = MoveFigures(
        total_time=seen.total_time,
        downtime=seen.downtime_observed,
        downtime_reported=seen.downtime_reported,
        wire_bytes=seen.wire_bytes,
        remaining=run.passes[-1].remaining if run.passes else None,
        source_cpu_seconds=seen.source_cpu_seconds,
        destination_cpu_seconds=seen.destination_cpu_seconds,
    )
    return MoveRecord(
        began=began,
        ended=ended,
        source=f"lab {run.source}",
        destination=f"lab {there}",
        vm="redline",
        method=run.method,
        tuning=said.tuning,
        ending=run.ending,
        observed=figures,
        survey=said.surveyed.survey,
        prediction=said.prediction,
        verdict=said.prediction.verdict,
    )

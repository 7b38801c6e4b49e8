"""How a guest will be moved, or why not: from a plan made now, a saved one, or none at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whimbrel.cli.journey import Journey
from whimbrel.errors import NoFeasiblePlan
from whimbrel.model.check import Check, obstacles
from whimbrel.model.method import Method, Tuning, tuning_for
from whimbrel.model.plan import Certificate
from whimbrel.model.prediction import Prediction, Verdict
from whimbrel.model.storage import StoragePrediction
from whimbrel.model.survey import Surveyed
from whimbrel.model.units import format_link
from whimbrel.report.plan import Planned, SavedPlan
from whimbrel.theory.windows import least_sent, too_low


@dataclass(frozen=True)
class Decided:
    """How the guest will be moved.

    Attributes:
        method: By name.
        tuning: Every setting.
        prediction: What it will do; None: nobody looked.
        certificate: The ladder it may climb; None: there is none.
        surveyed: What that was said from.
        storage: What was said of the disks that go along; None: nothing.
    """

    method: Method
    tuning: Tuning
    prediction: Prediction | None = None
    certificate: Certificate | None = None
    surveyed: Surveyed | None = None
    storage: StoragePrediction | None = None


def decided(journey: Journey, said: Planned, *, anyway: bool) -> Decided:
    """Return how to move; raises `NoFeasiblePlan` where that must not, or should not, begin."""
    refuse_obstacles(said.vm, said.destination, said.checks)
    plan = said.plan
    if plan is None:
        return _unseen(journey)
    if plan.chosen is None or (said.verdict is Verdict.REFUSE and not anyway):
        whys = "; ".join(f"{no.method}: {no.reason}" for no in plan.rejected[:3])
        advice = " ".join(plan.advice) or "See all of it: whimbrel plan"
        raise NoFeasiblePlan(
            f"{said.vm} would not complete its move to {said.destination} within the limits. "
            f"It runs on {said.source} as before. {whys}",
            advice,
        )
    candidate = plan.chosen.candidate
    return Decided(
        candidate.method,
        plan.certificate.tuning if plan.certificate else candidate.tuning,
        plan.chosen.prediction,
        plan.certificate,
        said.surveyed,
        said.storage,
    )


def refuse_obstacles(vm: str, destination: str, checks: Sequence[Check]) -> None:
    """Raise `NoFeasiblePlan` with every check that forbids the move, and what mends each."""
    wrong = obstacles(checks)
    if wrong:
        whys = "\n".join(f"{check.name}: {check.detail}" for check in wrong)
        remedies = "\n".join(check.remedy for check in wrong)
        what = f"{vm} cannot be moved to {destination}; it goes on as before."
        raise NoFeasiblePlan(f"{what}\n{whys}", remedies)


def as_saved(
    journey: Journey, plan: SavedPlan, checks: Sequence[Check], *, anyway: bool
) -> Decided:
    """Return how to move as a saved plan says; raises `NoFeasiblePlan` where it advises not to.

    What a plan is made from may have changed: both hosts are checked anew.
    """
    places = (journey.asked.vm, journey.source.name, journey.destination.name)
    if places != (plan.vm, plan.source, plan.destination):
        raise NoFeasiblePlan(
            f"The plan moves {plan.vm} from {plan.source} to {plan.destination}; asked for is "
            f"{places[0]}, which runs on {places[1]}, to {places[2]}.",
            f"Plan again: whimbrel plan {places[0]} --to {places[2]} --save FILE",
        )
    refuse_obstacles(plan.vm, plan.destination, checks)
    if plan.verdict is Verdict.REFUSE and not anyway:
        raise NoFeasiblePlan(
            "The plan advises against the move.", "Plan again; or begin all the same: --anyway."
        )
    tuning = replace(plan.tuning, encrypted=journey.address.encrypted)
    said = (plan.prediction, plan.certificate)
    return Decided(plan.method, tuning, *said, storage=plan.storage)


def _unseen(journey: Journey) -> Decided:
    """Return a sound way for a guest that nobody looked at, or the one that was named.

    Raises:
        NoFeasiblePlan: The one that was named cannot keep to the limit.
    """
    named, limit = journey.asked.method, journey.settings.bandwidth_limit
    hints = journey.machine.vm.free_page_hints
    settings = replace(journey.settings, free_page_hints=hints, prepared_memory=None)
    method = Method.MULTICHANNEL if named is Method.AUTO else named
    sound = tuning_for(method, settings)
    if limit is None or not too_low(limit, sound.channels):
        return Decided(method, sound)
    if named is not Method.AUTO:
        least = format_link(least_sent(sound.channels))
        raise NoFeasiblePlan(
            f"{sound.channels} channels hold no limit below {least}; {journey.asked.vm} was not "
            f"moved and runs on {journey.source.name} as before.",
            f"Move it as one stream: --method {Method.TCP}; or allow it {least}.",
        )
    return Decided(Method.TCP, tuning_for(Method.TCP, settings))

"""A plan: what is wished for, what was chosen and what was not, what it risks, what bounds it.

    Wish ──► Candidate ──► Forecast ──► Plan ─┬─ ranking, rejected   what, and why nothing else
                                              ├─ certificate         how it is sure to complete
                                              └─ pucker              how it will feel, no more

Values only: `theory` fills them in, practice carries them out.
"""

from dataclasses import dataclass
from enum import StrEnum

from whimbrel.model.method import Method, Tuning
from whimbrel.model.migration import Action
from whimbrel.model.prediction import Prediction, Verdict


class Goal(StrEnum):
    """What shall be small."""

    FASTEST = "fastest"
    LEAST_DOWNTIME = "least-downtime"
    LEAST_CPU = "least-cpu"
    LEAST_TRAFFIC = "least-traffic"


@dataclass(frozen=True)
class Wish:
    """What a person wants of a move, and how far it may go to complete.

    Attributes:
        total_time: Seconds, preparation included, that nine of ten draws must keep.
        downtime: Seconds of standing still that nine of ten draws must keep; the downtime
            limit is never raised beyond it.
        goal: What to minimise among those that keep them.
        postcopy: Whether the guest may depend on two hosts and the link for a while: a
            failure then loses it (docs/devel/migration/postcopy.rst).
        cpu_budget: Cores that the move may keep busy on each host in the middle draw, so that
            the other VMs there keep theirs; half of it at either end where both hosts are one
            machine; None: as many as there are.
        bandwidth_limit: Bytes per second that the move may send; None: no limit. QEMU lifts
            it when it stops the guest.
    """

    total_time: float
    downtime: float
    goal: Goal = Goal.FASTEST
    postcopy: bool = True
    cpu_budget: float | None = None
    bandwidth_limit: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A way to move a guest that both hosts can carry out."""

    method: Method
    tuning: Tuning


@dataclass(frozen=True)
class Forecast:
    """A candidate with what it will do."""

    candidate: Candidate
    prediction: Prediction

    @property
    def wall_time(self) -> float:
        """Seconds from the request to the end in the middle draw, preparation included."""
        return self.prediction.preparation_time.p50 + self.prediction.total_time.p50


@dataclass(frozen=True)
class Rejection:
    """A way that was ruled out.

    Attributes:
        method: What it was.
        reason: Why, in one sentence without a full stop.
        forecast: What it would have done; None where it was ruled out before that.
    """

    method: Method
    reason: str
    forecast: Forecast | None = None


class Step(StrEnum):
    """What a rung of the fallback ladder consists of, from the gentlest to the surest."""

    PRECOPY = "pre-copy"
    RAISED_DOWNTIME_LIMIT = "raised downtime limit"
    THROTTLING = "throttling"
    POSTCOPY = "post-copy"
    ANEW = "post-copy, begun anew"


@dataclass(frozen=True)
class Rung:
    """One way to complete, to be fallen back on when those before it did not.

    Every time counts from the request to move, the preparation of memory included.

    Attributes:
        step: What it is.
        tuning: The settings in force on it.
        action: What is done on the way to climb to it; None where nothing is to be done.
        latest: Seconds by which the control must have climbed to it for the bounds to hold.
        probability: Chance that it completes within the wish, 0 to 1; 1 where guaranteed.
        total_time: Bound in seconds; infinite where there is none.
        downtime: Bound in seconds for a move that completes on it; infinite where there is
            none.
        guaranteed: Whether both bounds are certain under the certificate's assumptions, and
            keep the wish. If not, they are 90th percentiles or break the wish.
        reason: Why it is guaranteed or not, in one sentence.
    """

    step: Step
    tuning: Tuning
    action: Action | None
    latest: float
    probability: float
    total_time: float
    downtime: float
    guaranteed: bool
    reason: str


@dataclass(frozen=True)
class Certificate:
    """The completion certificate: the fallback ladder, and what each rung guarantees.

    Attributes:
        rungs: In the order in which they are climbed, at least one.
        assumptions: What every guarantee rests on, one sentence each.
    """

    rungs: tuple[Rung, ...]
    assumptions: tuple[str, ...]

    @property
    def tuning(self) -> Tuning:
        """What to begin the move with, so that every rung can be climbed on the way.

        Hypervisors fix capabilities at the start, hence it is set up for the last rung that
        can be climbed without calling the move back.
        """
        return [rung for rung in self.rungs if rung.step is not Step.ANEW][-1].tuning

    @property
    def anew(self) -> Tuning | None:
        """What to begin a second attempt with, should the first be called back; None: nothing."""
        return next((rung.tuning for rung in self.rungs if rung.step is Step.ANEW), None)

    @property
    def guarantee(self) -> Rung | None:
        """The first rung that is sure to complete; None where there is none."""
        return next((rung for rung in self.rungs if rung.guaranteed), None)

    @property
    def guaranteed(self) -> bool:
        """Whether the move is sure to complete within the wished total time.

        Its downtime keeps the wish for certain if it comes to the guaranteed rung; if it
        completes on an earlier one, only as probably as that one says.
        """
        return self.guarantee is not None


@dataclass(frozen=True)
class PuckerTerm:
    """One cause of the Pucker Factor.

    Attributes:
        name: Of the cause.
        value: Its share of the figure, 0 or more.
        sentence: What it says, with the facts it was made of.
    """

    name: str
    value: float
    sentence: str


@dataclass(frozen=True)
class Pucker:
    """The Pucker Factor: one figure of risk, 0 to 10 and beyond (docs/pucker.md).

    It is for people. Nothing in whimbrel decides by it.

    Attributes:
        terms: What it is the sum of.
    """

    terms: tuple[PuckerTerm, ...]

    @property
    def figure(self) -> float:
        """The sum of the terms."""
        return sum((term.value for term in self.terms), 0.0)


@dataclass(frozen=True)
class Plan:
    """What to do about one guest, with everything that speaks for and against it.

    Attributes:
        wish: What was asked for.
        ranking: What keeps the wish, best first; empty where nothing does.
        rejected: The rest, with reasons.
        certificate: How the chosen candidate is sure to complete; None where none was made.
        pucker: Its risk; None where it was not worked out. It bears on nothing else here.
        advice: What would change the verdict, or allow something better; whole sentences.
    """

    wish: Wish
    ranking: tuple[Forecast, ...]
    rejected: tuple[Rejection, ...]
    certificate: Certificate | None = None
    pucker: Pucker | None = None
    advice: tuple[str, ...] = ()

    @property
    def chosen(self) -> Forecast | None:
        """What to do; None where nothing keeps the wish."""
        return self.ranking[0] if self.ranking else None

    @property
    def completion_probability(self) -> float:
        """Chance that the chosen candidate completes without climbing, 0 to 1."""
        return self.chosen.prediction.completion_probability if self.chosen else 0.0

    @property
    def verdict(self) -> Verdict:
        """Whether to begin: what the prediction advises, and never go without a guarantee."""
        if self.chosen is None:
            return Verdict.REFUSE
        advised = self.chosen.prediction.verdict
        sure = self.certificate is not None and self.certificate.guaranteed
        return Verdict.BORDERLINE if advised is Verdict.GO and not sure else advised

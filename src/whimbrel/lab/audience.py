"""Who looks on at the lab: a terminal, a test, or nobody."""

from typing import Protocol

from whimbrel.lab.plan import Planned
from whimbrel.model.migration import Decision, Event
from whimbrel.model.prediction import Prediction
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Run, Scenario


class Audience(Protocol):
    """Somebody who is told what the lab does; nothing here may take long."""

    def says(self, text: str) -> None:
        """Tell something that was done or decided, one sentence."""

    def works(self, what: str, share: float) -> None:
        """Tell how far some work other than a move has come, 0 to 1."""

    def scenario_begins(self, scenario: Scenario, moves: int) -> None:
        """A scenario with so many moves begins."""

    def run_begins(self, planned: Planned) -> None:
        """A move begins."""

    def foreseen(self, prediction: Prediction) -> None:
        """What was said of the move that comes next; not told where nothing was said."""

    def happened(self, event: Event) -> None:
        """Something happened on the move; `event.at` counts from its request."""

    def decided(self, decision: Decision) -> None:
        """Something was decided on the move."""

    def run_ended(self, run: Run) -> None:
        """A move, or the reason why there was none."""

    def moved(self, record: MoveRecord) -> None:
        """A move that was foreseen is over; for whoever keeps a history."""

    def measured(self, so_far: LabResult) -> None:
        """Everything measured until now, told after each run.

        Whoever keeps the last one loses nothing when the lab does not reach its end.
        """


class Nobody:
    """An audience that is not there."""

    def says(self, text: str) -> None:
        """See `Audience`."""

    def works(self, what: str, share: float) -> None:
        """See `Audience`."""

    def scenario_begins(self, scenario: Scenario, moves: int) -> None:
        """See `Audience`."""

    def run_begins(self, planned: Planned) -> None:
        """See `Audience`."""

    def foreseen(self, prediction: Prediction) -> None:
        """See `Audience`."""

    def happened(self, event: Event) -> None:
        """See `Audience`."""

    def decided(self, decision: Decision) -> None:
        """See `Audience`."""

    def run_ended(self, run: Run) -> None:
        """See `Audience`."""

    def moved(self, record: MoveRecord) -> None:
        """See `Audience`."""

    def measured(self, so_far: LabResult) -> None:
        """See `Audience`."""


class Relay:
    """An audience that hands everything on to another; for those who only want some of it."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def says(self, text: str) -> None:
        """See `Audience`."""
        self._audience.says(text)

    def works(self, what: str, share: float) -> None:
        """See `Audience`."""
        self._audience.works(what, share)

    def scenario_begins(self, scenario: Scenario, moves: int) -> None:
        """See `Audience`."""
        self._audience.scenario_begins(scenario, moves)

    def run_begins(self, planned: Planned) -> None:
        """See `Audience`."""
        self._audience.run_begins(planned)

    def foreseen(self, prediction: Prediction) -> None:
        """See `Audience`."""
        self._audience.foreseen(prediction)

    def happened(self, event: Event) -> None:
        """See `Audience`."""
        self._audience.happened(event)

    def decided(self, decision: Decision) -> None:
        """See `Audience`."""
        self._audience.decided(decision)

    def run_ended(self, run: Run) -> None:
        """See `Audience`."""
        self._audience.run_ended(run)

    def moved(self, record: MoveRecord) -> None:
        """See `Audience`."""
        self._audience.moved(record)

    def measured(self, so_far: LabResult) -> None:
        """See `Audience`."""
        self._audience.measured(so_far)

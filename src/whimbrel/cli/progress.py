"""The lab on a terminal: one live line for the move that runs, one line for each that ended."""

from rich.console import Console

from whimbrel.cli.live import LiveLine
from whimbrel.errors import WhimbrelError
from whimbrel.lab.forecast import host_name
from whimbrel.lab.plan import Planned
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Prediction
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Run, Scenario
from whimbrel.model.units import format_size, format_time
from whimbrel.report.words import describe_link
from whimbrel.store import Store
from whimbrel.theory.calibrate import LAST


class Terminal(LiveLine):
    """An `Audience` that draws on standard error, so that tables can be piped.

    Without a terminal it prints a line per event that matters and no live line.

    Attributes:
        so_far: All that was measured until now; None before the first run is over.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.so_far: LabResult | None = None
        self._named = ""

    def says(self, text: str) -> None:
        """See `Audience`."""
        self.say(text)

    def scenario_begins(self, scenario: Scenario, moves: int) -> None:
        """See `Audience`."""
        link = describe_link(scenario.link)
        memory, fill = scenario.guest.memory, scenario.guest.redline.fill
        text = f"{scenario.name}: {moves} moves of a {format_size(memory)} VM, "
        text += f"{format_size(fill)} of it redlined, link {link}"
        self.deadline = scenario.timeout
        self.say(text, "bold")

    def run_begins(self, planned: Planned) -> None:
        """See `Audience`."""
        self._named = f"[{planned.number}/{planned.of}] {planned.name}"
        self.begins(self._named, planned.tuning)

    def foreseen(self, prediction: Prediction) -> None:
        """See `Audience`."""
        self.begins(self._named, prediction.tuning, prediction)

    def run_ended(self, run: Run) -> None:
        """See `Audience`."""
        self.hide()
        style = "" if run.ending is Ending.COMPLETED else "yellow"
        if run.ending is Ending.NOT_AVAILABLE:
            style = "dim"
        self.say(f"  {_sentence(run)}", style)

    def measured(self, so_far: LabResult) -> None:
        """See `Audience`."""
        self.so_far = so_far

    def past(self) -> tuple[MoveRecord, ...]:
        """Return the last moves of this machine's lab, the oldest first, for forecasts."""
        try:
            with Store.open(create=False) as store:
                names = [host_name(each) for each in ("tcg", "kvm")]
                found = [each for name in names for each in store.moves(LAST, host=name)]
        except WhimbrelError as error:
            self.say(f"the history cannot be read: {error.what}", "yellow")
            return ()
        return tuple(sorted(found, key=lambda each: each.began))

    def moved(self, record: MoveRecord) -> None:
        """See `Audience`; a history that cannot be kept spoils no move."""
        try:
            with Store.open() as store:
                store.add(record)
        except WhimbrelError as error:
            self.say(f"not in the history: {error.what}", "yellow")


def _sentence(run: Run) -> str:
    if run.ending is not Ending.COMPLETED:
        ending = run.ending.value.replace("-", " ")
        return f"{run.preset or run.method}: {ending}: {run.reason}"
    figures = run.observed
    parts = [f"{run.preset or run.method}: {_time(figures.wall_time)}"]
    parts.append(f"frozen {_time(figures.downtime_observed)}")
    if figures.wire_bytes is not None:
        parts.append(f"{format_size(figures.wire_bytes)} on the wire")
    if run.guest is not None:
        parts.append(f"{run.guest.pages_checked} pages intact")
    return ", ".join(parts)


def _time(seconds: float | None) -> str:
    return "for an unknown time" if seconds is None else format_time(seconds)

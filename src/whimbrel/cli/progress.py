"""The lab on a terminal: one live line for the move that runs, one line for each that ended."""

import time
from math import inf
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from whimbrel.errors import WhimbrelError
from whimbrel.lab.forecast import host_name
from whimbrel.lab.plan import Planned
from whimbrel.model.method import Tuning
from whimbrel.model.migration import (
    ENDS,
    Decision,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
)
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Interval, Prediction
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Run, Scenario
from whimbrel.model.units import format_link, format_rate, format_size, format_time
from whimbrel.store import Store
from whimbrel.theory.calibrate import LAST
from whimbrel.theory.outlook import Lookout, Outlook

REFRESHES = 4
"""Per second; drawing more often costs CPU that the move could use, and nobody reads faster."""

_TENTHS, _MINUTES = 10.0, 120.0
"""Seconds below which tenths are shown, and from which minutes are."""


class Terminal:
    """An `Audience` that draws on standard error, so that tables can be piped.

    Without a terminal it prints a line per event that matters and no live line.

    Attributes:
        so_far: All that was measured until now; None before the first run is over.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=console,
            refresh_per_second=REFRESHES,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._title = ""
        self._began = 0.0
        self._pass = 0
        self._phase = Phase.IDLE
        self._deadline = inf
        self._lookout = Lookout(Tuning())
        self.so_far: LabResult | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task("", total=1.0, figures="", visible=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def says(self, text: str) -> None:
        """See `Audience`."""
        self._say(text, "dim")

    def works(self, what: str, share: float) -> None:
        """See `Audience`."""
        self._show(share, what)

    def scenario_begins(self, scenario: Scenario, moves: int) -> None:
        """See `Audience`."""
        rate = "unlimited" if scenario.link.rate is None else format_link(scenario.link.rate)
        memory, fill = scenario.guest.memory, scenario.guest.redline.fill
        text = f"{scenario.name}: {moves} moves of a {format_size(memory)} VM, "
        text += f"{format_size(fill)} of it redlined, over a link of {rate}"
        self._deadline = scenario.timeout
        self._say(text, "bold")

    def run_begins(self, planned: Planned) -> None:
        """See `Audience`."""
        self._title = f"[{planned.number}/{planned.of}] {planned.method}"
        self._began = time.monotonic()
        self._pass = 0
        self._phase = Phase.IDLE
        self._lookout = Lookout(planned.tuning, None, self._deadline)
        self._show(0.0, "")

    def foreseen(self, prediction: Prediction) -> None:
        """See `Audience`."""
        self._lookout = Lookout(prediction.tuning, prediction, self._deadline)
        self._show(0.0, _expected(self._lookout.before()))

    def happened(self, event: Event) -> None:
        """See `Audience`."""
        if self._phase in ENDS:  # it was called back, and begins anew in another way
            self._lookout = Lookout(Tuning(), None, self._deadline)
            self._phase = Phase.IDLE
        outlook = self._lookout.hear(event)
        match event:
            case Pass():
                self._pass = event.number
            case PhaseChange():
                self._phase = event.phase
            case Observation():
                figures = [_expected(outlook), _figures(event, self._pass, self._phase)]
                self._show(_share(event, outlook), "  ".join(f for f in figures if f))

    def decided(self, decision: Decision) -> None:
        """See `Audience`."""
        self._lookout.decided(decision.action)
        name = type(decision.action).__name__
        words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
        self._say(f"    {format_time(decision.at)}: {words}, since {decision.reason}", "cyan")

    def run_ended(self, run: Run) -> None:
        """See `Audience`."""
        self._hide()
        style = "" if run.ending is Ending.COMPLETED else "yellow"
        if run.ending is Ending.NOT_AVAILABLE:
            style = "dim"
        self._say(f"  {_sentence(run)}", style)

    def measured(self, so_far: LabResult) -> None:
        """See `Audience`."""
        self.so_far = so_far

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def past(self) -> tuple[MoveRecord, ...]:
        """Return the last moves of this machine's lab, the oldest first, for forecasts."""
        try:
            with Store.open(create=False) as store:
                names = [host_name(each) for each in ("tcg", "kvm")]
                found = [each for name in names for each in store.moves(LAST, host=name)]
        except WhimbrelError as error:
            self._say(f"the history cannot be read: {error.what}", "yellow")
            return ()
        return tuple(sorted(found, key=lambda each: each.began))

    def moved(self, record: MoveRecord) -> None:
        """See `Audience`; a history that cannot be kept spoils no move."""
        try:
            with Store.open() as store:
                store.add(record)
        except WhimbrelError as error:
            self._say(f"not in the history: {error.what}", "yellow")

    def _show(self, share: float, figures: str) -> None:
        if self._task is not None:
            self._progress.update(
                self._task,
                description=self._title,
                completed=share,
                figures=figures,
                visible=True,
            )

    def _hide(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, visible=False)


def _share(seen: Observation, outlook: Outlook) -> float:
    """Return how much of the time is over; where that is not known, how much of memory is sent."""
    if outlook.left is not None:
        return seen.at / max(seen.at + outlook.left.p50, 1e-3)
    return 1 - seen.remaining / seen.total if seen.total else 0.0


def _expected(outlook: Outlook) -> str:
    """Say what is to be expected: "38 s left, 30-45 s; will converge: 97 %"."""
    words = [] if outlook.left is None else [_left(outlook.left)]
    if outlook.completion_probability < 1:
        words.append(f"will converge: {outlook.completion_probability * 100:.0f} %")
    return "; ".join(words)


def _left(left: Interval) -> str:
    if left.p90 >= _MINUTES:
        return f"{format_time(left.p50)} left, {format_time(left.p10)} to {format_time(left.p90)}"
    return f"{_seconds(left.p50)} s left, {_seconds(left.p10)}-{_seconds(left.p90)} s"


def _seconds(time_left: float) -> str:
    return f"{time_left:.1f}" if time_left < _TENTHS else f"{time_left:.0f}"


def _figures(seen: Observation, number: int, phase: Phase) -> str:
    parts = [
        phase.value if phase is not Phase.PRECOPY else f"pass {max(number, seen.passes)}",
        f"{format_size(seen.transferred)} sent",
        f"{format_size(seen.remaining)} left",
        format_link(seen.bandwidth),
        f"dirtied {format_rate(seen.dirty_rate)}",
        f"{seen.at:.1f} s",
    ]
    if seen.throttle:
        parts.insert(1, f"throttled {seen.throttle:.0%}")
    return "  ".join(parts)


def _sentence(run: Run) -> str:
    if run.ending is not Ending.COMPLETED:
        ending = run.ending.value.replace("-", " ")
        return f"{run.method}: {ending}: {run.reason}"
    figures = run.observed
    parts = [f"{run.method}: {_time(figures.wall_time)}"]
    parts.append(f"frozen {_time(figures.downtime_observed)}")
    if figures.wire_bytes is not None:
        parts.append(f"{format_size(figures.wire_bytes)} on the wire")
    if run.guest is not None:
        parts.append(f"{run.guest.pages_checked} pages intact")
    return ", ".join(parts)


def _time(seconds: float | None) -> str:
    return "for an unknown time" if seconds is None else format_time(seconds)

"""One live line for the move that runs: how far it is, and what is still to be expected."""

from math import inf
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from whimbrel.model.method import Tuning
from whimbrel.model.migration import ENDS, Decision, Event, Observation, Pass, Phase, PhaseChange
from whimbrel.model.prediction import Interval, Prediction
from whimbrel.model.units import format_link, format_rate, format_size, format_time
from whimbrel.theory.outlook import Lookout, Outlook

REFRESHES = 4
"""Per second; drawing more often costs CPU that the move could use, and nobody reads faster."""

_TENTHS, _MINUTES = 10.0, 120.0
"""Seconds below which tenths are shown, and from which minutes are."""


class LiveLine:
    """Draws on a terminal; elsewhere it prints a line per decision and no live one.

    Attributes:
        console: Where it draws.
        deadline: Seconds a move is given.
    """

    def __init__(self, console: Console, deadline: float = inf) -> None:
        self.console = console
        self.deadline = deadline
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
        self._pass = 0
        self._phase = Phase.IDLE
        self._lookout = Lookout(Tuning())

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

    def begins(self, title: str, tuning: Tuning, prediction: Prediction | None = None) -> None:
        """Show the beginning of a move, and what is foreseen of it."""
        self._title = title
        self._pass = 0
        self._phase = Phase.IDLE
        self._lookout = Lookout(tuning, prediction, self.deadline)
        self.show(0.0, "" if prediction is None else _expected(self._lookout.before()))

    def happened(self, event: Event) -> None:
        """Show what happened."""
        if self._phase in ENDS:  # it was called back, and begins anew in another way
            self._lookout = Lookout(Tuning(), None, self.deadline)
            self._phase = Phase.IDLE
        outlook = self._lookout.hear(event)
        match event:
            case Pass():
                self._pass = event.number
            case PhaseChange():
                self._phase = event.phase
            case Observation() if event.total:  # while disks are copied, nothing is said of it
                figures = [_expected(outlook), _figures(event, self._pass, self._phase)]
                self.show(_share(event, outlook), "  ".join(f for f in figures if f))

    def decided(self, decision: Decision) -> None:
        """Print what was decided, and why."""
        self._lookout.decided(decision.action)
        name = type(decision.action).__name__
        words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
        self.say(f"    {format_time(decision.at)}: {words}, since {decision.reason}", "cyan")

    def say(self, text: str, style: str = "dim") -> None:
        """Print a line above the live one."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def works(self, what: str, share: float = 0.0) -> None:
        """Show what is being done, 0 to 1 of it."""
        self.show(share, what)

    def show(self, share: float, figures: str) -> None:
        """Draw the line."""
        if self._task is not None:
            self._progress.update(
                self._task,
                description=self._title,
                completed=share,
                figures=figures,
                visible=True,
            )

    def hide(self) -> None:
        """Draw no line until the next `show`."""
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

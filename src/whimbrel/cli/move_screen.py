"""A real move on a terminal: the live line, what was decided, and what it came to."""

import time

from rich.console import Console
from rich.text import Text

from whimbrel.cli.history import grid
from whimbrel.cli.live import LiveLine
from whimbrel.errors import WhimbrelError
from whimbrel.model.check import obstacles, warnings
from whimbrel.model.migration import Decision
from whimbrel.model.outcome import Ending
from whimbrel.model.storage import StorageProgress
from whimbrel.model.units import format_link, format_size, format_time
from whimbrel.ports import Machine
from whimbrel.report.move import COMPARED_COLUMNS, MoveSaid, compared_rows, disk_lines


class MoveScreen(LiveLine):
    """The `Watcher` of a move, and the `Onlooker` of its disks; draws on standard error."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._began = time.monotonic()

    def prepared(self, machine: Machine) -> None:
        """See `Watcher`."""
        self.works(f"{machine.vm.name} is awaited at the destination")

    def arrived(self, machine: Machine) -> None:
        """See `Watcher`."""
        self.say(f"  {machine.vm.name} runs at the destination")

    def begins_anew(self, reason: str) -> None:
        """Tell why a second attempt begins."""
        self.say(f"  begins anew, by the last rung of its ladder: {reason}", "cyan")

    def copying(self, progress: StorageProgress) -> None:
        """See `Onlooker`."""
        share = progress.copied / progress.total if progress.total else 0.0
        left = "" if progress.eta is None else f"  {format_time(progress.eta)} left"
        done, total = format_size(progress.copied), format_size(progress.total)
        rate = format_link(progress.rate)
        self.works(f"disks: {done} of {total}  {rate}{left}", min(share, 1.0))

    def writes_wait(self, disk: str, reason: str) -> None:
        """See `Onlooker`."""
        self.say(f"    writes to {disk} wait for their copies from now on: {reason}", "cyan")

    def limited(self, decision: Decision) -> None:
        """Tell a new bandwidth limit that leaves others their share; the line shows the rest."""
        self.decided(decision)

    def lost(self, error: WhimbrelError) -> None:
        """Tell that something beside the move has ended."""
        self.say(f"    {error.what}", "yellow")


def show_move(console: Console, said: MoveSaid) -> None:
    """Print what a move came to, predicted beside observed."""
    console.print(Text(sentence(said), style=_style(said)))
    if said.outcome.ending is Ending.COMPLETED:
        table = grid(COMPARED_COLUMNS, left=1)
        for row in compared_rows(said):
            table.add_row(*map(Text, row))
        console.print(table)
    for line in disk_lines(said.copied) if said.copied else ():
        console.print(Text(f"  {line}"))
    for check in (*obstacles(said.checks), *warnings(said.checks)):
        console.print(Text(f"  {check.result}: {check.detail} → {check.remedy}", style="yellow"))
    for line in said.missed:
        console.print(Text(f"  {line}", style="yellow"))
    if said.outcome.ending is Ending.COMPLETED and said.outcome.reason:
        console.print(Text(f"  {said.outcome.reason}", style="dim"))


def sentence(said: MoveSaid) -> str:
    """Say in one sentence how the move ended and where the guest runs."""
    outcome = said.outcome
    if outcome.ending is Ending.COMPLETED:
        wall = outcome.wall_time
        took = "" if wall is None else f" It took {format_time(wall)}."
        return f"{said.vm} runs on {said.destination}.{took}"
    ending = {
        Ending.TIMEOUT: "ran out of time",
        Ending.CANCELLED: "was called back",
    }.get(outcome.ending, "failed")
    unknown = "It runs nowhere." if said.over else "Where it runs is not known."
    where = unknown if outcome.runs_on is None else f"It runs on {said.source}."
    why = f": {outcome.reason.rstrip('.')}" if outcome.reason else ""
    return f"The move of {said.vm} to {said.destination} {ending}{why}. {where}"


def _style(said: MoveSaid) -> str:
    if said.outcome.ending is Ending.COMPLETED:
        return "bold green"
    return "bold red" if said.outcome.runs_on is None else "bold yellow"

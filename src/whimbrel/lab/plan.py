"""Which moves a scenario means, and in which order they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whimbrel.model.method import Method, Tuning, tuning_for
from whimbrel.practice.move import move

if TYPE_CHECKING:
    from whimbrel.lab.stage import End, Stage
    from whimbrel.model.scenario import Scenario
    from whimbrel.practice.move import Moved, Request, Watcher

Carry = Callable[["Request", "Watcher", "Stage", "End"], Awaitable["Moved"]]
"""Carries out a move, as `practice.move.move` does; is told the stage and the guest's end of it."""


async def carried(request: Request, watcher: Watcher, _stage: Stage, _end: End) -> Moved:
    """Let whimbrel carry a move out."""
    return await move(request, watcher)


@dataclass(frozen=True)
class Planned:
    """One move to make.

    Attributes:
        method: By what.
        tuning: Every setting of it.
        repeat: 1 for the first.
        number: Its place in the order, from 1.
        of: How many there are.
        preset: Whose settings and conduct it stands for (docs/peers.md); empty: whimbrel's own.
        carry: Who carries it out.
        hindrance: Why it cannot be made here, known beforehand; empty: it can be tried.
    """

    method: Method
    tuning: Tuning
    repeat: int
    number: int
    of: int
    preset: str = ""
    carry: Carry = carried
    hindrance: str = ""

    @property
    def name(self) -> str:
        """What people call it."""
        return self.preset or self.method.value


Planning = Callable[["Scenario"], tuple[Planned, ...]]
"""Says which moves a scenario means, in which order."""


def plan(scenario: Scenario) -> tuple[Planned, ...]:
    """Return the scenario's moves in the order they run.

    The guest travels to and fro between runs, so that it boots and fills its memory once. Free
    page hints belong to a guest for life (a virtio feature bit), hence moves without them come
    first and those with them follow, in a second guest. Repeats go round and round all methods,
    so that a machine that slows down for a while slows all of them.
    """
    settings = scenario.settings
    tunings = [(method, tuning_for(method, settings)) for method in scenario.methods]
    moves = [
        (method, tuning, repeat)
        for hints in (False, True)
        for repeat in range(1, scenario.repeats + 1)
        for method, tuning in tunings
        if tuning.free_page_hints is hints
    ]
    return tuple(
        Planned(method, tuning, repeat, number, len(moves))
        for number, (method, tuning, repeat) in enumerate(moves, start=1)
    )

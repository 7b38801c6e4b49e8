"""Which moves a scenario means, and in which order they run."""

from dataclasses import dataclass

from whimbrel.model.method import Method, Tuning, tuning_for
from whimbrel.model.scenario import Scenario


@dataclass(frozen=True)
class Planned:
    """One move to make.

    Attributes:
        method: By what.
        tuning: Every setting of it.
        repeat: 1 for the first.
        number: Its place in the order, from 1.
        of: How many there are.
    """

    method: Method
    tuning: Tuning
    repeat: int
    number: int
    of: int


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

"""Which tunings two hosts can carry out, and why not the others."""

from collections.abc import Iterable
from dataclasses import replace

from whimbrel.model.inventory import Capability
from whimbrel.model.method import Method, Settings, Tuning, tuning_for
from whimbrel.model.plan import Candidate, Rejection

NAMED = tuple(method for method in Method if method is not Method.AUTO)
"""The methods that say what they do."""


def candidates(
    settings: Settings,
    source: frozenset[Capability],
    destination: frozenset[Capability],
    methods: Iterable[Method] = NAMED,
) -> tuple[tuple[Candidate, ...], tuple[Rejection, ...]]:
    """Return what can be tried, and what cannot.

    What merely helps (prepared memory, free page hints) is left out where a host lacks it;
    what a method consists of rules it out.
    """
    possible: list[Candidate] = []
    rejected: list[Rejection] = []
    for method in methods:
        tuning = _within(tuning_for(method, settings), source & destination)
        lacks = _lacks("source", tuning.needs - source) + _lacks(
            "destination", tuning.needs - destination
        )
        if lacks:
            rejected.append(Rejection(method, "; ".join(lacks)))
        else:
            possible.append(Candidate(method, tuning))
    return tuple(possible), tuple(rejected)


def _within(tuning: Tuning, common: frozenset[Capability]) -> Tuning:
    if Capability.PREPARED_MEMORY not in common:
        tuning = replace(tuning, prepared_memory=None)
    if Capability.FREE_PAGE_HINTS not in common:
        tuning = replace(tuning, free_page_hints=False)
    return tuning


def _lacks(side: str, missing: frozenset[Capability]) -> list[str]:
    return [f"the {side} lacks {', '.join(sorted(missing))}"] if missing else []

"""From what libvirt says of the source to a move's phases, with those it leaves out."""

from collections import deque

from whimbrel.hypervisors.libvirt.states import State
from whimbrel.model.migration import TRANSITIONS, Phase

TOLD = {
    "handed-over": Phase.SWITCHOVER,
    "postcopy": Phase.POSTCOPY,
    "lost-postcopy": Phase.POSTCOPY_PAUSED,
}
"""By what libvirt tells as it happens."""

STATES = {
    State.HANDED_OVER: Phase.SWITCHOVER,
    State.POSTCOPY: Phase.POSTCOPY,
    State.LOST_POSTCOPY: Phase.POSTCOPY_PAUSED,
}
"""By what it answers when asked."""


_ORDER = list(Phase)
"""A move goes on rather than being called back."""


def way_between(first: Phase, last: Phase) -> list[Phase]:
    """Return the shortest way that `TRANSITIONS` allow, without its start; empty: there is none."""
    ways = deque([[first]])
    known = {first}
    while ways:
        way = ways.popleft()
        if way[-1] is last:
            return way[1:]
        for phase in sorted(TRANSITIONS[way[-1]] - known, key=_ORDER.index):
            known.add(phase)
            ways.append([*way, phase])
    return []

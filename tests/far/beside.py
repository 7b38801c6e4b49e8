"""Moves beside others on a shaped link, by the real command: what each got, second by second."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from far.person import Person
from flow import SECOND, Counted, flow, received
from whimbrel.errors import ExitCode
from whimbrel.model.journal import Step, event_of
from whimbrel.model.migration import Event, Observation
from whimbrel.practice.history import histories
from whimbrel.theory.sharing import HEADERS

LINK = 25e6
"""Bytes per second of the link that `person` is to be given."""

FULL = 0.95
"""Share of the link above which it is full: shaped, it carries 96 % of its rate at most."""

ALONE = ("--method", "tcp", "--no-postcopy", "--json")
"""What every move here is asked for."""

Events = tuple[tuple[float, Event], ...]


@dataclass(frozen=True)
class Beside:
    """A move that ran beside others.

    Attributes:
        said: Its document.
        begin: When its memory was about to be sent, on the wall clock.
        end: When its guest was about to run at the destination.
        events: What its journal tells of it, each with when it was written down.
        flow: What a TCP flow got beside it.
        both: What came in at the destination altogether.
    """

    said: Any
    begin: float
    end: float
    events: Events
    flow: Counted
    both: Counted

    def most(self) -> float:
        """Return the share of the link that the move took in its best second, as it counts."""
        seen = [event for _, event in self.events if isinstance(event, Observation)]
        found = [0.0]
        for first in seen:
            last = next((each for each in seen if each.at >= first.at + SECOND), None)
            if last is not None:
                found.append((last.transferred - first.transferred) / (last.at - first.at))
        return max(found) * HEADERS / LINK

    def share(self) -> float:
        """Return the flow's share of the link in its worst second."""
        return self.flow.least(self.begin, self.end) * HEADERS / LINK

    def share_when_full(self) -> float:
        """Return the flow's share in the worst of the seconds in which the link was full.

        In others nobody took from it what it did not get: TCP may stand still for a second after a
        loss, and does on a machine whose cores are busy.
        """
        pairs = zip(
            self.flow.seconds(self.begin, self.end),
            self.both.seconds(self.begin, self.end),
            strict=True,
        )
        shares = [flow * HEADERS / LINK for flow, both in pairs if both >= FULL * LINK]
        assert shares, "the link was never full"
        return min(shares)

    def own(self) -> float:
        """Return the move's share of the link."""
        rate = self.both.mean(self.begin, self.end) - self.flow.mean(self.begin, self.end)
        return rate * HEADERS / LINK


async def moved_beside(at: Person, to: str, *words: str) -> Beside:
    """Move the guest while a flow pours the same way all the time, its survey included."""
    here, there = (at.far.a.lab, at.far.b.lab) if to == "b" else (at.far.b.lab, at.far.a.lab)
    async with flow(here, there) as beside, received(there) as both:
        said = await at.whimbrel("move", "db", "--to", to, *ALONE, *words)
        assert said.code == ExitCode.DONE, said.errors
        begin, end, events = times(at)
        await beside.until(end)
        await both.until(end)
    assert end - begin > 3, "the move was too quick to compete"
    return Beside(said.json, begin, end, events, beside, both)


def times(at: Person, vm: str = "db") -> tuple[float, float, Events]:
    """Return when a VM's last move began to send, and when it arrived, and what happened."""
    folder = Path(at.environment["XDG_STATE_HOME"], "whimbrel", "journals")
    last = max(histories(vm, folder), key=lambda each: each.entries[0].at)
    found = {entry.step: entry.at for entry in last.entries}
    events = [(each.at, event_of(each)) for each in last.entries if each.step is Step.EVENT]
    return found[Step.SENDING], found[Step.RUNNING_THERE], tuple(events)


def sent(events: Events, begin: float, end: float) -> float:
    """Return the bytes per second that a hypervisor has sent between two moments."""
    seen = [e for at, e in events if isinstance(e, Observation) and begin <= at <= end]
    return (seen[-1].transferred - seen[0].transferred) / (seen[-1].at - seen[0].at)

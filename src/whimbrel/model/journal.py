"""The journal of a move: what was about to be done, written down before it was done.

    opened ─► prepared ─► sending ─┬─► handing-over ─► running-there ─► stopping-here ─► closed
                                   ├─► postcopy ─────► running-there ─► …
                                   └─► stopping-there ─► resuming-here ─► closed

Each step is on disk before it is taken, so that whoever finds the journal of a whimbrel that
died knows the last thing that can have happened. Between the steps stand events and
decisions, for those who watch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from whimbrel.model.migration import (
    Action,
    Cancel,
    Decision,
    Event,
    Observation,
    Pass,
    PhaseChange,
    Proceed,
    SetBandwidthLimit,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.plain import plain, shaped


class Step(StrEnum):
    """What an entry announces."""

    OPENED = "opened"  # a move begins; nothing has been done on either host
    PREPARED = "prepared"  # the destination waits for its guest
    SENDING = "sending"  # memory is about to be sent
    POSTCOPY = "postcopy"  # the guest may leave the source before its memory
    HANDING_OVER = "handing-over"  # the guest stands still and is about to leave the source
    RUNNING_THERE = "running-there"  # the destination is about to run the guest
    LISTENING_AGAIN = "listening-again"  # a post-copy that lost its link is to be taken up again
    STOPPING_HERE = "stopping-here"  # the source's process is about to be ended
    STOPPING_THERE = "stopping-there"  # the destination's process is about to be ended
    RESUMING_HERE = "resuming-here"  # the source is about to take its guest back
    CLOSED = "closed"  # the move is over, and how
    EVENT = "event"  # something happened
    DECISION = "decision"  # something was decided

    @property
    def may_wait(self) -> bool:
        """Whether the move stays as it is when this cannot be written down.

        Past the hand-over the guest comes first: it is run even where the disk is full.
        """
        return self in {
            Step.OPENED,
            Step.PREPARED,
            Step.SENDING,
            Step.POSTCOPY,
            Step.HANDING_OVER,
        }


@dataclass(frozen=True)
class Entry:
    """One line of a journal.

    Attributes:
        step: What it announces.
        at: When, in seconds since 1970-01-01 UTC.
        fields: What belongs to it; plain data that JSON can say (`model.plain`).
    """

    step: Step
    at: float
    fields: Mapping[str, Any] = field(default_factory=dict)


KINDS: dict[str, type[Event]] = {
    "observation": Observation,
    "pass": Pass,
    "phase": PhaseChange,
}
"""The events by the word that stands for each in an entry."""

ACTIONS: dict[str, type[Action]] = {
    "start-postcopy": StartPostcopy,
    "cancel": Cancel,
    "set-downtime-limit": SetDowntimeLimit,
    "set-bandwidth-limit": SetBandwidthLimit,
    "proceed": Proceed,
}
"""The actions likewise."""

_WORDS: dict[type[Any], str] = {kind: word for word, kind in {**KINDS, **ACTIONS}.items()}


def event_entry(event: Event, at: float) -> Entry:
    """Return the entry for something that happened; its own `at` counts from the request."""
    return Entry(Step.EVENT, at, {_WORDS[type(event)]: plain(event)})


def decision_entry(decision: Decision, at: float) -> Entry:
    """Return the entry for a decision."""
    action = {_WORDS[type(decision.action)]: plain(decision.action)}
    return Entry(
        Step.DECISION, at, {"action": action, "reason": decision.reason, "at": decision.at}
    )


def event_of(entry: Entry) -> Event:
    """Return what an entry tells of; `ValueError` when it is no event that is known."""
    for word, kind in KINDS.items():
        if entry.step is Step.EVENT and word in entry.fields:
            return shaped(kind, entry.fields[word])
    raise ValueError(f"no event that is known: {dict(entry.fields)}")


def decision_of(entry: Entry) -> Decision:
    """Return the decision an entry tells of; `ValueError` when it is none that is known."""
    action = entry.fields.get("action", {})
    for word, kind in ACTIONS.items():
        if entry.step is Step.DECISION and word in action:
            reason, at = str(entry.fields.get("reason", "")), entry.fields.get("at", 0.0)
            return Decision(shaped(kind, action[word]), reason, float(at))
    raise ValueError(f"no decision that is known: {dict(entry.fields)}")

"""What a move that nobody conducts any more has come to, and what brings it to its end: a table.

Nothing here asks or acts. The guest runs exactly once because of what the table never does:
a destination is run only where the source says that it has handed the guest over, or has
ended on a host that answers; a source is resumed only where the destination has ended, or
answers that its guest does not run and has nothing that the source has handed over.
"""

from dataclasses import dataclass
from enum import StrEnum

from whimbrel.model.by_hand import ByHand
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase, Side


class Seen(StrEnum):
    """What is known of a machine."""

    ANSWERS = "answers"
    GONE = "gone"  # its host is sure that no process holds it
    SILENT = "silent"  # its host or its hypervisor does not answer


@dataclass(frozen=True)
class SideFacts:
    """What one side says.

    Attributes:
        seen: Whether it says anything.
        running: Whether the guest executes there.
        phase: How far the move is, as this side has it.
    """

    seen: Seen
    running: bool = False
    phase: Phase = Phase.IDLE


@dataclass(frozen=True)
class Facts:
    """All that is known of a move.

    Attributes:
        source: What the source says.
        destination: What the destination says.
        last: The last step that is known to have been announced; None where nothing tells.
        exact: Whether no later one was announced: a journal knows, marks on hosts may lag.
        refused: Whether the destination was told to run the guest, and answered that it cannot.
        here: With what a person ends the VM at the source, or starts it there.
        there: Likewise at the destination.
    """

    source: SideFacts
    destination: SideFacts
    last: Step | None = None
    exact: bool = False
    refused: bool = False
    here: ByHand = ByHand()
    there: ByHand = ByHand()

    @property
    def ran_there(self) -> bool:
        """Whether the destination was told to run the guest, as far as is known."""
        return self.last in _RAN_THERE


class Repair(StrEnum):
    """What brings a move to its end."""

    NOTHING = "nothing"  # it has ended
    WAIT = "wait"  # the hand-over is going on: look again
    CALL_BACK = "call-back"  # cancel at the source, then look again
    STOP_THERE = "stop-there"  # end what is left at the destination
    RESUME_HERE = "resume-here"  # end what is left at the destination, let the source go on
    RUN_THERE = "run-there"  # let the destination run the guest, then look again
    STOP_HERE = "stop-here"  # end what is left at the source
    FOLLOW = "follow"  # see a post-copy to its end
    TAKE_UP = "take-up"  # connect a paused post-copy again, and see it to its end
    LEAVE = "leave"  # nothing that is safe can be done; a person has to


@dataclass(frozen=True)
class Case:
    """A case of the table.

    Attributes:
        sentence: What has happened.
        repair: What is to be done.
        runs_on: Where the guest runs now; None where it runs nowhere, or that is not known.
        hint: What a person has to do, where `repair` is `LEAVE`.
        lost: Whether the guest is lost for sure: nothing is left to find out, and what is left
            of it may be ended.
    """

    sentence: str
    repair: Repair
    runs_on: Side | None = None
    hint: str = ""
    lost: bool = False

    @property
    def over(self) -> bool:
        """Whether the move has come to its end."""
        return self.repair is Repair.NOTHING or self.lost


UNDER_WAY = frozenset({Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER, Phase.CANCELLING})
"""Phases in which the source still has the guest and can be called back."""

PULLING = frozenset({Phase.POSTCOPY, Phase.POSTCOPY_PAUSED})
"""Phases in which each side has a part of the guest."""

_RAN_THERE = frozenset({Step.RUNNING_THERE, Step.LISTENING_AGAIN, Step.STOPPING_HERE, Step.CLOSED})


def start_anew(where: ByHand) -> str:
    """Return what is to be done about a guest that is lost."""
    return f"Start the VM anew from its disks, as after a power cut: {where.start}."


def _end_and_start(what: str, left: ByHand, where: ByHand) -> str:
    return f"End what {what}: {left.end}. {start_anew(where)}"


def case_of(facts: Facts) -> Case:
    """Return the case that the facts make."""
    here, there = facts.source, facts.destination
    if here.seen is Seen.SILENT:
        return _silent_source(there)
    if here.seen is Seen.GONE:
        return _dead_source(facts)
    if here.running:
        return _running_source(facts)
    if here.phase in PULLING:
        return _pulling(facts)
    return _standing_source(facts)


def undecided(facts: Facts) -> bool:
    """Tell whether it will show by itself whether a guest is whole whose source has ended.

    A destination in post-copy goes on to be complete, when all pages came before that, or
    notices that it has lost its connection.
    """
    return facts.source.seen is Seen.GONE and facts.destination.phase is Phase.POSTCOPY


def _silent_source(there: SideFacts) -> Case:
    look = "Make the source reachable, then: whimbrel recover. Or see to it that it is off, and "
    look += "say so: whimbrel recover VM --gone source."
    if there.running and there.phase not in PULLING:
        return Case(
            "The guest runs at the destination; the source does not answer.",
            Repair.LEAVE,
            Side.DESTINATION,
            f"What is left at the source runs nothing and is to be removed. {look}",
        )
    if there.phase in PULLING:
        return Case(
            "The guest has gone over to the destination before all of its memory, and the source, "
            "which has the rest, does not answer.",
            Repair.LEAVE,
            hint="Make the source reachable, then: whimbrel recover.",
        )
    return Case("The source does not answer; the guest may run there.", Repair.LEAVE, hint=look)


def _dead_source(facts: Facts) -> Case:
    there, home = facts.destination, facts.there if facts.ran_there else facts.here
    if there.seen is Seen.SILENT:
        return Case(
            "The source's process has ended, and the destination does not answer.",
            Repair.LEAVE,
            hint="Make the destination reachable, then: whimbrel recover.",
        )
    if there.seen is Seen.GONE:
        return Case(
            "The processes of both sides have ended: the guest runs nowhere.",
            Repair.NOTHING,
            hint=start_anew(home),
        )
    if there.phase in PULLING:
        return Case(
            "The source's process has ended before all of the guest's memory was at the "
            "destination: the guest is lost.",
            Repair.LEAVE,
            hint=_end_and_start("is left", facts.there, home),
            lost=True,
        )
    if there.running:
        return Case("The guest runs at the destination.", Repair.NOTHING, Side.DESTINATION)
    if there.phase is Phase.COMPLETED:
        return Case(
            "The source has ended, and the whole guest waits at the destination.",
            Repair.RUN_THERE,
        )
    return Case(
        "The source's process has ended before the guest was at the destination: it runs nowhere.",
        Repair.STOP_THERE,
        hint=start_anew(facts.here),
    )


def _running_source(facts: Facts) -> Case:
    here, there = facts.source, facts.destination
    if there.running:
        return Case(
            "Both sides run the guest, which no move of whimbrel brings about.",
            Repair.LEAVE,
            hint=f"End the one that is not wanted: {facts.here.end}, or: {facts.there.end}.",
        )
    if here.phase in UNDER_WAY:
        return Case(
            "The move goes on with nobody to conduct it; the guest still runs at the source. It "
            "is called back, which is safe at any moment.",
            Repair.CALL_BACK,
            Side.SOURCE,
        )
    if there.seen is Seen.ANSWERS:
        return Case(
            "The guest runs at the source; what waits at the destination is left over.",
            Repair.STOP_THERE,
            Side.SOURCE,
        )
    unseen = " The destination does not answer; what may be left there never runs by itself."
    said = unseen if there.seen is Seen.SILENT else ""
    return Case(f"The guest runs at the source.{said}", Repair.NOTHING, Side.SOURCE)


def _pulling(facts: Facts) -> Case:
    here, there = facts.source, facts.destination
    runs_on = Side.DESTINATION if there.running else None
    if there.seen is Seen.GONE:
        return Case(
            "The destination's process has ended during post-copy, and with it what the guest "
            "had written there: the guest is lost.",
            Repair.LEAVE,
            hint=_end_and_start("is left", facts.here, facts.there),
            lost=True,
        )
    if here.phase is Phase.POSTCOPY_PAUSED or there.phase is Phase.POSTCOPY_PAUSED:
        # Some sources say so as soon as nobody leads the move, and the rest goes on for all that.
        sure = there.phase is not Phase.POSTCOPY
        return Case(
            "The post-copy has lost its link and is paused: the guest waits for the rest of its "
            "memory."
            if sure
            else "The guest has gone over to the destination before all of its memory, and the "
            "source has lost touch with it.",
            Repair.TAKE_UP,
            runs_on,
        )
    if there.seen is Seen.ANSWERS and not there.running:
        return Case(
            "The source has handed the guest over, and the destination has not run it yet.",
            Repair.RUN_THERE,
        )
    return Case(
        "The guest runs at the destination, and the rest of its memory follows.",
        Repair.FOLLOW,
        runs_on,
    )


def _standing_source(facts: Facts) -> Case:
    here, there = facts.source, facts.destination
    if there.seen is Seen.SILENT:
        return Case(
            "The guest stands still at the source, and the destination does not answer: it may "
            "run there.",
            Repair.LEAVE,
            hint="Make the destination reachable, then: whimbrel recover. Or see to it that it is "
            "off, and say so: whimbrel recover VM --gone destination.",
        )
    if there.running:
        return _arrived(facts)
    if here.phase is Phase.COMPLETED:
        return _handed_over(facts)
    if here.phase is Phase.CANCELLING:
        return Case("The move is being called back.", Repair.WAIT)
    if here.phase in UNDER_WAY:
        return Case(
            "The guest stands still, and the move goes on with nobody to conduct it. It is called "
            "back; if it is too late for that, the source will say so.",
            Repair.CALL_BACK,
        )
    return _paused(facts) if here.phase is Phase.IDLE else _undone(facts)


def _arrived(facts: Facts) -> Case:
    here = facts.source
    if here.phase is Phase.COMPLETED:
        return Case(
            "The guest runs at the destination; the source is left over.",
            Repair.STOP_HERE,
            Side.DESTINATION,
        )
    return Case(
        f"The guest runs at the destination, though the source calls the move {here.phase}.",
        Repair.LEAVE,
        Side.DESTINATION,
        f"Make sure that the guest is well, then end the source's: {facts.here.end}.",
    )


def _handed_over(facts: Facts) -> Case:
    there = facts.destination
    if there.seen is Seen.ANSWERS and there.phase is Phase.COMPLETED and not facts.refused:
        return Case(
            "The source has handed the guest over, and the destination has not run it yet.",
            Repair.RUN_THERE,
        )
    if there.seen is Seen.ANSWERS:
        return Case(
            "The source has sent all of the guest, but the destination has not got it.",
            Repair.RESUME_HERE,
        )
    if facts.exact and facts.last not in _RAN_THERE:
        return Case(
            "The destination's process has ended before it ran the guest; the source has it still.",
            Repair.RESUME_HERE,
        )
    what = "The destination's process has ended, and the guest may have run there"
    return _may_have_run(facts, what)


def _undone(facts: Facts) -> Case:
    here = facts.source
    # A post-copy is announced on both hosts before it begins: without that, the destination was
    # never told to run a guest whose move then failed.
    ran = facts.last is None or facts.last in _RAN_THERE
    if ran or (facts.last is Step.POSTCOPY and not facts.exact):
        what = f"The move is {here.phase}, and the guest may have run there"
        return _may_have_run(facts, what)
    return Case(
        f"The move is {here.phase}, and the guest stands still at the source.",
        Repair.RESUME_HERE,
    )


def _may_have_run(facts: Facts, what: str) -> Case:
    return Case(
        f"{what}: the guest is lost, for the source's memory may be older than its disks.",
        Repair.LEAVE,
        hint=_end_and_start("stands still at the source", facts.here, facts.there),
        lost=True,
    )


def _paused(facts: Facts) -> Case:
    # Nothing was sent: whoever paused the guest wants it so.
    left = facts.destination.seen is Seen.ANSWERS
    return Case(
        "The guest is paused at the source; nothing of it was sent.",
        Repair.STOP_THERE if left else Repair.NOTHING,
        Side.SOURCE,
    )

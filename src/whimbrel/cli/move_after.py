"""What is looked at, judged and kept when a move is over."""

import time
from dataclasses import replace

from whimbrel.cli.journey import Journey
from whimbrel.cli.move_choice import Decided
from whimbrel.cli.move_screen import MoveScreen
from whimbrel.errors import HostError, WhimbrelError
from whimbrel.model.check import Check, failed, passed
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plan import Wish
from whimbrel.model.record import MoveFigures, MoveRecord
from whimbrel.model.storage import StorageCopied
from whimbrel.model.units import format_time
from whimbrel.ports import Machine
from whimbrel.practice.attempts import Attempt
from whimbrel.practice.cases import start_anew
from whimbrel.store import Store

ENDED = "it arrived, and its process at the destination has ended since, so that the guest is lost."


async def afterwards(journey: Journey, last: Attempt) -> tuple[tuple[Check, ...], Outcome]:
    """Look at both hosts when a guest has arrived: it runs there, and nothing is left here.

    Raises nothing: the move is over, and a host that cannot be asked now does not undo it.

    Returns:
        The checks, and the outcome as it is now.
    """
    vm, outcome = journey.asked.vm, last.outcome
    if outcome.ending is not Ending.COMPLETED:
        return (), outcome
    guest, ended = await _guest(journey, last)
    if ended:
        reason = f"{ENDED} {start_anew(journey.there.hypervisor.by_hand(vm))}"
        outcome = replace(outcome, ending=Ending.FAILED, reason=reason, runs_on=None)
    try:
        return (guest, *await journey.here.afterwards(vm, journey.there)), outcome
    except HostError as error:
        unseen = f"What is left on {journey.source.name} could not be looked at: {error.what}"
        return (guest, failed("source", unseen, f"whimbrel recover {vm}")), outcome


async def _guest(journey: Journey, last: Attempt) -> tuple[Check, bool]:
    """Return whether the guest runs, and whether what it ran in has ended."""
    vm, destination = journey.asked.vm, journey.destination.name
    remedy = f"whimbrel recover {vm}"
    try:
        machine = await _found(journey, last)
        if machine is not None and await machine.running():
            return passed("guest", f"{vm} runs on {destination}."), False
        gone = machine is None or await journey.there.hypervisor.seek(vm) is None
    except HostError as error:
        unseen = f"{vm} runs on {destination}, where it could not be looked at: {error.what}"
        return failed("guest", unseen, remedy), False
    return failed("guest", f"{vm} does not run on {destination} now.", remedy), gone


async def _found(journey: Journey, last: Attempt) -> Machine | None:
    """Return the machine at the destination, reached anew where its connection has been lost."""
    machine = last.moved.machine
    try:
        if machine is not None:
            await machine.standing()
    except HostError:
        return await journey.there.hypervisor.seek(journey.asked.vm)
    return machine


def missed(outcome: Outcome, wish: Wish) -> tuple[str, ...]:
    """Return the goals that a move did not keep, a sentence each."""
    if outcome.ending is not Ending.COMPLETED:
        return ()
    found = []
    if outcome.standstill is not None and outcome.standstill > wish.downtime:
        stood, wanted = format_time(outcome.standstill), format_time(wish.downtime)
        found.append(f"The guest stood still for {stood}; at most {wanted} was wanted.")
    if outcome.wall_time is not None and outcome.wall_time > wish.total_time:
        took, wanted = format_time(outcome.wall_time), format_time(wish.total_time)
        found.append(f"The move took {took}; at most {wanted} was wanted.")
    return tuple(found)


def record_of(
    journey: Journey,
    how: Decided,
    last: Attempt,
    began: float,
    *,
    ending: Ending,
    copied: StorageCopied | None = None,
) -> MoveRecord:
    """Return the move as a history keeps it: its last attempt, with the survey before the first.

    Args:
        journey: The move.
        how: What was decided, and said of it.
        last: The attempt that counts.
        began: When it was asked for, seconds since 1970-01-01 UTC.
        ending: How it ended, as was seen afterwards.
        copied: The disks that arrived with it; None: none.
    """
    seen = last.outcome
    return MoveRecord(
        began=began,
        ended=time.time(),
        source=journey.source.name,
        destination=journey.destination.name,
        vm=journey.asked.vm,
        method=how.method,
        tuning=last.tuning,
        ending=ending,
        observed=MoveFigures(
            total_time=seen.total_time,
            preparation_time=seen.preparation_time,
            downtime=seen.standstill,
            downtime_reported=seen.downtime_reported,
            downtime_expected=seen.downtime_expected,
            wire_bytes=seen.hypervisor_bytes,
        ),
        survey=how.surveyed.survey if how.surveyed else None,
        prediction=how.prediction if last.tuning == how.tuning else None,
        verdict=how.prediction.verdict if how.prediction else None,
        copied=copied,
    )


def remember(record: MoveRecord, screen: MoveScreen) -> int | None:
    """Keep a move in the history; one that cannot be kept spoils no move."""
    try:
        with Store.open() as store:
            return store.add(record)
    except WhimbrelError as error:
        screen.lost(error)
        return None

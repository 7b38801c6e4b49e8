"""The phases of a move in which faults are injected, and how a move is brought into each.

before start      the destination's QEMU is there, nothing was sent
disk mirror       its disk is being copied, memory not yet
first pass        memory on its way for the first time
later pass        what was dirtied meanwhile is on its way again
switchover        the guest stands still; the source's QEMU is frozen for the fault
disks' switchover the guest stands still, its disk is let go of; whimbrel is frozen for it
post-copy         the guest runs at the destination, memory follows
after completion  the guest runs at the destination, the source is about to be ended
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from faults.stage import SLOW, Stage, onlooker
from faults.underway import UnderWay
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase as MovePhase
from whimbrel.model.units import MIB


class Phase(StrEnum):
    """A column of the matrix."""

    BEFORE = "before start"
    MIRROR = "disk mirror"
    FIRST = "first pass"
    LATER = "later pass"
    SWITCHOVER = "switchover"
    HANDOVER = "disks' switchover"
    POSTCOPY = "post-copy"
    AFTER = "after completion"


class Missed(Exception):
    """The move was not met in the phase; the cell has to be run again."""


Reach = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """How a move is brought into a phase.

    Attributes:
        reach: Returns when it is there; raises `Missed`.
        words: Further words of its command.
        disks: Whether its disk is copied along.
        freezes: What stands still while the fault is injected: "", "whimbrel" or "source".
        rate: What the link carries meanwhile, bytes per second.
    """

    reach: Reach
    words: tuple[str, ...] = ()
    disks: bool = False
    freezes: str = ""
    rate: float = SLOW


@asynccontextmanager
async def held(stage: Stage, phase: Phase, *, disks: bool) -> AsyncIterator[None]:
    """Begin the move and hold it in a phase while the block runs."""
    way = WAYS[phase]
    assert disks or not way.disks
    stage.link(way.rate)
    await stage.begin(*way.words)
    await way.reach(stage)
    try:
        yield
    finally:
        if way.freezes == "whimbrel":
            stage.signal(signal.SIGCONT)
        elif way.freezes == "source":
            thaw(stage)


def thaw(stage: Stage) -> None:
    """Let the source's QEMU go on."""
    pid = stage.pid("a")
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _until(holds: Callable[[Stage], bool], *, freeze: bool = False) -> Reach:
    async def reach(stage: Stage) -> None:
        if not await stage.until(holds):
            raise Missed(f"steps {[str(step) for step in stage.steps]}")
        if freeze:
            stage.signal(signal.SIGSTOP)
            stage.read()
            if not holds(stage):
                raise Missed(f"steps {[str(step) for step in stage.steps]}")

    return reach


def _before(stage: Stage) -> bool:
    return Step.SENDING not in stage.steps and stage.pid("b") is not None


def _mirrors(stage: Stage) -> bool:
    copied = sum(path.stat().st_blocks * 512 for path in stage.there.iterdir())
    return stage.steps[-1:] == [Step.PREPARED] and copied > 2 * MIB


def _first(stage: Stage) -> bool:
    sent = any(each["transferred"] > MIB for each in stage.events("observation"))
    return sent and len(stage.events("pass")) == 1


def _later(stage: Stage) -> bool:
    return len(stage.events("pass")) >= 3


def _hands_over(stage: Stage) -> bool:
    return stage.steps[-1:] == [Step.HANDING_OVER]


def in_postcopy(stage: UnderWay) -> bool:
    """Tell whether the guest runs at the destination and something of its memory has followed."""
    if stage.phases[-1:] != [MovePhase.POSTCOPY]:
        return False
    after = [
        each for each in stage.events("observation") if each["phase"] == MovePhase.POSTCOPY.value
    ]
    return Step.RUNNING_THERE in stage.steps and bool(after)


def has_arrived(stage: UnderWay) -> bool:
    """Tell whether the guest runs at the destination and the source is about to be ended."""
    return stage.steps[-1:] == [Step.STOPPING_HERE]


async def _goes_over(stage: Stage) -> None:
    """Wait for post-copy, and let the link be slow from then on only: the first pass is long."""
    await _until(lambda at: MovePhase.POSTCOPY in at.phases)(stage)
    stage.link(SLOW / 2)
    await _until(in_postcopy)(stage)


async def _switchover(stage: Stage) -> None:
    """Wait for QEMU's own word that it stops the guest, and freeze it at that moment."""
    if not await stage.until(lambda at: bool(at.events("pass"))):
        raise Missed("no pass began")
    pid = stage.pid("a")
    assert pid is not None
    async with onlooker(stage, "a") as talk, asyncio.timeout(60.0):
        while True:
            message = await talk.heard()
            if message.get("event") != "MIGRATION":
                continue
            status = message["data"]["status"]
            if status == "device":
                os.kill(pid, signal.SIGSTOP)
                return
            if status in {"completed", "failed"}:
                raise Missed(status)


WAYS: dict[Phase, Way] = {
    Phase.BEFORE: Way(_until(_before, freeze=True), freezes="whimbrel"),
    Phase.MIRROR: Way(_until(_mirrors), disks=True),
    Phase.FIRST: Way(_until(_first)),
    Phase.LATER: Way(_until(_later), rate=4 * SLOW),
    Phase.SWITCHOVER: Way(_switchover, freezes="source", rate=40e6),
    Phase.HANDOVER: Way(
        _until(_hands_over, freeze=True), disks=True, freezes="whimbrel", rate=40e6
    ),
    Phase.POSTCOPY: Way(_goes_over, ("--method", "postcopy"), rate=4 * SLOW),
    Phase.AFTER: Way(_until(has_arrived, freeze=True), freezes="whimbrel", rate=40e6),
}
"""Every phase with its way. The hot guest dirties 8 MiB over and over: a link of 40 MB/s lets it
through within QEMU's downtime limit of 300 ms, one of 16 MB/s never does."""

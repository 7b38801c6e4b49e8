"""The fault matrix where libvirt runs both hosts: phases, faults, and what each cell comes to.

    reach the phase ─► inject ─► let go ─► the command ends ─► mend the world ─► (recover)
    └► where does the guest run, is it whole, where is it defined, what was said, what is left

before the copy   whimbrel is about to have libvirt begin, and is frozen for the fault
pre-copy          memory is on its way
post-copy         the guest runs at the destination, memory follows
after arrival     the guest runs at the destination; whimbrel is frozen before the source is ended
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum

from faults.expected import (
    EITHER,
    FOUND,
    HALF,
    INTERRUPTED,
    KILLED,
    MOVES,
    POWER_CUT,
    STAYS,
    UNKNOWN,
    Expected,
    NotApplicable,
    lost,
)
from faults.judging import judged
from faults.phases import Missed, has_arrived, in_postcopy
from faults.row import Row, last_words
from faults.stage import FAST, SLOW
from faults.underway import VM, UnderWay
from libvirtd.fault_stage import LibvirtStage, libvirt_stage
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase as MovePhase
from whimbrel.model.units import MIB

TRIES = 3
"""How often a move is begun that was quicker than the fault."""

BREAK = 5.0
"""Seconds that a link is cut for."""

MET_WITHIN = 180.0
"""Seconds for a move to come into a phase, beside whatever else runs on this machine."""

SOON = 15.0
"""Seconds for what ends by itself, and for libvirt to find its VMs again after its start."""


class Phase(StrEnum):
    """A column of the matrix."""

    BEFORE = "before the copy"
    COPY = "pre-copy"
    POSTCOPY = "post-copy"
    AFTER = "after arrival"


class Fault(StrEnum):
    """A row of the matrix."""

    WHIMBREL = "whimbrel killed"
    CTRL_C = "Ctrl-C"
    SOURCE = "source QEMU killed"
    DESTINATION = "destination QEMU killed"
    LINK_BREAK = "link cut for 5 s"
    LINK = "link cut for good"
    LIBVIRT_HERE = "source's libvirtd killed and started"
    LIBVIRT_THERE = "destination's libvirtd killed and started"


_NO_QEMU = NotApplicable("libvirt builds the destination's QEMU when the copy begins")
_ENDED = NotApplicable("libvirt has ended the source's QEMU by itself")
STUCK = Expected((), UNKNOWN, recovers=True, why="libvirt 11.3 cannot take up a post-copy")
_AT_B = Expected(("b",), KILLED, recovers=True)
_CALLED_BACK = Expected(("a",), INTERRUPTED)
_FINISHED = Expected(("b",), INTERRUPTED)


def _row(*cells: Expected | NotApplicable) -> dict[Phase, Expected | NotApplicable]:
    return dict(zip(Phase, cells, strict=True))


EXPECTED: dict[Fault, dict[Phase, Expected | NotApplicable]] = {
    Fault.WHIMBREL: _row(FOUND, FOUND, _AT_B, _AT_B),
    Fault.CTRL_C: _row(_CALLED_BACK, _CALLED_BACK, _FINISHED, _FINISHED),
    Fault.SOURCE: _row(lost(POWER_CUT), lost(POWER_CUT), lost(HALF), _ENDED),
    Fault.DESTINATION: _row(_NO_QEMU, STAYS, lost(HALF), lost(POWER_CUT)),
    Fault.LINK_BREAK: _row(EITHER, MOVES, MOVES, MOVES),
    Fault.LINK: _row(STAYS, STAYS, STUCK, MOVES),
    Fault.LIBVIRT_HERE: _row(STAYS, STAYS, MOVES, MOVES),
    Fault.LIBVIRT_THERE: _row(STAYS, STAYS, MOVES, MOVES),
}
"""Every cell. The guest is defined where it runs, and nowhere else."""

Inject = Callable[[LibvirtStage], Awaitable[None]]


async def _kill_whimbrel(stage: LibvirtStage) -> None:
    stage.signal(signal.SIGKILL)
    assert stage.process is not None
    await stage.process.wait()


async def _interrupt(stage: LibvirtStage) -> None:
    stage.signal(signal.SIGINT)


async def _cut(stage: LibvirtStage) -> None:
    stage.cut()


def _kill_qemu(host: str) -> Inject:
    async def kill(stage: LibvirtStage) -> None:
        pid = stage.pid(host)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    return kill


def _kill_libvirt(host: str) -> Inject:
    async def kill(stage: LibvirtStage) -> None:
        libvirt = stage.at.host(host)
        await libvirt.kill()
        await libvirt.start()

    return kill


INJECTIONS: dict[Fault, Inject] = {
    Fault.WHIMBREL: _kill_whimbrel,
    Fault.CTRL_C: _interrupt,
    Fault.SOURCE: _kill_qemu("a"),
    Fault.DESTINATION: _kill_qemu("b"),
    Fault.LINK_BREAK: _cut,
    Fault.LINK: _cut,
    Fault.LIBVIRT_HERE: _kill_libvirt("a"),
    Fault.LIBVIRT_THERE: _kill_libvirt("b"),
}


def _begins(stage: UnderWay) -> bool:
    return stage.steps[-1:] in ([Step.PREPARED], [Step.SENDING]) and not stage.phases


def _copies(stage: UnderWay) -> bool:
    sent = any(each["transferred"] > MIB for each in stage.events("observation"))
    return stage.phases[-1:] == [MovePhase.PRECOPY] and sent


async def _reach(stage: LibvirtStage, holds: Callable[[UnderWay], bool]) -> None:
    if not await stage.until(holds, MET_WITHIN):
        raise Missed(f"steps {[str(step) for step in stage.steps]}")


async def _frozen(stage: LibvirtStage, holds: Callable[[UnderWay], bool]) -> None:
    await _reach(stage, holds)
    stage.signal(signal.SIGSTOP)
    stage.read()
    if not holds(stage):
        raise Missed(f"steps {[str(step) for step in stage.steps]}")


async def _met(stage: LibvirtStage, phase: Phase) -> None:
    """Begin the move, and return when it is in the phase."""
    match phase:
        case Phase.BEFORE:
            await stage.begin()
            await _frozen(stage, _begins)
        case Phase.COPY:
            stage.link(SLOW)
            await stage.begin()
            await _reach(stage, _copies)
        case Phase.POSTCOPY:
            stage.link(4 * SLOW)
            await stage.begin("--method", "postcopy")
            await _reach(stage, lambda at: MovePhase.POSTCOPY in at.phases)
            stage.link(SLOW / 2)
            await _reach(stage, in_postcopy)
        case Phase.AFTER:
            stage.link(10 * SLOW)
            await stage.begin()
            await _frozen(stage, has_arrived)


async def run_cell(phase: Phase, fault: Fault, *, peer: bool = False) -> Row:
    """Run one cell; `peer`: the source's libvirt leads the move."""
    expected, row = EXPECTED[fault][phase], Row(phase, fault)
    if isinstance(expected, NotApplicable):
        row.reason = expected.reason
        return row
    for attempt in range(TRIES):
        async with libvirt_stage(peer=peer) as play:
            try:
                await _met(play, phase)
            except Missed as error:
                play.signal(signal.SIGCONT)
                row.said = last_words(await play.over())
                if attempt + 1 == TRIES:
                    row.failures.append(f"the phase was not met: {error}")
                continue
            await _faulty(play, row, fault)
            await _judged(play, row, expected)
            break
    return row


async def _faulty(play: LibvirtStage, row: Row, fault: Fault) -> None:
    """Let the fault happen, and wait for the command's end."""
    began = time.monotonic()
    await INJECTIONS[fault](play)
    play.signal(signal.SIGCONT)
    play.link(FAST)
    if fault is Fault.LINK_BREAK:
        await asyncio.sleep(BREAK)  # it is the fault
        play.mend()
    said = await play.over()
    row.seconds = time.monotonic() - began
    row.code, row.said = said.code, last_words(said)


async def _judged(play: LibvirtStage, row: Row, expected: Expected) -> None:
    await judged(
        play,
        row,
        expected,
        buried=lambda: _buried(play, row, stuck=expected is STUCK),
        left_over=lambda host: _at_rest(play, host),
    )


async def _at_rest(play: LibvirtStage, home: str) -> list[str]:
    """Wait until the guest is defined where it runs and nothing is left, or name what is."""
    found = [""]
    with suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            while found := await _unrest(play, home):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.1)
    return found


async def _unrest(play: LibvirtStage, home: str) -> list[str]:
    found = await play.left_over(home)
    defined = await play.defined()
    return found if defined == (home,) else [*found, f"defined on {' and '.join(defined)}"]


async def _buried(play: LibvirtStage, row: Row, *, stuck: bool) -> list[str]:
    """Do what the last words advise for a lost guest; then it runs anew, on one host."""
    if stuck:
        row.word = "paused"
        said = re.search("post-copy.*newer than 11.3", row.said, re.DOTALL)
        return [] if said else ["it is not said what holds a post-copy that cannot go on"]
    found = []
    if not re.search(r"lost|runs nowhere", row.said):
        found.append("it is not said that the guest is lost")
    if not re.search(rf"virsh -c '[^']+' start {VM}\b", row.said):
        found.append("it is not said how to start it anew")
    found += await play.advised(row.said)
    running = await play.running()
    if len(running) != 1:
        found.append(f"after what was advised it runs on {running}")
    left = await play.left_over(None)
    return found + [each for each in left if "libvirt on" not in each and "qemu" not in each]

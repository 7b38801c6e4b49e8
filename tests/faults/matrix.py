"""Runs cells of the fault matrix: a phase, a fault in it, and what came of it.

reach the phase ─► inject ─► let go ─► the command ends ─► mend the world ─► (recover)
└► where does the guest run, is it whole, what was said, what is left over
"""

import re
import time

from faults.expected import EXPECTED, Expected, NotApplicable
from faults.injections import INJECTIONS, Fault
from faults.judging import judged
from faults.leftovers import left_over
from faults.phases import Missed, Phase, held
from faults.row import Row, last_words
from faults.stage import FAST, Stage, stage
from faults.underway import VM

TRIES = 3
"""How often a move is begun that was quicker than the fault."""

_DISKED = frozenset({Phase.MIRROR, Phase.HANDOVER})
_WITHOUT = frozenset({Phase.POSTCOPY, Phase.AFTER})


async def run_cell(phase: Phase, fault: Fault) -> Row:
    """Run one cell."""
    expected = EXPECTED[fault][phase]
    row = Row(phase, fault)
    if isinstance(expected, NotApplicable):
        row.reason = expected.reason
        return row
    disks = phase in _DISKED or (INJECTIONS[fault].disks and phase not in _WITHOUT)
    for attempt in range(TRIES):
        try:
            async with stage(disks=disks) as play:
                try:
                    await _faulty(play, row, phase, fault)
                except Missed:
                    row.said = last_words(await play.over())
                    raise
                await _judged(play, row, expected)
        except Missed as error:
            if attempt + 1 == TRIES:
                row.failures.append(f"the phase was not met: {error}")
        else:
            break
    return row


async def _faulty(play: Stage, row: Row, phase: Phase, fault: Fault) -> None:
    """Let the fault happen, and wait for the command's end."""
    injection = INJECTIONS[fault]
    if injection.early and phase is Phase.BEFORE:
        await injection.inject(play, phase)
        await play.begin()
        began = time.monotonic()
    else:
        async with held(play, phase, disks=play.disks):
            began = time.monotonic()
            await injection.inject(play, phase)
        play.link(FAST)
        if injection.after is not None:
            await injection.after(play, phase)
    said = await play.over()
    row.seconds = time.monotonic() - began
    row.code, row.said = said.code, last_words(said)


async def _judged(play: Stage, row: Row, expected: Expected) -> None:
    await judged(
        play,
        row,
        expected,
        buried=lambda: _buried(play, row),
        left_over=lambda host: left_over(play, host),
    )


async def _buried(play: Stage, row: Row) -> list[str]:
    """Do what the last words advise for a lost guest; then nothing of it may be left."""
    found = []
    if not re.search(r"lost|runs nowhere", row.said) or "whimbrel up" not in row.said:
        found.append("it is not said that the guest is lost, or what to do")
    row.runs_on = await play.running()
    for host in "ab":
        if (play.folder(host) / "vms" / VM).exists():
            said = await play.at.whimbrel("down", VM, "--now", "--on", host)
            if said.code:
                found.append(f"down on {host}: {last_words(said)}")
    return found + await left_over(play, None)

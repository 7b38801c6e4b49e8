"""Runs cells of the fault matrix: a phase, a fault in it, and what came of it.

reach the phase ─► inject ─► let go ─► the command ends ─► mend the world ─► (recover)
└► where does the guest run, is it whole, what was said, what is left over
"""

import re
import time

from faults.expected import EXPECTED, Expected, NotApplicable
from faults.injections import INJECTIONS, Fault
from faults.leftovers import left_over
from faults.phases import Missed, Phase, held
from faults.row import Row, last_sentence, last_words
from faults.stage import DISK, FAST, VM, Stage, stage
from whimbrel.errors import LabError

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
    """Look at what has come of it, and say what is not right."""
    if row.code not in expected.codes:
        row.failures.append(f"exit code {row.code}")
    play.mend()
    if expected.recovers:
        said = await play.at.whimbrel("recover", VM)
        row.recovered = said.code
        row.said += f"\nrecover: {last_words(said)}"
    row.last = last_sentence(row.said)
    if not expected.runs_on:
        row.reason = expected.why
        if not re.search(r"lost|runs nowhere", row.said) or "whimbrel up" not in row.said:
            row.failures.append("it is not said that the guest is lost, or what to do")
        await _buried(play, row)
        return
    row.runs_on = await _running(play)
    if len(row.runs_on) != 1 or row.runs_on[0] not in expected.runs_on:
        row.failures.append(f"it runs on {' and '.join(row.runs_on) or 'no host'}")
        return
    if not re.search(rf"\b(?:runs|is) on {row.runs_on[0]}\b|goes on as before", row.said):
        row.failures.append("it is not said where the guest runs")
    await _whole(play, row)
    row.failures += await left_over(play, row.runs_on[0])


async def _running(play: Stage) -> tuple[str, ...]:
    found = []
    for host in "ab":
        answers = await play.ask(host, "query-status")
        if answers is not None and answers[0]["running"]:
            found.append(host)
    return tuple(found)


async def _whole(play: Stage, row: Row) -> None:
    try:
        async with play.at.redline(VM, row.runs_on[0]) as guest:
            memory, disk = await guest.verify(), await guest.verify_disk(DISK)
    except LabError as error:
        row.failures.append(f"the guest does not answer: {error.what}")
        return
    if not memory.intact:
        row.failures.append(f"memory: {memory}")
    if not disk.intact:
        row.failures.append(f"disk: {disk}")


async def _buried(play: Stage, row: Row) -> None:
    """Do what the last words advise for a lost guest; then nothing of it may be left."""
    row.runs_on = await _running(play)
    for host in "ab":
        if (play.folder(host) / "vms" / VM).exists():
            said = await play.at.whimbrel("down", VM, "--now", "--on", host)
            if said.code:
                row.failures.append(f"down on {host}: {last_words(said)}")
    row.failures += await left_over(play, None)

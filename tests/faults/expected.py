"""What every cell of the matrix has to come to.

Host a is the source, b the destination. A guest is lost only where physics leaves no other way:
the process that had its memory was killed.
"""

from dataclasses import dataclass, replace

from faults.injections import Fault
from faults.phases import Phase
from whimbrel.errors import ExitCode

DONE = (ExitCode.DONE, ExitCode.GOAL_MISSED)
STAYED = (ExitCode.SAFE_AT_SOURCE,)
UNKNOWN = (ExitCode.PLACE_UNKNOWN,)
KILLED = (-9,)
INTERRUPTED = (ExitCode.INTERRUPTED,)


@dataclass(frozen=True)
class Expected:
    """What a cell has to come to.

    Attributes:
        runs_on: Hosts on which the guest may run afterwards, on one of them; empty: it is lost.
        codes: How `whimbrel move` may exit.
        recovers: Whether `whimbrel recover` is to be called, when the world is mended; else
            nothing may be left over without it.
        why: For a lost guest: the physics.
    """

    runs_on: tuple[str, ...]
    codes: tuple[int, ...]
    recovers: bool = False
    why: str = ""


@dataclass(frozen=True)
class NotApplicable:
    """A cell that cannot be."""

    reason: str


STAYS = Expected(("a",), STAYED)
REFUSED = Expected(("a",), (ExitCode.NO_PLAN, ExitCode.HOST))
MOVES = Expected(("b",), DONE)
EITHER = Expected(("a", "b"), (*DONE, *STAYED))
FOUND = Expected(("a", "b"), KILLED, recovers=True)
BROKEN = Expected(("a", "b"), (*DONE, *STAYED))


def lost(why: str) -> Expected:
    """Return what holds where physics takes the guest."""
    return Expected((), UNKNOWN, recovers=True, why=why)


POWER_CUT = "it ran in the process that was killed, as with any host that fails"
HALF = "a part of its memory was in the process that was killed"
NO_PORT = NotApplicable("the destination's kernel hands out a port that is free")
HELD_PORT = NotApplicable("QEMU listens on its port until all memory is there: it stays its own")

_PHASES = tuple(Phase)


def _row(*cells: Expected | NotApplicable) -> dict[Phase, Expected | NotApplicable]:
    return dict(zip(_PHASES, cells, strict=True))


def _at(host: str, cell: Expected) -> Expected:
    return replace(cell, runs_on=(host,))


EXPECTED: dict[Fault, dict[Phase, Expected | NotApplicable]] = {
    # before, mirror, first, later, switchover, disks' switchover, post-copy, after
    Fault.WHIMBREL: _row(
        _at("a", FOUND),
        _at("a", FOUND),
        FOUND,
        FOUND,
        FOUND,
        _at("a", FOUND),
        _at("b", FOUND),
        _at("b", FOUND),
    ),
    Fault.SOURCE: _row(*[lost(POWER_CUT)] * 6, lost(HALF), MOVES),
    Fault.DESTINATION: _row(*[STAYS] * 6, lost(HALF), lost(POWER_CUT)),
    # Before the start nothing is lost by giving up: QEMU connects once, and whimbrel says so.
    Fault.LINK_BREAK: _row(EITHER, *[MOVES] * 7),
    # In post-copy a person interrupts it, as nobody waits ten minutes: exit code 130.
    Fault.LINK: _row(*[STAYS] * 6, Expected(("b",), INTERRUPTED, recovers=True), MOVES),
    Fault.DISK: _row(REFUSED, STAYS, EITHER, EITHER, MOVES, MOVES, MOVES, MOVES),
    Fault.PORT: _row(MOVES, *[NO_PORT] * 5, HELD_PORT, NO_PORT),
    Fault.MEMORY: _row(
        REFUSED,
        STAYS,
        STAYS,
        EITHER,
        EITHER,
        EITHER,
        lost(HALF),
        NotApplicable("the kernel kills QEMU: see there"),
    ),
    Fault.SSH: _row(
        _at("a", BROKEN),
        _at("a", BROKEN),
        BROKEN,
        BROKEN,
        BROKEN,
        _at("a", BROKEN),
        _at("b", BROKEN),
        _at("b", BROKEN),
    ),
    Fault.QMP_HERE: _row(*[EITHER] * 6, MOVES, MOVES),
    Fault.QMP_THERE: _row(
        NotApplicable("whimbrel is not connected to it yet"), *[EITHER] * 5, MOVES, MOVES
    ),
}
"""Every cell. An ending that is "either" depends on who is quicker, and is right both ways."""

"""What others on the link keep beside a move, second by second, by the real command.

    sudo .venv/bin/python benchmarks/sharing.py              all of it, two minutes
    sudo .venv/bin/python benchmarks/sharing.py leave        --leave beside a greedy TCP flow
    sudo .venv/bin/python benchmarks/sharing.py limit        --limit beside the same, three ways
    sudo .venv/bin/python benchmarks/sharing.py moves        two moves that begin at once

Two hosts behind SSH with 200 Mbit/s between them (tests/far). The flow pours all the time, from
before the survey on; a second counts wherever it begins, from the moment at which memory is about
to be sent until the guest is about to run at the destination. Nothing else may run meanwhile.
Exits with 1 where a share is missed by more than 5 points while the link is full: where it is not,
nobody takes from the flow what it does not get.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from far.beside import LINK, Beside, moved_beside, sent, times  # noqa: E402 - found only now
from far.person import Person, person  # noqa: E402
from whimbrel.errors import ExitCode  # noqa: E402
from whimbrel.model.scenario import Load, Pattern  # noqa: E402
from whimbrel.model.units import MIB, format_time, parse_rate  # noqa: E402
from whimbrel.theory.sharing import HEADERS  # noqa: E402

POINTS = 0.05
"""What a share may be missed by."""

TAKES = 0.75
"""Share of what is left that a move takes at least; two channels beside a flow get 2/3."""

FILL = 96 * MIB
SHARES = (0.5, 0.6, 0.7)
LIMIT, MANY = "80 Mbit/s", "130 Mbit/s"
"""The limits; two channels hold none below 126 Mbit/s, and are refused there."""

WAYS = {
    "tcp": ("--method", "tcp", "--limit", LIMIT),
    "multichannel": ("--method", "multichannel", "--limit", MANY),
    "post-copy": ("--method", "postcopy", "--postcopy", "--limit", LIMIT),
}


@asynccontextmanager
async def somebody(*vms: str) -> AsyncIterator[Person]:
    """Hold two hosts with guests on the first."""
    async with person(LINK, told=True) as at:
        for vm in vms:
            await at.up(vm, memory=192 * MIB, load=Load(fill=FILL, pattern=Pattern.RANDOM))
        yield at


def kept(what: str, promised: float, move: Beside) -> bool:
    """Print what a flow and a move got, and tell whether that is what each was promised."""
    worst, full, own = move.share(), move.share_when_full(), move.own()
    good = full >= promised - POINTS and own >= TAKES * (1 - promised)
    said = move.said["predicted"]
    foreseen = ""
    if said is not None:
        took = format_time(move.said["observed"]["total_time"])
        foreseen = f"; forecast {format_time(said['total_time']['p50'])}, took {took}"
    mean = move.flow.mean(move.begin, move.end) * HEADERS / LINK
    print(
        f"{what}: {promised:.0%} is the flow's: {worst:.1%} in its worst second, {full:.1%} in the "
        f"worst in which the link was full, {mean:.1%} on average; the move got {own:.1%} and sent "
        f"{move.most():.1%} in its best second{foreseen}: {'kept' if good else 'NOT KEPT'}",
        flush=True,
    )
    return good


async def leave() -> bool:
    """A greedy TCP flow keeps what `--leave` leaves it, in every second of the move."""
    good = True
    async with somebody("db") as at:
        for turn, share in enumerate(SHARES):
            words = ("--leave", f"{share:.0%}", "--survey", "quick")
            move = await moved_beside(at, "ba"[turn % 2], *words)
            good &= kept(f"--leave {share:.0%}", share, move)
    return good


async def limit() -> bool:
    """It keeps what `--limit` does not give to the move, whichever way that goes."""
    good = True
    async with somebody("db") as at:
        for turn, (name, words) in enumerate(WAYS.items()):
            move = await moved_beside(at, "ba"[turn % 2], "--survey", "none", *words)
            promised = 1 - parse_rate(words[-1]) * HEADERS / LINK
            good &= kept(f"--limit {words[-1]}, {name}", promised, move)
    return good


async def moves() -> bool:
    """Two moves that begin at once get half of the link each."""
    async with somebody("db", "mail") as at:
        words = ("--to", "b", "--method", "tcp", "--no-postcopy", "--survey", "none")
        started = [await at.started("move", vm, *words) for vm in ("db", "mail")]
        ended = [await each.communicate() for each in started]
        for process, (_, errors) in zip(started, ended, strict=True):
            if process.returncode != ExitCode.DONE:
                raise SystemExit(errors.decode())
        db, mail = (times(at, vm) for vm in ("db", "mail"))
    begin, end = max(db[0], mail[0]), min(db[1], mail[1])
    shares = [sent(events, begin, end) * HEADERS / LINK for _, _, events in (db, mail)]
    good = all(abs(share - 0.5) <= POINTS for share in shares)
    told = " and ".join(f"{share:.1%}" for share in shares)
    print(f"two moves at once: {told} of the link: {'kept' if good else 'NOT KEPT'}", flush=True)
    return good


CLAIMS = {"leave": leave, "limit": limit, "moves": moves}


async def main(names: list[str]) -> int:
    """Measure the named claims; return the exit code."""
    return 0 if all([await CLAIMS[name]() for name in names or CLAIMS]) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))

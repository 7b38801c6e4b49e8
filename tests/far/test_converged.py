"""A link that others use: the plan takes it for what is left, and the move leaves it to them.

What a move may take it keeps to in every second, wherever that second begins (`Beside.most`).
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from far.beside import ALONE, LINK, Beside, moved_beside, sent, times
from far.hosts import needs_far_hosts
from far.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.model.method import Tuning
from whimbrel.model.plain import plain
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB, parse_rate
from whimbrel.practice.bound import COUNT_EVERY
from whimbrel.practice.holder import myself
from whimbrel.practice.marks import Mark
from whimbrel.theory.outlook import Lookout
from whimbrel.theory.sharing import HEADERS, portion

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]

LEFT = 0.6
POINTS = 0.05
"""What a promised share may be missed by."""

STEPS = 0.02
"""What the flow's share may be missed by besides: its program reads when it gets a core, which is
every tenth of a second at best. In its exact form: benchmarks/sharing.py."""

TAKES = 0.75
"""Share of its part that a move takes at least; two channels beside a flow get 2/3 of a link."""

WAYS = {
    "tcp": ("--method", "tcp", "--limit", "80 Mbit/s"),
    "multichannel": ("--method", "multichannel", "--limit", "130 Mbit/s"),
    "post-copy": ("--method", "postcopy", "--postcopy", "--limit", "80 Mbit/s"),
}
"""Ways to move under a limit; two channels hold none below 126 Mbit/s."""

LOAD = Load(fill=128 * MIB, pattern=Pattern.RANDOM)


@asynccontextmanager
async def somebody() -> AsyncIterator[Person]:
    async with person(LINK, told=True) as at:
        await at.up("db", memory=256 * MIB, load=LOAD)
        yield at


async def test_others_keep_their_share_in_every_second_and_the_move_takes_the_rest() -> None:
    async with somebody() as at:
        await shares_with_another_move(at)
        await is_refused_a_limit_that_channels_do_not_hold(at)
        left = await moved_beside(at, "b", "--leave", f"{LEFT:.0%}", "--survey", "quick")
        limited = [
            (await moved_beside(at, to, "--survey", "none", *words), parse_rate(words[-1]))
            for to, words in zip("aba", WAYS.values(), strict=True)
        ]
    keeps(left, 1 - LEFT)
    for move, rate in limited:
        keeps(move, rate * HEADERS / LINK)
    foreseen_and_expected(left)


async def is_refused_a_limit_that_channels_do_not_hold(at: Person) -> None:
    words = ("--method", "multichannel", "--limit", "80 Mbit/s")
    for survey in ("none", "quick"):
        said = await at.whimbrel("move", "db", "--to", "b", "--survey", survey, *words)
        assert said.code == ExitCode.NO_PLAN, said.errors
        assert "2 channels hold no limit below 12" in said.errors, said.errors
    assert await at.places("db") == ["a"]


def keeps(move: Beside, part: float) -> None:
    """Assert that a move took its part of the link and no more, and that the flow had the rest."""
    assert move.most() <= part + POINTS, move.events
    assert move.own() >= TAKES * part
    full = move.share_when_full()
    assert full >= 1 - part - POINTS - STEPS, (part, full, move.most(), move.own())


def foreseen_and_expected(move: Beside) -> None:
    """What was forecast, and what the live line says on the way, know of what is left."""
    took, said = move.said["observed"]["total_time"], move.said["predicted"]["total_time"]
    assert abs(said["p50"] / took - 1) <= 0.15, (said, took)
    lookout = Lookout(Tuning(bandwidth_limit=portion(LINK, LEFT)))
    events = [event for _, event in move.events]
    middle = (events[0].at + events[-1].at) / 2
    outlooks = [lookout.hear(event) for event in events]
    halfway = next(each for each in outlooks if each.at >= middle)
    assert halfway.left is not None
    rest = events[-1].at - halfway.at
    assert abs(halfway.left.p50 / rest - 1) <= 0.25, (halfway, rest)


async def shares_with_another_move(at: Person) -> None:
    """Plan beside a move that stands marked on a, and look at what is left of the link."""
    other = Mark("1", "mail", "a", "b", myself(), host=at.far.b.lab.addresses[0])
    mark = Path(at.host("a").folder, "moves", "mail.json")
    mark.parent.mkdir(mode=0o700, exist_ok=True)
    mark.write_text(json.dumps(plain(other)))
    said = await at.whimbrel("plan", "db", "--to", "b", "--survey", "none", "--json")
    mark.unlink()
    assert said.code == ExitCode.DONE, said.errors
    [check] = [each for each in said.json["checks"] if each["name"] == "shared link"]
    assert "1/2 of 200 Mbit/s" in check["detail"]


async def test_two_moves_that_begin_at_once_share_the_link_and_the_longer_one_then_has_it() -> None:
    async with somebody() as at:
        await at.up("mail", memory=192 * MIB, load=Load(fill=48 * MIB, pattern=Pattern.RANDOM))
        words = ("--to", "b", *ALONE, "--survey", "none")
        started = [await at.started("move", vm, *words) for vm in ("db", "mail")]
        async with asyncio.timeout(120):
            ended = [await each.communicate() for each in started]
        db, mail = (times(at, vm) for vm in ("db", "mail"))
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == ExitCode.DONE, errors.decode()
        assert "1 other move is on the way over 200 Mbit/s" in errors.decode()
    begin, end = max(db[0], mail[0]), min(db[1], mail[1])
    assert end - begin > 3, "they hardly met"
    for _, _, events in (db, mail):
        # A QEMU that waits for a core sends less than it may, never more.
        assert -POINTS - STEPS <= sent(events, begin, end) * HEADERS / LINK - 0.5 <= POINTS
    assert "no other move is left over 200 Mbit/s" in ended[0][1].decode()
    assert sent(db[2], end + COUNT_EVERY + 0.5, db[1]) * HEADERS / LINK >= 0.85

"""A link that others use: the plan takes it for what is left, and the move leaves it to them."""

import asyncio
import json
from pathlib import Path

import pytest

from far.hosts import needs_far_hosts
from far.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.lab.goodput import measure_goodput
from whimbrel.model.plain import plain
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.practice.holder import myself
from whimbrel.practice.marks import Mark
from whimbrel.theory.sharing import portion

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]

LINK = 25e6
LEFT = 0.6
LOAD = Load(fill=64 * MIB, pattern=Pattern.RANDOM)


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


async def test_others_keep_their_share_beside_a_move_that_was_planned_with_the_rest() -> None:
    async with person(LINK, told=True) as at:
        await at.up("db", memory=160 * MIB, load=LOAD)
        await shares_with_another_move(at)
        words = ("move", "db", "--to", "b", "--method", "tcp", "--leave", f"{LEFT:.0%}")
        moving = await at.started(*words, "--survey", "quick", "--json")
        await at.until_step("db", "sending")
        beside = await measure_goodput(at.far.a.lab, at.far.b.lab, duration=3.0)
        assert moving.returncode is None, "the move was too quick to compete"
        output, errors = await asyncio.wait_for(moving.communicate(), 120)
        assert moving.returncode == ExitCode.DONE, errors.decode()
    said = json.loads(output)
    own = LOAD.fill / said["observed"]["total_time"]
    share = beside.rate / (beside.rate + own)
    # A machine that is busy may keep the flow from taking all that is left for it.
    assert share >= LEFT - 0.1, (beside.rate, own, errors.decode())
    assert own <= 1.1 * portion(LINK, LEFT)
    assert said["predicted"]["total_time"]["p50"] >= LOAD.fill / portion(LINK, LEFT) * 0.95

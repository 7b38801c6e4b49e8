"""A link that others use: the plan takes it for what is left, and the move leaves it to them."""

import asyncio
import json

import pytest

from far.hosts import needs_far_hosts
from far.person import person
from whimbrel.errors import ExitCode
from whimbrel.lab.goodput import measure_goodput
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.theory.sharing import portion

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]

LINK = 25e6
LEFT = 0.6
LOAD = Load(fill=64 * MIB, pattern=Pattern.RANDOM)


async def test_others_keep_their_share_beside_a_move_that_was_planned_with_the_rest() -> None:
    async with person(LINK, told=True) as at:
        await at.up("db", memory=160 * MIB, load=LOAD)
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

"""A move that is planned, carried out by the scheduler over real SSH, beside others' traffic."""

import asyncio
import json
import signal
import sys
from typing import Any

from far.hosts import needs_far_hosts
from far.person import PATIENCE, Person, person
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB

pytestmark = needs_far_hosts

LOAD = Load(fill=32 * MIB, pattern=Pattern.TEXT)


async def scheduler(at: Person) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *at.far.enter([sys.executable, "-m", "whimbrel", "scheduler", "--json"]),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=at.environment,
    )
    at.running.append(process)
    return process


async def told(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


async def test_a_planned_move_is_carried_out_with_others_share_and_a_budget() -> None:
    async with person(rate=125e6) as at:
        await at.up("db", load=LOAD)
        move = ["move", "db", "--to", "b", "--survey", "quick", "--when", "quiet", "--anyway"]
        limits = ["--leave", "50%", "--cpu-budget", "1"]
        planned = await at.whimbrel("schedule", "add", "--at", "in 1 s", *move, *limits)
        assert planned.code == 0, planned.errors
        process = await scheduler(at)
        begun, over = await told(process), await told(process)
        assert begun["state"] == "running"
        assert over["code"] == 0, over["message"]
        assert over["move"] == 1
        assert "next to nothing" in over["message"]
        assert "either end has half of the CPU budget" in over["message"]
        assert "may use 0.5 cores" in over["message"]
        assert "stays for others" in over["message"]
        assert await at.places("db") == ["b"]
        assert await at.intact("db", on="b") == 32 * 256
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

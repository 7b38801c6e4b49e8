"""Several NICs between two hosts, through the commands: set up, used, cut, taken back."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest

from far.hosts import FarHost, needs_far_hosts
from far.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.lab.counters import interface_bytes
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.sites.connect import connect

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]

LOAD = Load(fill=48 * MIB, pattern=Pattern.RANDOM)
MULTINIC = ("--method", "multinic", "--survey", "none")
RATE = 12.5e6


@pytest.fixture
async def at() -> AsyncIterator[Person]:
    """Two hosts with two NICs, of which nobody has told MPTCP."""
    async with person(RATE, 2) as somebody:
        for host in (somebody.far.a, somebody.far.b):
            on(host, "ip", "mptcp", "endpoint", "flush")
            on(host, "ip", "mptcp", "limits", "set", "subflow", "0", "add_addr_accepted", "0")
        await somebody.up("db", load=LOAD)
        yield somebody


def on(host: FarHost, *words: str) -> None:
    subprocess.run(host.lab.enter(list(words)), check=True, timeout=20)


async def settings(at: Person) -> list[Any]:
    found = []
    for host in at.far.hosts:
        async with connect(host) as site:
            found.append(await site.ask("mptcp_facts"))
    return found


def sent(at: Person) -> list[int]:
    """Return the bytes that each NIC of a has sent."""
    counted = interface_bytes(at.far.a.lab)
    return [counted[name][1] for name in at.far.a.lab.interfaces]


async def test_nics_are_said_to_be_alone_then_joined_for_a_plan_and_for_a_move(
    at: Person,
) -> None:
    said = await at.whimbrel("plan", "db", "--to", "b", *MULTINIC, "--json")
    assert said.code == ExitCode.NO_PLAN, said.errors
    [check] = [each for each in said.json["checks"] if each["name"] == "several NICs"]
    assert check["result"] == "fail"
    assert "ip mptcp endpoint add 10.99.1.2 port 9099 signal   # on b" in check["remedy"]
    before = await settings(at)
    words = ("--prepare-network", "--survey", "quick", "--json")
    said = await at.whimbrel("plan", "db", "--to", "b", *words)
    assert said.code == ExitCode.DONE, said.errors
    assert said.json["chosen"]["tuning"]["multipath"]
    link = said.json["survey"]["survey"]["link"]
    one, together = (dict(each["goodput"])[1] for each in (link, link["multipath"]))
    assert together > 1.3 * one
    assert await settings(at) == before
    await loses_one_nic_in_mid_move_and_is_only_slowed(at, 1)


async def test_the_nic_that_the_connection_began_on_may_be_lost_as_well(at: Person) -> None:
    await loses_one_nic_in_mid_move_and_is_only_slowed(at, 0)


async def loses_one_nic_in_mid_move_and_is_only_slowed(at: Person, lost: int) -> None:
    before, began = await settings(at), sent(at)
    move = ("move", "db", "--to", "b", *MULTINIC, "--prepare-network")
    moving = await at.started(*move)
    await at.until_step("db", "sending")
    async with asyncio.timeout(60):
        while min(now - was for now, was in zip(sent(at), began, strict=True)) < 4 * MIB:  # noqa: ASYNC110 - the kernel counts
            await asyncio.sleep(0.05)
    at.far.cut_link(lost)
    _, errors = await asyncio.wait_for(moving.communicate(), 120)
    assert moving.returncode == ExitCode.DONE, errors.decode()
    assert await at.places("db") == ["b"]
    assert await at.intact("db", "b") == LOAD.fill // 4096
    assert min(now - was for now, was in zip(sent(at), began, strict=True)) > 4 * MIB
    at.far.restore_link(lost)
    assert await settings(at) == before


async def test_what_a_killed_whimbrel_set_up_is_taken_back_by_recover(at: Person) -> None:
    before = await settings(at)
    moving = await at.started("move", "db", "--to", "b", *MULTINIC, "--prepare-network")
    await at.until_step("db", "sending")
    moving.kill()
    await moving.wait()
    assert await settings(at) != before
    said = await at.whimbrel("recover")
    assert said.code == ExitCode.DONE, said.errors
    assert "taken back" in said.output
    assert await settings(at) == before

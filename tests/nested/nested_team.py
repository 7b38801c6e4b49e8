"""Moves over a team of NICs, by the real command on nested hosts; run by ./run test-nested.

A bond gives each connection to one NIC. One stream gets the rate of one, several get more: each
wire is shaped to what the emulated cores carry several times, so that the wires decide. How many
times faster that is stands in the output (pytest -s) and is not judged: others may use the cores.
"""

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nested.person import Person, person
from whimbrel.lab.nested import team
from whimbrel.lab.nested.hosts import nested_hosts
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000)]

FILL = 8 * MIB
MOVE = ("--survey", "none", "--max-downtime", "5 s", "--json")
SEVERAL = ("--method", "multichannel", "--channels", "8")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    """Somebody with a filled guest on a, and a team of two NICs at both hosts, by LACP."""
    folder = tmp_path_factory.mktemp("person")
    async with nested_hosts("a", "b", wires=2) as nested:
        await team.join(list(nested.values()))
        async with person(nested, "a", "b", folder=folder) as someone:
            await someone.up("db", on="a", load=Load(fill=FILL, pattern=Pattern.RANDOM))
            yield someone


async def test_both_ends_agree_by_lacp_on_one_aggregate_of_both_wires(at: Person) -> None:
    a, b = [await team.aggregate(at.hosts[name]) for name in ("a", "b")]
    for seen in (a, b):
        assert "802.3ad" in seen.mode
        assert set(seen.members) == set(team.NICS)
        assert set(seen.members.values()) == {seen.active}
    theirs = await at.hosts["b"].run("cat", "/sys/class/net/team0/address")
    assert a.partner == theirs.strip()
    assert b.partner != a.partner


async def test_over_lacp_several_channels_use_both_nics_and_one_stream_keeps_to_one(
    at: Person,
) -> None:
    one, alone = await moved(at, "a", "b", "--method", "tcp")
    several, spread = await moved(at, "b", "a", *SEVERAL)
    assert max(alone) > 0.9 * sum(alone)
    assert min(spread) > 0.25 * sum(spread)
    assert await at.intact("db", on="a") == FILL // 4096
    said = f"one stream {one:.1f} s, eight channels {several:.1f} s: {one / several:.2f} times"
    sys.stdout.write(f"\nOver a team of two NICs (802.3ad), emulated: {said}\n")


async def test_over_a_team_that_only_hashes_several_channels_use_both_nics(at: Person) -> None:
    hosts = [at.hosts[name] for name in ("a", "b")]
    await team.part(hosts)
    await team.join(hosts, team.Mode.XOR)
    _, spread = await moved(at, "a", "b", *SEVERAL)
    assert min(spread) > 0.25 * sum(spread)
    assert await at.intact("db", on="b") == FILL // 4096


async def moved(at: Person, source: str, destination: str, *how: str) -> tuple[float, list[int]]:
    """Move the guest; return the seconds, and what each NIC of the source has sent."""
    before = await team.sent(at.hosts[source])
    said = await at.done("move", "db", "--to", destination, *how, *MOVE)
    after = await team.sent(at.hosts[source])
    assert await at.places("db") == [destination]
    return said.json["observed"]["total_time"], [b - a for a, b in zip(before, after, strict=True)]

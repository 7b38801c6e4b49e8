"""Moves over a team of NICs, by the real command on nested hosts; run by ./run test-nested.

A bond gives each connection to one NIC. One stream gets the rate of one, several get more.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nested import team
from nested.hosts import nested_hosts
from nested.person import Person, person
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3000)]

FILL = 8 * MIB
MOVE = ("--survey", "none", "--max-downtime", "5 s", "--json")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    """Somebody with a filled guest on a, and a team of two NICs at both hosts."""
    folder = tmp_path_factory.mktemp("person")
    async with nested_hosts("a", "b", wires=2) as nested:
        await asyncio.gather(*(team.join(host) for host in nested.values()))
        async with person(nested, "a", "b", folder=folder) as someone:
            await someone.up("db", on="a", load=Load(fill=FILL, pattern=Pattern.RANDOM))
            yield someone


async def test_several_channels_use_both_nics_where_one_stream_stays_on_one(at: Person) -> None:
    one, alone = await moved(at, "a", "b", "--method", "tcp")
    several, spread = await moved(at, "b", "a", "--method", "multichannel", "--channels", "8")
    assert max(alone) > 0.9 * sum(alone)
    assert min(spread) > 0.15 * sum(spread)
    assert await at.intact("db", on="a") == FILL // 4096
    said = f"one stream {one:.1f} s, eight channels {several:.1f} s: {one / several:.2f} times"
    sys.stdout.write(f"\nOver a team of two NICs, emulated: {said}\n")


async def moved(at: Person, source: str, destination: str, *how: str) -> tuple[float, list[int]]:
    """Move the guest; return the seconds, and what each NIC of the source has sent."""
    before = await team.sent(at.hosts[source])
    said = await at.done("move", "db", "--to", destination, *how, *MOVE)
    after = await team.sent(at.hosts[source])
    assert await at.places("db") == [destination]
    return said.json["observed"]["total_time"], [b - a for a, b in zip(before, after, strict=True)]

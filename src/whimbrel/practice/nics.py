"""Several NICs for one connection (MPTCP): set up on both hosts for a move, and taken back.

    async with several_nics(source, destination, vm, addresses) as done:
        …                            connections to the first address spread over all of them

What it was before stands on each host (sites/onsite/mptcp.py), so that a whimbrel that is killed
leaves nothing for good: the next one, or `whimbrel recover`, takes it back.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.preflight import MptcpFacts
from whimbrel.ports import Site


async def mptcp_facts(site: Site) -> MptcpFacts:
    """Return how a host's MPTCP is set; raises `HostError`."""
    answer = await site.ask("mptcp_facts")
    return MptcpFacts(
        known=answer["known"],
        enabled=answer["enabled"],
        subflows=answer["subflows"],
        accepted=answer["accepted"],
        announced=frozenset(answer["announced"]),
    )


@asynccontextmanager
async def several_nics(
    source: Site, destination: Site, vm: str, addresses: Sequence[str]
) -> AsyncIterator[dict[str, list[str]]]:
    """Let connections from one host to another use further NICs while the block runs.

    Args:
        source: Where guests leave.
        destination: Where they go.
        vm: For whose move.
        addresses: The destination's addresses on the further NICs.

    Yields:
        The commands that were carried out on each host, by its name.

    Raises:
        HostError: One of them refuses; both are as they were before.
    """
    done: dict[str, list[str]] = {}
    try:
        for site, announced in ((source, ()), (destination, tuple(addresses))):
            done[site.name] = await _prepared(site, vm, len(addresses), announced)
        yield done
    finally:
        await asyncio.gather(*(_released(site, vm) for site in (source, destination)))


async def sweep_nics(sites: Iterable[Site]) -> dict[str, list[str]]:
    """Take back what whimbrels that died had set up; return the commands by host.

    A host that does not answer is left out.
    """
    chosen = list(sites)
    done = await asyncio.gather(*(_released(site) for site in chosen))
    return {site.name: each for site, each in zip(chosen, done, strict=True) if each}


async def _prepared(site: Site, vm: str, paths: int, announced: Sequence[str]) -> list[str]:
    try:
        done = await site.ask(
            "mptcp_prepare", folder=site.folder, vm=vm, paths=paths, announce=list(announced)
        )
    except CommandRefused as error:
        raise HostError(
            f"{site.name} cannot be prepared for several NICs: {error.what.rstrip('.')}. "
            "Both hosts are as they were.",
            "It takes Linux 5.18 or newer, the program ip, and root on both hosts.",
        ) from error
    return [str(each) for each in done]


async def _released(site: Site, vm: str = "") -> list[str]:
    with suppress(HostError):  # the next whimbrel that comes there takes it back
        done = await site.ask("mptcp_release", folder=site.folder, vm=vm, within=10.0)
        return [str(each) for each in done]
    return []

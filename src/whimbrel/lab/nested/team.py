"""Two wires of nested hosts joined to one team at both ends: bonding, by LACP or by hash alone.

    802.3ad       both ends agree by LACP that their wires are one aggregate
    balance-xor   each end believes it by itself

Both hash by layer 3 and 4: each connection keeps to one wire, and several spread over both. Each
wire carries no more than its rate, which is little: it must be the wires and not the emulated cores
that decide, or what two of them bring cannot be seen.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from whimbrel.errors import LabError
from whimbrel.lab.nested.hosts import NestedHost

NAME = "team0"
NICS = ("eth1", "eth2")

RATE = 1.25e6
"""Bytes per second of each wire: 10 Mbit/s, of which an emulated core carries several times."""

AGREES_WITHIN = 120.0
"""Seconds; the slow LACP speaks every 30 s, but answers at once what it hears."""

_NOBODY = "00:00:00:00:00:00"


class Mode(StrEnum):
    """How a team's ends come to be one."""

    LACP = "802.3ad"
    XOR = "balance-xor"


@dataclass(frozen=True)
class Aggregate:
    """What a host's kernel says of its team (/proc/net/bonding).

    Attributes:
        mode: The bonding mode in its words.
        partner: MAC address of the system at the other end; empty: none was heard, or the mode
            has none.
        active: Number of the aggregator in use; None: the mode has none.
        members: The aggregator that each NIC belongs to, by NIC.
    """

    mode: str
    partner: str
    active: int | None
    members: dict[str, int | None]

    @property
    def whole(self) -> bool:
        """Whether all NICs are in the one aggregate that a partner has agreed to."""
        ours = set(self.members.values())
        return len(self.members) == len(NICS) and bool(self.partner) and ours == {self.active}


async def join(
    hosts: Sequence[NestedHost], mode: Mode = Mode.LACP, rate: float | None = RATE
) -> None:
    """Join eth1 and eth2 of both ends under eth1's address; their one link is the team's.

    Args:
        hosts: Both ends.
        mode: How.
        rate: Bytes per second of each wire; None: as much as the emulated cores carry.

    Raises:
        LabError: The kernel has no bonding, or LACP does not agree.
    """
    await asyncio.gather(*(_joined(host, mode, rate) for host in hosts))
    if mode is Mode.LACP:
        await asyncio.gather(*(_agreed(host) for host in hosts))


async def part(hosts: Sequence[NestedHost]) -> None:
    """Take the teams apart again; their wires have no addresses and no rates afterwards."""
    for host in hosts:
        await host.run("ip", "link", "delete", NAME)
        for nic in NICS:
            await host.tried("tc", "qdisc", "delete", "dev", nic, "root")


async def aggregate(host: NestedHost) -> Aggregate:
    """Return what a host's kernel says of its team."""
    return aggregate_from(await host.run("cat", f"/proc/net/bonding/{NAME}"))


async def sent(host: NestedHost) -> list[int]:
    """Return the bytes that each NIC of the team has sent."""
    files = [f"/sys/class/net/{nic}/statistics/tx_bytes" for nic in NICS]
    return [int(line) for line in (await host.run("cat", *files)).split()]


def aggregate_from(text: str) -> Aggregate:
    """Read /proc/net/bonding/NAME (bond_procfs.c)."""
    whole, *members = re.split(r"^Slave Interface: ", text, flags=re.MULTILINE)
    partner = _first(r"Partner Mac Address: (\S+)", whole)
    return Aggregate(
        mode=_first(r"Bonding Mode: (.+)", whole),
        partner="" if partner == _NOBODY else partner,
        active=_number(whole),
        members={each.split(None, 1)[0]: _number(each) for each in members},
    )


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _number(text: str) -> int | None:
    found = _first(r"Aggregator ID: (\d+)", text)
    return int(found) if found else None


async def _joined(host: NestedHost, mode: Mode, rate: float | None) -> None:
    await host.run("modprobe", "bonding", "max_bonds=0")
    await host.run("modprobe", "sch_tbf")
    kind = ["type", "bond", "mode", mode.value, "xmit_hash_policy", "layer3+4", "miimon", "100"]
    # An emulated host may stand still for longer than the 3 s that fast LACP waits.
    slow = ["lacp_rate", "slow"] if mode is Mode.LACP else []
    await host.run("ip", "link", "add", NAME, *kind, *slow)
    for nic in NICS:
        await host.run("ip", "link", "set", nic, "down")
        await host.run("ip", "address", "flush", "dev", nic)
        if rate is not None:
            bits = f"{round(rate * 8)}bit"
            shape = ["tbf", "rate", bits, "burst", "64k", "latency", "200ms"]
            await host.run("tc", "qdisc", "replace", "dev", nic, "root", *shape)
        await host.run("ip", "link", "set", nic, "master", NAME)
    await host.run("ip", "address", "add", host.wires[0].address, "dev", NAME)
    await host.run("ip", "link", "set", NAME, "up")
    host.host = replace(host.host, links=host.host.links[:1])


async def _agreed(host: NestedHost) -> None:
    """Wait until LACP has made one aggregate of all NICs."""
    seen: Aggregate | None = None
    try:
        async with asyncio.timeout(AGREES_WITHIN):
            while not (seen := await aggregate(host)).whole:  # noqa: ASYNC110 - it is far away
                await asyncio.sleep(1)
    except TimeoutError as error:
        raise LabError(
            f"The wires of {host.host.name} have not become one by LACP within "
            f"{AGREES_WITHIN:.0f} s: {seen}."
        ) from error

"""What hosts tell of their RDMA devices: of the NIC that a move goes by, and of its rate."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from whimbrel.model.preflight import RdmaFacts
from whimbrel.ports import Site

RDMA_PAYLOAD = 0.94
"""Share of a device's rate that is payload: RoCE v2 takes 82 bytes around each 1024 or more."""


async def rdma_facts(site: Site, address: str) -> RdmaFacts:
    """Return the devices of a host, and its NIC on the way to an address; sends nothing.

    Asked for an address of its own, a host tells the NIC that has it.

    Raises:
        HostError: The host cannot be asked, or has no way there.
    """
    own, interfaces, ports = await asyncio.gather(
        site.ask("link_route", address=address), site.ask("interfaces"), site.ask("rdma_ports")
    )
    devices = {port["device"] for port in ports}
    return RdmaFacts(
        address=own,
        interface=interface_of(interfaces, own),
        nics={each: _reached(ports, each) for each in sorted(devices)},
        active=frozenset(port["device"] for port in ports if port["active"]),
    )


def _reached(ports: Sequence[Mapping[str, Any]], device: str) -> frozenset[str]:
    own = (port["interfaces"] for port in ports if port["device"] == device)
    return frozenset(name for names in own for name in names)


def interface_of(interfaces: Mapping[str, Any], address: str) -> str:
    """Return the NIC that has an address, of the answer to `interfaces`; empty: none has."""
    for name, one in interfaces.items():
        if address in {each.partition("/")[0] for each in one["addresses"]}:
            return name
    return ""


def rdma_rate(
    ports: Sequence[Mapping[str, Any]], interfaces: Mapping[str, Any], address: str
) -> float | None:
    """Return the bytes per second of payload by RDMA over the NIC that has an address.

    None where it has no active device, or one that is emulated and says nothing of its rate.
    """
    interface = interface_of(interfaces, address)
    for port in ports:
        mine = interface in port["interfaces"]
        if mine and port["active"] and not port["software"] and port["rate"]:
            return float(port["rate"]) * RDMA_PAYLOAD
    return None

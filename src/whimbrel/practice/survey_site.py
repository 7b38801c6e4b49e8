"""The survey's probes of hosts that whimbrel does not run on, and of the link between two.

SiteHost   facts, idle time, what memory costs there    practice.survey.HostProbe
SiteLink   goodput from one host to another              practice.survey.LinkProbe
"""

import asyncio
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.memory import HostProfile
from whimbrel.model.survey import HostFacts, LinkReading
from whimbrel.model.tls import FFDHE2048
from whimbrel.ports import Site
from whimbrel.practice.rdma import rdma_rate
from whimbrel.practice.survey_host import Idle, Shortenings, ciphered, facts_from, profile_from

WARM_UP = 0.2
"""Seconds of a probe that are thrown away: slow start, and what the buffers take."""

SPREAD = 0.008
"""Relative error of a probe at least, however alike its parts are: it is not the move itself."""

_LONGER = 60.0
"""Seconds that a probe may take longer than it measures."""


@cache
def _sample() -> bytes:
    """Return what both machines compress to compare their cores: it shrinks, but not to nothing."""
    return bytes(number * number % 251 & 0x3F for number in range(1 << 18))


class SiteHost:
    """The `HostProbe` of a host behind a site.

    Codecs are timed where whimbrel runs, on the guest's pages; their speeds are scaled by how
    fast this host compresses a sample that both know.

    Args:
        site: The host.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    async def idle(self) -> Idle:
        """See `HostProbe.idle`."""
        told = await self._site.ask("idle")
        return Idle(float(told["at"]), float(told["idle"]))

    async def facts(self) -> HostFacts:
        """See `HostProbe.facts`."""
        return facts_from(await self._site.ask("facts"))

    async def cost(self, base: HostProfile, shortened: Shortenings, touched: int) -> HostProfile:
        """See `HostProbe.cost`."""
        told = await self._site.ask("cost", touched=touched, sample=_sample())
        here = await asyncio.to_thread(_deflating) if shortened else 0.0
        profile = profile_from(base, told, shortened, here)
        return ciphered(profile, await self._site.ask("cipher", group=FFDHE2048))


@dataclass(frozen=True)
class Carried:
    """What the source's interfaces on the way have carried since they came up.

    Attributes:
        at: Seconds of the source's clock.
        received: Bytes.
        sent: Bytes.
        nominal: Bytes per second that they say they carry, together; None: one does not say.
    """

    at: float
    received: int
    sent: int
    nominal: float | None

    def others(self, later: "Carried") -> float:
        """Return the bytes per second that went meanwhile, the busier direction."""
        seconds = max(later.at - self.at, 1e-3)
        return max(later.received - self.received, later.sent - self.sent) / seconds


class SiteLink:
    """The `LinkProbe` from one host to another; counts others' traffic from when it is made.

    Make it with `between`.
    """

    def __init__(
        self, source: Site, destination: Site, address: str, ways: Sequence[str], before: Carried
    ) -> None:
        self._source, self._destination, self._address = source, destination, address
        self._ways, self._before = ways, before
        self._mptcp = len(ways) > 1

    @classmethod
    async def between(
        cls,
        source: Site,
        destination: Site,
        address: str,
        *,
        further: Sequence[str] = (),
    ) -> Self:
        """Return the probe of the way from `source` to a migration address of `destination`.

        Args:
            source: Where guests come from.
            destination: Where they go.
            address: The address on which `destination` shall listen.
            further: Its addresses on further NICs that MPTCP spreads a connection over; with
                any, the probe's connections are MPTCP's.

        Raises:
            HostError: A host cannot be asked, or the source has no way there.
        """
        addresses = (address, *further)
        try:
            ways = [await source.ask("link_route", address=each) for each in addresses]
        except CommandRefused as error:
            raise HostError(
                f"{source.name} has no way to {address} on {destination.name}: {error.what}",
                "See whether both hosts' migration addresses are in one network.",
            ) from error
        return cls(source, destination, address, ways, await _carried(source, ways))

    async def with_further(self, further: Sequence[str]) -> "SiteLink":
        """Return the probe of this way and others together, over MPTCP."""
        return await SiteLink.between(
            self._source, self._destination, self._address, further=further
        )

    async def probe(self, streams: Sequence[int], seconds: float) -> LinkReading:
        """See `LinkProbe.probe`; raises `HostError` when the link does not carry it."""
        now = await _carried(self._source, self._ways)
        found = {count: await self._measured(count, seconds) for count in streams}
        return LinkReading(
            goodput={count: one["received"] / one["seconds"] for count, one in found.items()},
            latency=min(one["latency"] for one in found.values()),
            error=max(SPREAD, *(one["spread"] for one in found.values())),
            nominal=now.nominal,
            other_traffic=self._before.others(now),
            in_flight={count: one["buffered"] for count, one in found.items()},
            rdma=await self._rdma(),
            notes=() if self._mptcp else bonds(await self._source.ask("interfaces"), self._ways[0]),
        )

    async def _rdma(self) -> float | None:
        """Return what the RDMA devices on the way carry; None where one end has none."""
        ends = ((self._source, self._ways[0]), (self._destination, self._address))
        rates = [
            rdma_rate(await site.ask("rdma_ports"), await site.ask("interfaces"), address)
            for site, address in ends
        ]
        known = [rate for rate in rates if rate is not None]
        return min(known) if len(known) == len(ends) else None

    async def _measured(self, streams: int, seconds: float) -> dict[str, float]:
        settings: dict[str, Any] = {
            "address": self._address,
            "streams": streams,
            "seconds": seconds,
            "warm_up": WARM_UP,
            "mptcp": self._mptcp,
            "as_qemu": True,
        }
        try:
            there = await self._destination.ask("link_listen", **settings)
        except CommandRefused as error:
            raise HostError(
                f"{self._destination.name} cannot listen on {self._address}: {error.what}",
                "The address must be one of its own; see its links in whimbrel.toml.",
            ) from error
        try:
            return await self._transferred(settings, there, seconds + _LONGER)
        except CommandRefused as error:
            raise HostError(
                f"The link from {self._source.name} to {self._address} on "
                f"{self._destination.name} cannot be measured: {error.what}",
                "See whether the link is up and no firewall stands between the hosts.",
            ) from error
        finally:
            with suppress(HostError):  # it gives up by itself, and what failed before counts
                await self._destination.ask("link_end", key=there["key"])

    async def _transferred(
        self, settings: dict[str, Any], there: Mapping[str, Any], within: float
    ) -> dict[str, float]:
        """Send and count; when either end fails the other is not waited for."""
        key, port = there["key"], there["port"]
        ends = [
            self._source.ask("link_send", within=within, key=key, port=port, **settings),
            self._destination.ask("link_counted", within=within, key=key),
        ]
        asked = [asyncio.ensure_future(end) for end in ends]
        try:
            sent, counted = await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()
            await asyncio.wait(asked)
        return {**sent, **counted}


async def _carried(site: Site, addresses: Sequence[str]) -> Carried:
    interfaces = await site.ask("interfaces")
    counters = await site.ask("counters")
    return carried_from(interfaces, counters, addresses)


def bonds(interfaces: Mapping[str, Any], address: str) -> tuple[str, ...]:
    """Say that an address is reached over a bond, where it is: a sentence, or none.

    A bond gives each connection to one of its NICs. So several channels spread over them by
    themselves, if it hashes by ports, and MPTCP has nothing to add.
    """
    for name, one in interfaces.items():
        if address not in {each.partition("/")[0] for each in one["addresses"]}:
            continue
        within = [each for each, it in interfaces.items() if it["master"] == name]
        found = [each for each in (name, *within) if interfaces[each]["kind"] == "bond"]
        for bond in found:
            count = sum(it["master"] == bond for it in interfaces.values())
            said = (
                f"The way leads over {bond}, a bond of {count} NICs: multichannel spreads over "
                "them by itself where it hashes by ports (layer3+4); one stream stays on one."
            )
            return (said,)
    return ()


def carried_from(
    interfaces: Mapping[str, Any], counters: Mapping[str, Any], addresses: Sequence[str]
) -> Carried:
    """Read two answers for the interfaces that have some of the addresses."""
    wanted = set(addresses)
    ours = [
        name
        for name, one in interfaces.items()
        if wanted & {each.partition("/")[0] for each in one["addresses"]}
    ]
    rates = [interfaces[name]["rate"] for name in ours]
    known = bool(rates) and None not in rates
    counted = [counters["interfaces"][name] for name in ours]
    return Carried(
        at=float(counters["at"]),
        received=sum(int(each["received"]) for each in counted),
        sent=sum(int(each["sent"]) for each in counted),
        nominal=float(sum(rates)) if known else None,
    )


def _deflating() -> float:
    """Return the bytes per second that a core here takes of the sample; the best of three."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        zlib.compress(_sample(), 1)
        times.append(time.thread_time() - began)
    return len(_sample()) / max(min(times), 1e-9)

"""`--leave`: a share of the NICs stays for others while a guest is on its way.

    counters of both hosts, a few times per second ──► theory.sharing ──► the migration's limit

Storage that travels beside memory is not limited here, and counts as somebody else's traffic.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whimbrel.errors import CommandRefused, ConfigError, HostError, ProtocolError, WhimbrelError
from whimbrel.model.migration import Decision, Observation, SetBandwidthLimit
from whimbrel.model.wording import listed
from whimbrel.ports import Site
from whimbrel.practice.attend import Afoot
from whimbrel.theory.sharing import Counted, Sharing, Traffic
from whimbrel.theory.windows import to_tell

EVERY = 0.25
"""Seconds from one look at the counters to the next."""

ANSWER_WITHIN = 5.0
"""Seconds after which a host that does not tell its counters is given up."""


@dataclass(frozen=True)
class End:
    """One host's interfaces on the way of a move: one, or those that MPTCP joins.

    Attributes:
        site: The host.
        interfaces: Their names there, such as "eth0".
        rate: What they carry each way, all together, bytes per second.
        receives: Whether the guest comes in here (the destination) or goes out (the source).
    """

    site: Site
    interfaces: tuple[str, ...]
    rate: float
    receives: bool

    async def counted(self) -> Counted:
        """Return the bytes that went through in the move's direction, the move's own included.

        Raises:
            HostError: The host cannot be asked, or does not have an interface.
        """
        answer = await self.site.ask("counters", within=ANSWER_WITHIN)
        return counted_in(answer, self.interfaces, receives=self.receives)


async def ends_between(
    source: Site,
    destination: Site,
    address: str,
    rates: tuple[float | None, float | None] = (None, None),
) -> tuple[End, End]:
    """Return the interfaces that a move to an address goes through, at both hosts.

    Args:
        source: The host the guest leaves.
        destination: The host it goes to.
        address: The migration address there.
        rates: What the interface carries at the source and at the destination, bytes per
            second; None where the host's own word is taken.

    Raises:
        HostError: A host cannot be asked, or the address is not one of the destination's.
        ConfigError: Nobody knows what an interface carries.
    """
    there, own = await asyncio.gather(
        destination.ask("interfaces"), source.ask("link_route", address=address)
    )
    here = await source.ask("interfaces")
    return (
        end_with(source, here, (own,), rates[0], receives=False),
        end_with(destination, there, (address,), rates[1], receives=True),
    )


def end_with(
    site: Site,
    interfaces: Mapping[str, Any],
    addresses: Sequence[str],
    rate: float | None,
    *,
    receives: bool,
) -> End:
    """Return the end with these addresses, from a host's answer to the question `interfaces`.

    Raises:
        HostError: The host does not have one of the addresses.
        ConfigError: `rate` is None, and the host does not know it either.
    """
    names = tuple(_named(site, interfaces, address) for address in addresses)
    told = [interfaces[name]["rate"] for name in names]
    if rate is None and None in told:
        raise ConfigError(
            f"{site.name}: nobody knows the rate of {listed(names)}, so no share of it "
            "can be left.",
            'Name it in whimbrel.toml, under [[hosts.NAME.links]]: rate = "1 Gbit/s".',
        )
    return End(site, names, sum(told) if rate is None else rate, receives)


def _named(site: Site, interfaces: Mapping[str, Any], address: str) -> str:
    for name, one in interfaces.items():
        if address in {each.partition("/")[0] for each in one["addresses"]}:
            return name
    raise HostError(f"{site.name} has no interface with the address {address}.")


def counted_in(answer: Mapping[str, Any], interfaces: Sequence[str], *, receives: bool) -> Counted:
    """Read the counters of interfaces in the answer of the question `counters`.

    Raises:
        ProtocolError: One is not there.
    """
    way = "received" if receives else "sent"
    try:
        figures = [int(answer["interfaces"][name][way]) for name in interfaces]
        return Counted(float(answer["at"]), sum(figures))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"The counters of {listed(interfaces)} are not told.") from error


class Leave:
    """The `Attendant` that keeps a share of the NICs free for others.

    Args:
        left: The share that stays for others, 0.01 to 0.95.
        ends: The interfaces that the move goes through.
        told: Hears each new limit with its reason.
        lost: Hears why the counters can no longer be followed; the last limit then stays.
        most: What the move may send in any case, bytes per second; None for no such limit.
        channels: Number of multifd channels; None for a plain stream.
    """

    def __init__(
        self,
        left: float,
        ends: Sequence[End],
        *,
        told: Callable[[Decision], None],
        lost: Callable[[WhimbrelError], None],
        most: float | None = None,
        channels: int | None = None,
    ) -> None:
        self._channels = channels
        if not ends:
            raise ConfigError("No interface was named of which a share could be left.")
        self._ends = tuple(ends)
        self._told = told
        self._lost = lost
        self._sharing = Sharing(left, [end.rate for end in ends], most)

    @property
    def limit(self) -> float:
        """What the hypervisor is told now, bytes per second: `send` with this limit."""
        return self._sharing.told

    async def attend(self, afoot: Afoot) -> None:
        """See `Attendant.attend`; nothing is to undo, since a limit ends with its migration."""
        clock = asyncio.get_running_loop().time
        began = clock()
        await self._apply(afoot, self._sharing.begin(0.0))
        while True:
            await asyncio.sleep(EVERY)
            seen = afoot.latest()
            if seen is None:
                continue
            ends = await asyncio.gather(*(end.counted() for end in self._ends))
            traffic = Traffic(clock() - began, _own(seen), tuple(ends))
            decision = self._sharing.hear(traffic)
            if decision is not None:
                await self._apply(afoot, decision)

    async def _apply(self, afoot: Afoot, decision: Decision) -> None:
        action = decision.action
        if isinstance(action, SetBandwidthLimit) and action.rate is not None:
            # What the hypervisor sends beyond a limit is taken off before it could be seen.
            action = SetBandwidthLimit(to_tell(action.rate, self._channels))
        try:
            await afoot.migration.apply(action)
        except CommandRefused:
            return  # the move was quicker
        self._told(decision)

    def failed(self, error: WhimbrelError) -> None:
        """See `Attendant.failed`."""
        what = f"The NICs can no longer be followed; the limit stays as it is. {error.what}"
        self._lost(HostError(what, error.hint))


def _own(seen: Observation) -> Counted:
    return Counted(seen.at, seen.transferred)

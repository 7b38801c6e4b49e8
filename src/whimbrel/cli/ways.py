"""The NICs between two hosts, and what a move may take of them where others use them as well.

config ──► links in common ──► further NICs ──► MPTCP set up for the move, where asked
                   │
                   └─► interfaces at both ends, what they carry
                         └─ --leave, other moves under way ──► the move's share
"""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from whimbrel.cli.session import Session
from whimbrel.errors import ConfigError, HostError
from whimbrel.model.check import Check, passed, warned
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.model.units import format_link
from whimbrel.practice.leave import End, end_with
from whimbrel.practice.marks import Mark, marks_on
from whimbrel.practice.nics import several_nics, sweep_nics
from whimbrel.theory.sharing import portion


def link_to(source: Host, destination: Host) -> MigrationLink:
    """Return the destination's link that a move from the source should use.

    The first that lies in a network in which the source has a link too; else the first.

    Raises:
        ConfigError: The destination has none.
    """
    if not destination.links:
        raise ConfigError(
            f"No migration address of {destination.name} is known.",
            f'Name it: [[hosts.{destination.name}.links]] address = "10.0.0.2"',
        )
    alike = [each for each in destination.links if towards(source, each)]
    return (alike or list(destination.links))[0]


def further_links(
    source: Host, destination: Host, link: MigrationLink
) -> tuple[MigrationLink, ...]:
    """Return the destination's links beside the first that MPTCP can spread connections over.

    Each lies in a network of its own, in which the source has a link too: within one network
    the kernel would send everything through one NIC.
    """
    seen = {network_of(link.address)}
    found = []
    for each in destination.links if towards(source, link) else ():
        network = network_of(each.address)
        if network not in seen and towards(source, each):
            seen.add(network)
            found.append(each)
    return tuple(found)


def towards(source: Host, link: MigrationLink) -> list[MigrationLink]:
    """Return the source's links in the same small network as one of the destination's.

    A guess by the address (a /24, or a /64): whether there really is a way is checked later.
    """
    return [each for each in source.links if network_of(each.address) == network_of(link.address)]


def network_of(address: str) -> object:
    """Return the small network that an address is taken to lie in."""
    try:
        prefix = 24 if ipaddress.ip_address(address).version == 4 else 64  # noqa: PLR2004 - IPv4
        return ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    except ValueError:
        return address


async def prepare_network(
    session: Session, pair: tuple[Host, Host], vm: str, further: Sequence[MigrationLink]
) -> None:
    """Set MPTCP up on both hosts until the session ends.

    Raises:
        ConfigError: There is no further NIC to set it up for.
        HostError: A host refuses; both are as they were.
    """
    source, destination = pair
    if not further:
        raise no_further(source, destination)
    sites = session.site(source.name), session.site(destination.name)
    await session.hold(several_nics(*sites, vm, [each.address for each in further]))


async def take_back(session: Session, names: Iterable[str], tell: Callable[[str], object]) -> None:
    """Take back what whimbrels that died have set up for several NICs, and tell of it."""
    for name, commands in (await sweep_nics(session.shells(names))).items():
        tell(f"{name}: taken back what a whimbrel that died had set up: {'; '.join(commands)}")


def no_further(source: Host, destination: Host) -> ConfigError:
    """Return the error that several NICs are asked for and one is known."""
    return ConfigError(
        f"{source.name} and {destination.name} are known to share one NIC only.",
        f"Name the others of both hosts, each in a network of its own: [[hosts.{source.name}"
        f".links]], [[hosts.{destination.name}.links]]",
    )


async def ends_of(
    session: Session, pair: tuple[Host, Host], links: Sequence[MigrationLink]
) -> tuple[End, End]:
    """Return the interfaces that a move over some links goes through, at both hosts.

    Raises:
        ConfigError: What one of them carries is not known.
        HostError: A host cannot be asked, or an address is not one of the destination's.
    """
    here, there = (session.site(each.name) for each in pair)
    addresses = [each.address for each in links]
    routes = [str(await here.ask("link_route", address=each)) for each in addresses]
    seen_here, seen_there = await asyncio.gather(here.ask("interfaces"), there.ask("interfaces"))
    known = [each.rate for each in links]
    rate = None if None in known else sum(each or 0.0 for each in known)
    return (
        end_with(here, seen_here, routes, rate, receives=False),
        end_with(there, seen_there, addresses, rate, receives=True),
    )


async def nics_of(
    session: Session, pair: tuple[Host, Host], link: MigrationLink
) -> tuple[str, str]:
    """Return the names of the NICs that a link joins, at the source and at the destination.

    Empty where a host has no NIC with the address.
    """
    here, there = (session.site(each.name) for each in pair)
    route = str(await here.ask("link_route", address=link.address))
    seen_here, seen_there = await asyncio.gather(here.ask("interfaces"), there.ask("interfaces"))
    return _with(seen_here, route), _with(seen_there, link.address)


async def nominal_rate(
    session: Session, pair: tuple[Host, Host], link: MigrationLink
) -> float | None:
    """Return the bytes per second that the interfaces of a link say they carry, the slower one.

    Asked is every end to which a shell leads; None where none says anything.
    """
    found = []
    for host, receives in zip(pair, (False, True), strict=True):
        site = session.shell(host.name)
        if site is None:
            continue
        with suppress(HostError):
            route = link.address
            if not receives:
                route = str(await site.ask("link_route", address=link.address))
            seen = await site.ask("interfaces")
            found.append(seen[_with(seen, route)]["rate"] if _with(seen, route) else None)
    return min((float(each) for each in found if each), default=None)


def _with(interfaces: Mapping[str, Any], address: str) -> str:
    for name, one in interfaces.items():
        if address in {each.partition("/")[0] for each in one["addresses"]}:
            return name
    return ""


@dataclass(frozen=True)
class Share:
    """What a move may take of its link.

    Attributes:
        limit: Bytes per second; None: all of it.
        said: What a plan says of it; None: nothing.
    """

    limit: float | None = None
    said: Check | None = None


async def share_of(
    session: Session,
    pair: tuple[Host, Host],
    links: Sequence[MigrationLink],
    vm: str,
    left: float = 0.0,
) -> Share:
    """Return what others leave of a link: those to whom a share was promised, and other moves.

    Args:
        session: The hosts.
        pair: Source and destination.
        links: The links that are used.
        vm: Whose move it is.
        left: The share that stays for others.

    Raises:
        ConfigError: A share shall be left, and nobody knows what the link carries.
    """
    others = await moves_over(session, pair, links, vm)
    if not others and not left:
        return Share()
    try:
        ends = await ends_of(session, pair, links)
    except ConfigError as error:
        if left:
            raise
        return Share(said=warned("shared link", f"{_named(others)}. {error.what}", error.hint))
    rate = min(each.rate for each in ends)
    limit = portion(rate, left, len(others))
    words = f"{left:.0%} of {format_link(rate)} stays for others" if left else ""
    if others:
        each = f"1/{len(others) + 1} of " + ("the rest" if left else format_link(rate))
        words = ". ".join(filter(None, (words, f"{_named(others)}, so this one gets {each}")))
    said = passed("shared link", f"{words}: it is planned with {format_link(limit)}.")
    return Share(limit, said)


async def moves_over(
    session: Session, pair: tuple[Host, Host], links: Sequence[MigrationLink], vm: str
) -> list[Mark]:
    """Return the other moves under way from or to these hosts over the same networks.

    One that has not said its address yet counts; one whose whimbrel has died does not, nor one
    between hosts to which no shell leads.
    """
    try:
        return await moves_marked(session, pair, links, vm)
    except HostError:
        return []  # the preflight says what is wrong with that host


async def moves_marked(
    session: Session, pair: tuple[Host, Host], links: Sequence[MigrationLink], vm: str
) -> list[Mark]:
    """Return the same; raises `HostError` where a host does not tell."""
    sites = session.shells(each.name for each in pair)
    found = await asyncio.gather(*(marks_on(site) for site in sites))
    networks = {network_of(each.address) for each in links}
    moves = {
        mark.origin: mark
        for mark in (each for marks in found for each in marks)
        if mark.vm != vm
        and mark.alive is not False
        and mark.source != mark.destination
        and (not mark.host or network_of(mark.host) in networks)
    }
    return list(moves.values())


def _named(marks: Sequence[Mark]) -> str:
    names = ", ".join(sorted(mark.vm for mark in marks))
    return f"{names} {'is' if len(marks) == 1 else 'are'} on the way over this link as well"

"""One move as `plan` and `move` prepare it: who, from where to where, over what, how far.

    Asked + config ──► Journey ─┬─► preflight ──► checks
                                └─► survey, forecast ──► Plan      together: Planned

Nothing is changed on either host by anything here.
"""

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whimbrel.cli.asked import Asked, Looking, settings_of, wish_of
from whimbrel.cli.session import Session
from whimbrel.errors import ConfigError
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.hypervisors.qemu.compare import QemuExaminer
from whimbrel.model.check import Check, failed
from whimbrel.model.inventory import Host, MigrationAddress, MigrationLink, Vm
from whimbrel.model.memory import LinkProfile
from whimbrel.model.method import Settings
from whimbrel.model.overview import VmSeen
from whimbrel.model.plan import Wish
from whimbrel.model.record import MoveRecord
from whimbrel.model.survey import Depth
from whimbrel.ports import Machine
from whimbrel.practice.encryption import Refused, Ruling, ruled, secured
from whimbrel.practice.forecast import Foreseen, Outset, foresee
from whimbrel.practice.preflight import PreflightSubject, preflight
from whimbrel.practice.storage_places import DiskCopy, moved_vm, placed_copies
from whimbrel.practice.survey_site import SiteHost, SiteLink
from whimbrel.report.plan import Planned
from whimbrel.store import Store
from whimbrel.theory.calibrate import LAST
from whimbrel.theory.situation import Earlier

BY_HAND = "Start it with whimbrel up, from a file that describes it (docs/config.md)."
"""What to do about a VM whose command line cannot be built again elsewhere."""

UNKNOWN_LINK = LinkProfile({1: 1.25e8}, error=0.5)
"""What a link is taken for that was neither measured nor described: 1 Gbit/s, or thereabouts."""


@dataclass(frozen=True)
class Journey:
    """One move that was asked for, before anything is done about it.

    Attributes:
        session: The hosts.
        asked: What a person asked.
        machine: The guest's machine.
        source: The host it runs on, as described.
        destination: The host it shall run on, as described.
        here: The source's hypervisor.
        there: The destination's.
        link: The destination's migration link.
        address: Where the destination will listen; with a fresh key where it is encrypted.
        ruling: Whether it is encrypted, and why.
        wish: What is wanted, and the limits.
        settings: What holds for every method.
        copies: The disks that are copied along; all others must be seen by both hosts.
        arrival: The VM as the destination will build it; None: with the same paths.
    """

    session: Session
    asked: Asked
    machine: Machine
    source: Host
    destination: Host
    here: ResidentHost
    there: ResidentHost
    link: MigrationLink
    address: MigrationAddress
    ruling: Ruling
    wish: Wish
    settings: Settings
    copies: tuple[DiskCopy, ...] = ()
    arrival: Vm | None = None


async def begun(session: Session, asked: Asked) -> Journey:
    """Find the VM, both hosts and the way between them.

    Raises:
        ConfigError: A name is wrong, or no migration link is known.
        HostError: A host cannot be reached.
    """
    asked.check()
    destination = session.config.host(asked.to)
    seen = await session.find(asked.vm)
    source = session.config.host(seen.host)
    if source.name == destination.name:
        raise ConfigError(
            f"{asked.vm} runs on {source.name} already.", "Name another host with --to."
        )
    here, there = session.hypervisor(source.name), session.hypervisor(destination.name)
    link = link_to(source, destination)
    machine, able_here, able_there = await asyncio.gather(
        _machine(here, seen), here.capabilities(), there.capabilities()
    )
    policy = asked.encryption or session.config.policy.encryption
    used = [link, *_towards(source, link)]
    ruling = ruled(policy, used, able_here, able_there, method=asked.method)
    wish = wish_of(asked, session.config, source, destination)
    address = secured(MigrationAddress(link.address), ruling)
    copies = await _copies(machine, asked.storage)
    return Journey(
        session=session,
        asked=asked,
        machine=machine,
        source=source,
        destination=destination,
        here=here,
        there=there,
        link=link,
        address=address,
        ruling=ruling,
        wish=wish,
        settings=settings_of(asked, wish, encrypted=bool(address.key)),
        copies=copies,
        arrival=moved_vm(machine.vm, copies) if copies else None,
    )


async def _machine(here: ResidentHost, seen: VmSeen) -> Machine:
    """Return the VM, conducted from here; one that was started by hand is adopted."""
    if seen.socket is not None and seen.by_hand:
        return (await here.adopt(seen.socket)).machine
    return await here.find(seen.name)


async def _copies(machine: Machine, places: Sequence[str]) -> tuple[DiskCopy, ...]:
    """Return what is to be copied to where; nothing where no place was named."""
    if not places:
        return ()
    return placed_copies(machine.vm, await machine.storage().disks(), places)


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
    alike = [each for each in destination.links if _towards(source, each)]
    return (alike or list(destination.links))[0]


def _towards(source: Host, link: MigrationLink) -> list[MigrationLink]:
    """Return the source's links in the same small network as one of the destination's.

    A guess by the address (a /24, or a /64): whether there really is a way is checked later.
    """
    return [each for each in source.links if _network(each.address) == _network(link.address)]


def _network(address: str) -> object:
    try:
        prefix = 24 if ipaddress.ip_address(address).version == 4 else 64  # noqa: PLR2004 - IPv4
        return ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    except ValueError:
        return address


async def planned(
    journey: Journey, *, past: Sequence[MoveRecord]
) -> tuple[Planned, Foreseen | None]:
    """Check, survey and forecast one move.

    Args:
        journey: The move.
        past: Moves that are over, the oldest first.
    """
    checks = await checked(journey)
    foreseen = None
    if journey.asked.survey is not Looking.NONE:
        outset = await outset_of(journey, past)
        foreseen = await foresee(outset, np.random.default_rng())
    said = Planned(
        vm=journey.asked.vm,
        source=journey.source.name,
        destination=journey.destination.name,
        checks=checks,
        plan=foreseen.plan if foreseen else None,
        surveyed=foreseen.surveyed if foreseen else None,
        storage=foreseen.storage if foreseen else None,
    )
    return said, foreseen


async def checked(journey: Journey) -> tuple[Check, ...]:
    """Return every check of the preflight."""
    session = journey.session
    here, there = session.site(journey.source.name), session.site(journey.destination.name)
    subject = PreflightSubject(
        machine=journey.machine,
        source=here,
        destination=there,
        source_examiner=QemuExaminer(here),
        destination_examiner=QemuExaminer(there),
        address=journey.address,
        arrival=journey.arrival,
        copies=journey.copies,
    )
    found = await preflight(subject)
    reasons = journey.here.hindrances(journey.machine)
    found = (*found, *(failed("started by hand", why, BY_HAND) for why in reasons))
    if isinstance(journey.ruling, Refused):
        refusal = failed("encryption", journey.ruling.reason, journey.ruling.remedy)
        return (*found, refusal)
    return found


async def outset_of(journey: Journey, past: Sequence[MoveRecord]) -> Outset:
    """Return what a forecast is made from."""
    session = journey.session
    here, there = session.site(journey.source.name), session.site(journey.destination.name)
    link = await SiteLink.between(here, there, journey.address.host)
    known = journey.link.rate
    assumed = UNKNOWN_LINK if known is None else LinkProfile({1: known}, error=0.2)
    return Outset(
        machine=journey.machine,
        source=journey.here,
        destination=journey.there,
        here=SiteHost(here),
        there=SiteHost(there),
        link=link,
        assumed=assumed,
        version=(await journey.here.abilities()).version,
        wish=journey.wish,
        settings=journey.settings,
        method=journey.asked.method,
        depth=Depth(journey.asked.survey.value),
        past=past,
        earlier=_earlier(past, journey.asked.vm, time.time()),
        copies=journey.copies,
    )


def _earlier(past: Sequence[MoveRecord], vm: str, now: float) -> tuple[Earlier, ...]:
    """Return what surveys of the same guest found before."""
    return tuple(
        Earlier(now - each.began, each.survey.memory.dirty.write_rate)
        for each in past
        if each.vm == vm and each.survey is not None
    )


def remembered(source: str, destination: str) -> tuple[MoveRecord, ...]:
    """Return the last moves from one host to another, the oldest first; none without a store."""
    with Store.open(create=False) as store:
        found = store.moves(LAST, host=source)
    return tuple(
        each
        for each in sorted(found, key=lambda each: each.began)
        if (each.source, each.destination) == (source, destination)
    )

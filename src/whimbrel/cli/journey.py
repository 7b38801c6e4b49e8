"""One move as `plan` and `move` prepare it: who, from where to where, over what, how far.

    Asked + config ──► Journey ─┬─► preflight ──► checks
                                └─► survey, forecast ──► Plan      together: Planned

Nothing is changed on either host by anything here.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.cli.asked import Asked, Looking, settings_of, wish_of
from whimbrel.cli.bare import (
    assumed_between,
    bare_checks,
    bare_of,
    probe_of,
    refuse_what_needs_a_shell,
)
from whimbrel.cli.place import Place, refuse_unlike
from whimbrel.cli.session import Session
from whimbrel.cli.ways import (
    further_links,
    link_to,
    no_further,
    prepare_network,
    share_of,
    towards,
)
from whimbrel.errors import ConfigError
from whimbrel.model.check import Check, Result, failed
from whimbrel.model.inventory import Capability, Host, MigrationAddress, MigrationLink, Vm
from whimbrel.model.method import Method, Settings, Tuning, tuning_for
from whimbrel.model.plan import Rejection, Wish
from whimbrel.model.policy import Encryption
from whimbrel.model.record import MoveRecord
from whimbrel.model.survey import Depth
from whimbrel.ports import Machine
from whimbrel.practice.encryption import Refused, Ruling, credentials_between, ruled, secured
from whimbrel.practice.forecast import Foreseen, Outset, foresee
from whimbrel.practice.preflight import PreflightSubject, preflight
from whimbrel.practice.storage_places import DiskCopy, moved_vm, placed_copies
from whimbrel.practice.survey_assumed import said_of
from whimbrel.practice.survey_site import SiteLink
from whimbrel.report.plan import Planned
from whimbrel.store import Store
from whimbrel.theory.calibrate import LAST
from whimbrel.theory.checks.rdma import RDMA
from whimbrel.theory.sharing import parse_share
from whimbrel.theory.situation import Earlier


@dataclass(frozen=True)
class Journey:
    """One move that was asked for, before anything is done about it.

    Attributes:
        session: The hosts.
        asked: What a person asked.
        machine: The guest's machine.
        source: The host it runs on, as described.
        destination: The host it shall run on, as described.
        here: What runs VMs at the source.
        there: What runs them at the destination.
        link: The destination's migration link.
        address: Where the destination will listen; with a fresh key or the user's certificates
            where it is encrypted.
        ruling: Whether it is encrypted, and why.
        wish: What is wanted, and the limits.
        settings: What holds for every method.
        copies: The disks that are copied along; all others must be seen by both hosts.
        arrival: The VM as the destination will build it; None: with the same paths.
        further: The destination's links on further NICs that one connection may spread over.
        shared: What is said of a link that others use as well; None: nothing.
    """

    session: Session
    asked: Asked
    machine: Machine
    source: Host
    destination: Host
    here: Place
    there: Place
    link: MigrationLink
    address: MigrationAddress
    ruling: Ruling
    wish: Wish
    settings: Settings
    copies: tuple[DiskCopy, ...] = ()
    arrival: Vm | None = None
    further: tuple[MigrationLink, ...] = ()
    shared: Check | None = None

    @property
    def links(self) -> tuple[MigrationLink, ...]:
        """All links that the move may use, the first first."""
        return (self.link, *self.further)

    @property
    def bare(self) -> tuple[str, ...]:
        """The hosts to which only libvirt leads, and no shell."""
        return bare_of((self.source, self.destination))


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
    refuse_unlike(source, destination)
    refuse_what_needs_a_shell(asked, (source, destination))
    here, there = session.place(source.name), session.place(destination.name)
    link, further = await _ways(session, asked, source, destination)
    finding = asyncio.create_task(here.machine(seen))
    ours, theirs = (asyncio.create_task(each.hypervisor.capabilities()) for each in (here, there))
    try:
        machine, able_here, able_there = await asyncio.gather(finding, ours, theirs)
    finally:
        await asyncio.wait([finding, ours, theirs])  # whatever a probe has started, it ends
    policy = asked.encryption or session.config.policy.encryption
    if asked.method is Method.ENCRYPTED:
        policy = Encryption.ALWAYS
    used = [each for way in (link, *further) for each in (way, *towards(source, way))]
    certificates = here.credentials(credentials_between(source, destination), destination)
    ruling = ruled(
        policy, used, able_here, able_there, method=asked.method, credentials=certificates
    )
    left = 0.0 if asked.leave is None else parse_share(asked.leave)
    share = await share_of(session, (source, destination), (link, *further), asked.vm, left)
    wish = wish_of(asked, session.config, source, destination, share.limit)
    address = secured(MigrationAddress(link.address, ports=destination.ports), ruling, certificates)
    copies = await _copies(machine, asked)
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
        settings=settings_of(asked, wish, encrypted=address.encrypted),
        copies=copies,
        arrival=moved_vm(machine.vm, copies) if copies else None,
        further=further,
        shared=share.said,
    )


async def _ways(
    session: Session, asked: Asked, source: Host, destination: Host
) -> tuple[MigrationLink, tuple[MigrationLink, ...]]:
    """Return the link and the further ones that may be used, set up where that is asked for."""
    link = link_to(source, destination)
    further = further_links(source, destination, link)
    named = asked.method is Method.MULTINIC
    if named and not further:
        raise no_further(source, destination)
    if asked.prepare_network:
        await prepare_network(session, (source, destination), asked.vm, further)
    if asked.leave is not None and not named:
        return link, ()  # which of several NICs others use cannot be known beforehand
    return link, further


async def _copies(machine: Machine, asked: Asked) -> tuple[DiskCopy, ...]:
    """Return what is to be copied to where; nothing where no place was named."""
    if not asked.storage:
        return ()
    facts = await machine.storage().disks()
    return placed_copies(machine.vm, facts, asked.storage, asked.chain)


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
        outset = replace(await outset_of(journey, past), barred=_barred(checks))
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


async def checked(journey: Journey, tuning: Tuning | None = None) -> tuple[Check, ...]:
    """Return every check of the preflight.

    Args:
        journey: The move.
        tuning: How it goes, where a saved plan says so; None: as it was asked for.
    """
    found = await _looked(journey, tuning)
    if journey.shared is not None:
        found = (*found, journey.shared)
    found = tuple(await journey.here.judged(journey.machine, found, journey.there))
    if isinstance(journey.ruling, Refused):
        refusal = failed("encryption", journey.ruling.reason, journey.ruling.remedy)
        return (*found, refusal)
    return found


async def _looked(journey: Journey, tuning: Tuning | None) -> tuple[Check, ...]:
    session, places = journey.session, (journey.here, journey.there)
    if journey.bare:
        pair = (journey.source, journey.destination)
        return tuple(await bare_checks(pair, places, journey.machine))
    subject = PreflightSubject(
        machine=journey.machine,
        source=session.site(journey.source.name),
        destination=session.site(journey.destination.name),
        source_examiner=journey.here.examiner(),
        destination_examiner=journey.there.examiner(),
        address=journey.address,
        arrival=journey.arrival,
        copies=journey.copies,
        tuning=tuning or tuning_for(journey.asked.method, journey.settings),
        further=tuple(each.address for each in journey.further),
        choosing=tuning is None and journey.asked.method is Method.AUTO,
        zero_copy=tuning.zero_copy if tuning else journey.settings.zero_copy,
    )
    return await preflight(subject)


def _barred(checks: Sequence[Check]) -> tuple[Rejection, ...]:
    """Return the methods that checks keep out of what is weighed: RDMA, where it is hindered."""
    return tuple(
        Rejection(Method.RDMA, each.detail)
        for each in checks
        if each.name == RDMA and each.result is not Result.PASS
    )


async def outset_of(journey: Journey, past: Sequence[MoveRecord]) -> Outset:
    """Return what a forecast is made from."""
    session = journey.session
    outset = Outset(
        machine=journey.machine,
        source=journey.here.hypervisor,
        destination=journey.there.hypervisor,
        here=probe_of(session, journey.source, journey.here),
        there=probe_of(session, journey.destination, journey.there),
        link=None,
        version=await journey.here.version(),
        wish=journey.wish,
        settings=journey.settings,
        method=journey.asked.method,
        depth=Depth(journey.asked.survey.value),
        past=past,
        earlier=_earlier(past, journey.asked.vm, time.time()),
        copies=journey.copies,
        afar=session.shell(journey.source.name) is None,
    )
    if journey.bare:
        return await _with_assumed_link(journey, outset)
    here, there = session.site(journey.source.name), session.site(journey.destination.name)
    link = await SiteLink.between(here, there, journey.address.host)
    return replace(outset, link=link, together=await _together(journey, link))


async def _with_assumed_link(journey: Journey, outset: Outset) -> Outset:
    pair, arrived = (journey.source, journey.destination), (journey.asked.vm, journey.here)
    way = (journey.session, pair, journey.link)
    assumed = await assumed_between(*way, arrived, outset.past)
    said = said_of(assumed, journey.source.name, journey.destination.name, journey.bare)
    return replace(outset, assumed=assumed.link, taken=said)


async def _together(journey: Journey, first: SiteLink) -> SiteLink | None:
    """Return the probe of all NICs at once; None where there is one, or no MPTCP."""
    places = (journey.here, journey.there)
    able = await asyncio.gather(*(each.hypervisor.capabilities() for each in places))
    if not journey.further or any(Capability.MPTCP not in each for each in able):
        return None
    return await first.with_further([each.address for each in journey.further])


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

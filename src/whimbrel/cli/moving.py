"""A move between real hosts, carried out: what is held meanwhile, and what acts beside it.

    memory claimed, images made ─► attempts, with attendants ─► looked at, judged, recorded

Everything that is held is held by `with` blocks: whatever ends the command, they undo it.
"""

import time
from contextlib import AsyncExitStack
from dataclasses import replace

from whimbrel.cli.journey import Journey
from whimbrel.cli.move_after import afterwards, missed, record_of, remember
from whimbrel.cli.move_choice import Decided
from whimbrel.cli.move_screen import MoveScreen
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import MigrationAddress, MigrationLink
from whimbrel.model.method import Policy
from whimbrel.model.outcome import Ending
from whimbrel.ports import Journal, Site
from whimbrel.practice.attempts import attempts
from whimbrel.practice.budget import Allowance, Budget
from whimbrel.practice.claims import Claims
from whimbrel.practice.encryption import secured
from whimbrel.practice.leave import End, Leave
from whimbrel.practice.move import Request
from whimbrel.practice.storage import Hosts, StorageBeside, StorageWish, storage_beside
from whimbrel.report.move import MoveSaid
from whimbrel.theory.sharing import parse_share


async def carried_out(
    journey: Journey, how: Decided, screen: MoveScreen, journal: Journal
) -> MoveSaid:
    """Move the guest and return what is to be said of it.

    Raises:
        HostError: Nothing was begun: the destination cannot receive, or memory is taken.
    """
    began = time.time()
    async with AsyncExitStack() as held:
        destination = journey.session.site(journey.destination.name)
        await held.enter_async_context(Claims(destination, journey.arrival or journey.machine.vm))
        request = await _request(journey, how, screen, journal, held)

        async def renewed(before: Request) -> Request:
            fresh = await _request(journey, how, screen, journal, held)
            address = secured(MigrationAddress(before.address.host), journey.ruling)
            return replace(fresh, address=address)

        done = await attempts(request, screen, renewed=renewed, anew=screen.begins_anew)
    last = done[-1]
    checks = () if last.outcome.ending is not Ending.COMPLETED else await afterwards(journey, last)
    return MoveSaid(
        vm=journey.asked.vm,
        source=journey.source.name,
        destination=journey.destination.name,
        tuning=last.tuning,
        outcome=last.outcome,
        attempts=len(done),
        prediction=how.prediction,
        checks=checks,
        missed=missed(last.outcome, journey.wish),
        number=remember(record_of(journey, how, last, began), screen),
        encryption=journey.ruling.reason,
        left=last.moved.left,
    )


async def _request(
    journey: Journey, how: Decided, screen: MoveScreen, journal: Journal, held: AsyncExitStack
) -> Request:
    leave = await _leave(journey, screen)
    attendants = tuple(each for each in (leave, _budget(journey, screen)) if each)
    disks = await _disks(journey, screen, held)
    tuning = how.tuning
    if leave is not None:
        least = min(leave.limit, tuning.bandwidth_limit or leave.limit)
        tuning = replace(tuning, bandwidth_limit=least)
    guarded = how.certificate is not None
    wish = journey.wish
    return Request(
        source=journey.here,
        machine=journey.machine,
        destination=journey.there,
        address=journey.address,
        tuning=tuning,
        timeout=wish.total_time,
        policy=Policy(downtime=wish.downtime, postcopy=wish.postcopy) if guarded else None,
        certificate=how.certificate,
        prediction=how.prediction,
        companions=() if disks is None else (disks,),
        journal=journal,
        attendants=attendants,
        vm=disks.vm if disks is not None else journey.arrival,
    )


async def _disks(
    journey: Journey, screen: MoveScreen, held: AsyncExitStack
) -> StorageBeside | None:
    """Make the images of the disks that are copied along; None where all are shared."""
    if not journey.asked.storage:
        return None
    session = journey.session
    hosts = Hosts(session.site(journey.source.name), session.site(journey.destination.name))
    wish = StorageWish(
        places=tuple(journey.asked.storage),
        rate=journey.wish.bandwidth_limit,
        remove_source=journey.asked.remove_source,
    )
    return await held.enter_async_context(storage_beside(journey.machine, hosts, wish, screen))


async def _leave(journey: Journey, screen: MoveScreen) -> Leave | None:
    if journey.asked.leave is None:
        return None
    return Leave(
        parse_share(journey.asked.leave),
        await ends(journey),
        told=screen.limited,
        lost=screen.lost,
        most=journey.wish.bandwidth_limit,
    )


def _budget(journey: Journey, screen: MoveScreen) -> Budget | None:
    cores = journey.wish.cpu_budget
    if cores is None:
        return None
    session = journey.session
    return Budget(
        Allowance(session.site(journey.source.name), cores),
        Allowance(session.site(journey.destination.name), cores),
        told=screen.say,
        lost=screen.lost,
    )


async def ends(journey: Journey) -> list[End]:
    """Return the interfaces that the move goes through, at the source and the destination.

    Raises:
        ConfigError: What one of them carries is not known.
    """
    session, there = journey.session, journey.address.host
    source, destination = (
        session.site(each.name) for each in (journey.source, journey.destination)
    )
    here = await source.ask("link_route", address=there)
    return [
        await _end(source, str(here), journey.link, receives=False),
        await _end(destination, there, journey.link, receives=True),
    ]


async def _end(site: Site, address: str, link: MigrationLink, *, receives: bool) -> End:
    for name, facts in (await site.ask("interfaces")).items():
        if address in {each.partition("/")[0] for each in facts["addresses"]}:
            rate = link.rate or facts["rate"]
            if rate:
                return End(site, (name,), float(rate), receives)
            raise ConfigError(
                f"What {name} on {site.name} carries is not known, so no share of it can be left.",
                f'Say it in whimbrel.toml: rate = "1 Gbit/s" beside address = "{address}".',
            )
    raise ConfigError(f"No interface of {site.name} has the address {address}.")

"""A move between real hosts, carried out: what is held meanwhile, and what acts beside it.

    memory claimed, images made ─► attempts, with attendants ─► looked at, judged, recorded

Everything that is held is held by `with` blocks: whatever ends the command, they undo it.
"""

import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from whimbrel.cli.asked import wish_of
from whimbrel.cli.journey import Journey
from whimbrel.cli.move_after import afterwards, missed, record_of, remember
from whimbrel.cli.move_choice import Decided
from whimbrel.cli.move_screen import MoveScreen
from whimbrel.cli.ways import ends_of, moves_marked, nics_of
from whimbrel.errors import ConfigError, HostError
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.model.method import Policy, Tuning
from whimbrel.model.record import MoveFigures
from whimbrel.model.storage import StorageCopied
from whimbrel.ports import Journal
from whimbrel.practice.attempts import attempts
from whimbrel.practice.bound import Bound, Lane
from whimbrel.practice.budget import Allowance, Budget
from whimbrel.practice.claims import Claims
from whimbrel.practice.encryption import secured
from whimbrel.practice.leave import Leave
from whimbrel.practice.move import Request
from whimbrel.practice.spending import Spending
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
        destination = journey.session.shell(journey.destination.name)
        if destination is not None:
            vm = journey.arrival or journey.machine.vm
            await held.enter_async_context(Claims(destination, vm))
        request = await _request(journey, how, screen, journal, held)
        requests = [request]

        async def renewed(_: Request) -> Request:
            fresh = await _request(journey, how, screen, journal, held)
            before = journey.address
            address = secured(before, journey.ruling, before.credentials)  # with another key
            requests.append(replace(fresh, address=address))
            return requests[-1]

        done = await attempts(request, screen, renewed=renewed, anew=screen.begins_anew)
    last = done[-1]
    checks, outcome = await afterwards(journey, last)
    lost_since = last.outcome.runs_on is not None and outcome.runs_on is None
    copied = _copied(requests[-1], how)
    record = record_of(journey, how, last, began, ending=outcome.ending, copied=copied)
    record = replace(record, observed=_with_spent(record.observed, requests[-1]))
    return MoveSaid(
        vm=journey.asked.vm,
        source=journey.source.name,
        destination=journey.destination.name,
        tuning=last.tuning,
        outcome=outcome,
        attempts=len(done),
        prediction=how.prediction,
        checks=checks,
        missed=missed(outcome, journey.wish),
        number=remember(record, screen),
        encryption=journey.ruling.reason,
        left=last.moved.left,
        over=last.moved.over or lost_since,
        copied=copied,
    )


def _copied(request: Request, how: Decided) -> StorageCopied | None:
    """Return what became of the disks that went along; None where none has arrived."""
    disks = [
        disk
        for each in request.companions
        if isinstance(each, StorageBeside)
        for disk in each.copied
    ]
    return StorageCopied(tuple(disks), how.storage) if disks else None


def _with_spent(figures: MoveFigures, request: Request) -> MoveFigures:
    """Add what the threads of the last attempt used, where they could be looked at."""
    found = [each.spent for each in request.attendants if isinstance(each, Spending)]
    if not found or found[0] is None:
        return figures
    return replace(
        figures,
        normal_pages=found[0].pages,
        source_cpu_seconds=found[0].source,
        destination_cpu_seconds=found[0].destination,
    )


async def _request(
    journey: Journey, how: Decided, screen: MoveScreen, journal: Journal, held: AsyncExitStack
) -> Request:
    bound = await _bound(journey, how.tuning, screen)
    leave = await _leave(journey, bound.limit, how.tuning.channels, screen)
    budget = await _budget(journey, screen)
    tuning = how.tuning
    pacing = leave or (None if tuning.as_qemu_comes else bound)
    attendants = tuple(each for each in (pacing, budget, _spending(journey, tuning)) if each)
    disks = await _disks(journey, screen, held)
    if pacing is not None:
        tuning = replace(tuning, bandwidth_limit=pacing.limit)
    guarded = how.certificate is not None
    wish = journey.wish
    return Request(
        source=journey.here.hypervisor,
        machine=journey.machine,
        destination=journey.there.hypervisor,
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


def _spending(journey: Journey, tuning: Tuning) -> Spending | None:
    if journey.bare:
        return None
    source, destination = (
        journey.session.site(each.name) for each in (journey.source, journey.destination)
    )
    return Spending(source, destination, channels=tuning.channels is not None)


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
        extent=journey.asked.chain,
        rate=journey.wish.bandwidth_limit,
        remove_source=journey.asked.remove_source,
    )
    return await held.enter_async_context(storage_beside(journey.machine, hosts, wish, screen))


async def _bound(journey: Journey, tuning: Tuning, screen: MoveScreen) -> Bound:
    """Return what keeps the move within its bandwidth, other moves counted.

    They are counted anew, now that this move is marked: of two that were planned at the same time
    neither knew of the other.
    """
    session, pair = journey.session, (journey.source, journey.destination)

    async def others() -> int:
        return len(await moves_marked(session, pair, journey.links, journey.asked.vm))

    left = 0.0 if journey.asked.leave is None else parse_share(journey.asked.leave)
    lane = None
    if not journey.bare:  # nor are there marks, or counters
        # Where nobody knows what it carries, or which NIC it is, the plan has said so.
        with suppress(ConfigError, HostError):
            ends = await ends_of(session, pair, journey.links)
            lane = Lane(min(each.rate for each in ends), others, left)
    bound = Bound(
        _own_limit(journey, tuning),
        lane,
        told=screen.limited,
        lost=screen.lost,
        channels=tuning.channels,
    )
    await bound.count()
    return bound


def _own_limit(journey: Journey, tuning: Tuning) -> float | None:
    """Return the limit of the tuning, without what it was planned to leave to other moves."""
    if tuning.bandwidth_limit != journey.wish.bandwidth_limit:
        return tuning.bandwidth_limit
    pair = journey.source, journey.destination
    return wish_of(journey.asked, journey.session.config, *pair).bandwidth_limit


async def _leave(
    journey: Journey, most: float | None, channels: int | None, screen: MoveScreen
) -> Leave | None:
    if journey.asked.leave is None:
        return None
    return Leave(
        parse_share(journey.asked.leave),
        await ends_of(journey.session, (journey.source, journey.destination), journey.links),
        told=screen.limited,
        lost=screen.lost,
        most=most,
        channels=channels,
    )


async def _budget(journey: Journey, screen: MoveScreen) -> Budget | None:
    cores = journey.wish.cpu_budget
    if cores is None or journey.bare:  # the plan has said that it is not held
        return None
    session = journey.session
    names = await nics_of(session, (journey.source, journey.destination), journey.link)
    machine = journey.machine
    vcpus = await machine.vcpu_threads() if isinstance(machine, QemuMachine) else ()
    return Budget(
        Allowance(session.site(journey.source.name), cores, names[0], vcpus),
        Allowance(session.site(journey.destination.name), cores, names[1]),
        told=screen.say,
        lost=screen.lost,
    )

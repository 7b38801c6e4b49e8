"""Brings a move that nobody conducts any more to its end, by the table of `cases`.

look at both sides ─► case ─► carry out ─┐
▲                                │
└────────────────────────────────┘ until nothing is left to do, or to be done safely
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import Step
from whimbrel.model.migration import ENDS, Cancel, Phase, PhaseChange, Side
from whimbrel.ports import Hypervisor, Machine, Migration, Standing
from whimbrel.practice.cases import Case, Facts, Repair, Seen, SideFacts, case_of, undecided
from whimbrel.practice.mend import PATIENCE, Mender
from whimbrel.practice.record import Record

LOOK_AGAIN = 0.2
"""Seconds until a hand-over that is going on is looked at again."""

ATTEMPTS = 5
"""How often one repair is tried before the rest is left to a person."""

WAITS = 300
"""How often a hand-over that is going on is looked at: for a minute."""

DECIDES = 50
"""How often a destination is looked at that has yet to notice that its source has ended: for ten
seconds. A guest that is whole must never be called lost."""

ENDS_WITHIN = 60.0
"""Seconds for a move that was called back to end; QEMU shuts its sockets, and needs far less."""


@dataclass(frozen=True)
class Deserted:
    """A move without anybody to conduct it.

    Attributes:
        name: The VM's name, the same on both hosts.
        source: The host it left.
        destination: The host it was to go to.
        address: Where the destination listened; None where nobody remembers.
        last: The last step known to have been announced.
        exact: Whether no later one was (`cases.Facts`).
        refused: Whether the destination said that it cannot run the guest.
        gone: Sides of which a person says that they are off.
        patience: Seconds that a post-copy may be without its link.
    """

    name: str
    source: Hypervisor
    destination: Hypervisor
    address: MigrationAddress | None = None
    last: Step | None = None
    exact: bool = False
    refused: bool = False
    gone: frozenset[Side] = frozenset()
    patience: float = PATIENCE


@dataclass(frozen=True)
class Repaired:
    """How a deserted move ended.

    Attributes:
        cases: Each case it went through, the last one last.
        runs_on: Where the guest runs now; None where it runs nowhere, or that is not known.
        machine: The machine that holds it then.
        left: What could not be cleared away, a sentence each.
        hopeless: Whether a post-copy was given up, which trying again soon will not change.
    """

    cases: tuple[Case, ...]
    runs_on: Side | None
    machine: Machine | None = None
    left: tuple[str, ...] = ()
    hopeless: bool = False

    @property
    def last(self) -> Case:
        """The case in which it was left."""
        return self.cases[-1]


@dataclass(frozen=True)
class _Sides:
    """Both machines as they were found, and what they say."""

    facts: Facts
    here: Machine | None
    there: Machine | None


async def look(move: Deserted) -> Facts:
    """Ask both sides, and change nothing."""
    return (await _looked(move)).facts


async def repair(
    move: Deserted, record: Record, told: Callable[[Case], None] = lambda _: None
) -> Repaired:
    """Bring a move to its end, as far as that is safe; never raises `HostError`.

    Args:
        move: The move.
        record: Where each step is written down before it is taken.
        told: Hears of each case before anything is done about it.
    """
    return await _Repairer(move, record, told).carry_out()


@dataclass
class _Repairer:
    """The repair of one move."""

    move: Deserted
    record: Record
    told: Callable[[Case], None]
    cases: list[Case] = field(default_factory=list)
    rounds: Counter[Repair] = field(default_factory=Counter)
    hopeless: bool = False

    async def carry_out(self) -> Repaired:
        while True:
            sides = await _looked(self.move)
            case = case_of(sides.facts)
            self._tell(case)
            if case.repair in {Repair.NOTHING, Repair.LEAVE}:
                return self._ended(case, sides)
            self.rounds[case.repair] += 1
            try:
                await self._do(case.repair, sides)
            except HostError as error:
                if self._enough(case.repair):
                    return self._given_up(case, sides, error)
                await asyncio.sleep(LOOK_AGAIN)
            else:
                if self._enough(case.repair):
                    return self._given_up(case, sides, HostError("Nothing came of it."))

    def _enough(self, what: Repair) -> bool:
        return self.rounds[what] >= (WAITS if what is Repair.WAIT else ATTEMPTS)

    def _given_up(self, case: Case, sides: _Sides, error: HostError) -> Repaired:
        # A guest is not whole anywhere until such a repair has succeeded.
        whole = None if case.repair in {Repair.FOLLOW, Repair.TAKE_UP} else case.runs_on
        hint = f"{error} Then: whimbrel recover."
        left = replace(case, repair=Repair.LEAVE, runs_on=whole, hint=hint)
        self._tell(left)
        return self._ended(left, sides)

    def _tell(self, case: Case) -> None:
        if case not in self.cases[-1:]:
            self.cases.append(case)
            self.told(case)

    def _ended(self, case: Case, sides: _Sides) -> Repaired:
        machine = {Side.SOURCE: sides.here, Side.DESTINATION: sides.there, None: None}
        there = machine[case.runs_on]
        return Repaired(tuple(self.cases), case.runs_on, there, hopeless=self.hopeless)

    async def _do(self, what: Repair, sides: _Sides) -> None:
        ways: dict[Repair, Callable[[_Sides], Coroutine[Any, Any, None]]] = {
            Repair.WAIT: self._wait,
            Repair.CALL_BACK: self._call_back,
            Repair.STOP_THERE: self._stop_there,
            Repair.RESUME_HERE: self._resume_here,
            Repair.RUN_THERE: self._run_there,
            Repair.STOP_HERE: self._stop_here,
            Repair.FOLLOW: self._follow,
            Repair.TAKE_UP: self._follow,
        }
        await ways[what](sides)

    async def _wait(self, _: _Sides) -> None:
        await asyncio.sleep(LOOK_AGAIN)

    async def _call_back(self, sides: _Sides) -> None:
        migration = await self.move.source.rejoin(_there_is(sides.here))
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await _called_back(migration)
        except TimeoutError as error:
            raise HostError("The move was called back, and does not end.") from error

    async def _stop_there(self, sides: _Sides) -> None:
        await self.record.before(Step.STOPPING_THERE)
        if sides.here is not None:
            with suppress(HostError):  # copies that go there would fail with it
                await sides.here.storage().release()
        await _there_is(sides.there).stop()
        if sides.here is not None:
            await sides.here.forget_move()

    async def _resume_here(self, sides: _Sides) -> None:
        if sides.there is not None:
            await self._stop_there(sides)
        await self._announce(Step.RESUMING_HERE)
        await _there_is(sides.here).resume()

    async def _run_there(self, sides: _Sides) -> None:
        address = self.move.address or MigrationAddress("")
        reception = await self.move.destination.expecting(_there_is(sides.there), address)
        await self._announce(Step.RUNNING_THERE)
        try:
            await reception.run()
        except CommandRefused:
            self.move = replace(self.move, refused=True)
            raise

    async def _stop_here(self, sides: _Sides) -> None:
        await self._announce(Step.STOPPING_HERE)
        await _there_is(sides.here).stop()
        if sides.there is not None:
            await sides.there.forget_move()

    async def _follow(self, sides: _Sides) -> None:
        if self.move.address is None:
            raise HostError("Nothing tells where the destination listened.")
        migration = await self.move.source.rejoin(_there_is(sides.here))
        reception = await self.move.destination.expecting(_there_is(sides.there), self.move.address)
        mender = Mender(migration, reception, self.record, self.move.patience)
        try:
            async for event in migration.watch():
                self.record.take(event)
                mender.hear(event)
                if mender.gave_up:
                    self.hopeless = True
                    await mender.leave()
                    self.rounds[Repair.FOLLOW] = self.rounds[Repair.TAKE_UP] = ATTEMPTS
                    raise HostError(f"{mender.gave_up.rstrip('.')}.")
        finally:
            await mender.close()

    async def _announce(self, step: Step) -> None:
        await self.record.before(step)
        self.move = replace(self.move, last=step)


@dataclass(frozen=True)
class _Deaf:
    """A destination that may not answer before its post-copy goes on.

    QEMU's main loop may wait for a page of its guest's, and takes no new client meanwhile
    (docs/devel/migration/postcopy.rst). It may have been told to listen again before.
    """

    host: Hypervisor
    name: str
    address: MigrationAddress

    async def listen_again(self) -> MigrationAddress:
        try:
            machine = await self.host.seek(self.name)
        except HostError:
            return self.address
        reception = await self.host.expecting(_there_is(machine), self.address)
        return await reception.listen_again()


async def _called_back(migration: Migration) -> None:
    asked = False
    async for event in migration.watch():
        over = isinstance(event, PhaseChange) and event.phase in ENDS | {Phase.POSTCOPY}
        if over:
            return
        if not asked:
            asked = True
            try:
                await migration.apply(Cancel())
            except CommandRefused:
                return  # it has gone too far meanwhile; a second look says how far


async def _looked(move: Deserted) -> _Sides:
    """Look at both sides, again where one of them is about to change."""
    for _ in range(DECIDES):
        sides = await _at_once(move)
        if not undecided(sides.facts):
            break
        await asyncio.sleep(LOOK_AGAIN)
    return sides


async def _at_once(move: Deserted) -> _Sides:
    (here, source), (there, destination) = await asyncio.gather(
        _seen(move.source, move.name, gone=Side.SOURCE in move.gone),
        _seen(move.destination, move.name, gone=Side.DESTINATION in move.gone),
    )
    words = (host.by_hand(move.name) for host in (move.source, move.destination))
    facts = Facts(source, destination, move.last, move.exact, move.refused, *words)
    return _Sides(facts, here, there)


async def _seen(host: Hypervisor, name: str, *, gone: bool) -> tuple[Machine | None, SideFacts]:
    machine = None
    try:
        machine = await host.seek(name)
        if machine is None:
            return None, SideFacts(Seen.GONE)
        return machine, _facts(await machine.standing())
    except HostError:
        if machine is not None and await _ended(host, name):
            return None, SideFacts(Seen.GONE)
        return machine, SideFacts(Seen.GONE if gone else Seen.SILENT)


async def _ended(host: Hypervisor, name: str) -> bool:
    try:
        return await host.seek(name) is None
    except HostError:
        return False


def _facts(standing: Standing) -> SideFacts:
    return SideFacts(Seen.ANSWERS, standing.running, standing.phase)


def _there_is(machine: Machine | None) -> Machine:
    if machine is None:
        raise HostError("The host does not answer.")
    return machine

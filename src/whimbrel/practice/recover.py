"""Moves whose whimbrel died: found by their journals and marks, and brought to their end.

    journals here, marks on all hosts ──► Lost, one per move ──► recover ──► Repaired

The repair holds the VM like a move does, and goes on with the same journal, so that two
recoveries never meet, and one that dies itself can be recovered again.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from whimbrel.errors import Held, HostError
from whimbrel.model.holder import Holder
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import Step
from whimbrel.model.migration import Side
from whimbrel.ports import Hypervisor, Journal, Site
from whimbrel.practice.cases import Case, Repair
from whimbrel.practice.claims import forget_claims
from whimbrel.practice.history import History, histories, unfinished
from whimbrel.practice.holder import myself, same_process
from whimbrel.practice.journal import FileJournal
from whimbrel.practice.marks import Mark, MarkedJournal, held, marks_on
from whimbrel.practice.mend import PATIENCE
from whimbrel.practice.record import Record
from whimbrel.practice.repair import Deserted, Repaired, repair
from whimbrel.practice.storage_recover import recover_storage


@dataclass(frozen=True)
class Lost:
    """A move that has not ended, and whose whimbrel does not conduct it any more.

    Attributes:
        move: The move's identity.
        vm: The VM's name.
        source: The host it left.
        destination: The host it was to go to.
        holder: Who conducted it.
        alive: Whether that process lives; None where that cannot be told from here.
        last: The last step known to have been announced.
        exact: Whether no later one was.
        address: Where the destination listened; None where nothing tells.
        journal: The move's journal on this machine; None where there is none.
        marked: Hosts that bear its mark.
    """

    move: str
    vm: str
    source: str
    destination: str
    holder: Holder
    alive: bool | None
    last: Step | None
    exact: bool
    address: MigrationAddress | None = None
    journal: Path | None = None
    marked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        lost: Moves to recover.
        conducted: Marks of moves that are being conducted.
        silent: Why a host could not be asked, by its name.
    """

    lost: tuple[Lost, ...]
    conducted: tuple[Mark, ...]
    silent: Mapping[str, str]


async def search(
    sites: Mapping[str, Site], vm: str | None = None, folder: Path | None = None
) -> Searched:
    """Look for moves to recover, in this machine's journals and on all hosts.

    Args:
        sites: The hosts by name.
        vm: The only VM to look for.
        folder: Where journals lie; the user's own where None.
    """
    silent: dict[str, str] = {}

    async def ask(name: str, site: Site) -> list[tuple[str, Mark]]:
        try:
            return [(name, mark) for mark in await marks_on(site)]
        except HostError as error:
            silent[name] = error.what
            return []

    answers = await asyncio.gather(*(ask(name, site) for name, site in sites.items()))
    marks = [each for answer in answers for each in answer if vm in {None, each[1].vm}]
    # A journal that is closed or being written speaks for its move: its mark says nothing new.
    written = {each.move for each in histories(vm, folder) if each.closed or each.conducted}
    lost = [_from_journal(each, marks) for each in unfinished(vm, folder)]
    known = {each.move for each in lost} | written
    stale = [each for each in marks if not _conducted(each[1])]
    lost += _from_marks([each for each in stale if each[1].origin not in known])
    conducted = {each.move: each for _, each in marks if _conducted(each)}
    return Searched(tuple(lost), tuple(conducted.values()), silent)


def _conducted(mark: Mark) -> bool:
    """Tell whether a mark is another process's that lives; what was this one's, it let go of."""
    return mark.alive is True and not same_process(mark.holder, myself())


def _from_journal(told: History, marks: Sequence[tuple[str, Mark]]) -> Lost:
    return Lost(
        move=told.move,
        vm=told.vm,
        source=told.source,
        destination=told.destination,
        holder=told.holder,
        alive=False,
        last=told.last,
        exact=True,
        address=told.address,
        journal=told.path,
        marked=tuple(name for name, mark in marks if mark.origin == told.move),
    )


def _from_marks(marks: Sequence[tuple[str, Mark]]) -> list[Lost]:
    found = []
    for move in dict.fromkeys(mark.origin for _, mark in marks):
        those = [(name, mark) for name, mark in marks if mark.origin == move]
        _, newest = max(those, key=lambda each: each[1].count)
        lives = [mark.alive for _, mark in those]
        found.append(
            Lost(
                move=move,
                vm=newest.vm,
                source=newest.source,
                destination=newest.destination,
                holder=newest.holder,
                alive=False if False in lives else None,
                last=newest.step,
                exact=False,
                address=newest.address,
                marked=tuple(name for name, _ in those),
            )
        )
    return found


@dataclass(frozen=True)
class Hosts:
    """The two hosts of a move to recover.

    Attributes:
        source: The one it left.
        destination: The one it was to go to.
        sites: The sites of those that answer, by name.
        bare: Names of those to which no shell leads; they bear no mark.
    """

    source: Hypervisor
    destination: Hypervisor
    sites: Mapping[str, Site]
    bare: frozenset[str] = frozenset()


async def recover(
    lost: Lost,
    hosts: Hosts,
    *,
    told: Callable[[Case], None] = lambda _: None,
    gone: frozenset[Side] = frozenset(),
    take_over: bool = False,
    patience: float = PATIENCE,
    folder: Path | None = None,
) -> Repaired:
    """Bring a move to its end, as far as that is safe.

    Args:
        lost: The move, as `search` found it.
        hosts: Its hosts, with the sites that answer, by name.
        told: Hears of each case before anything is done about it.
        gone: Sides of which a person says that they are off.
        take_over: A person says that its holder, of which nobody here can tell, has ended.
        patience: Seconds that a post-copy may be without its link.
        folder: Where a journal is begun when there is none; the user's own where None.

    Raises:
        Held: Its holder may still live, or somebody else recovers it at this moment.
        HostError: The journal cannot be written.
    """
    if lost.alive is None and not take_over:
        raise Held(
            f"{lost.vm} was being moved by {lost.holder}. Whether that process still lives "
            "cannot be told from here.",
            "Look on that machine; if it has ended: whimbrel recover --take-over.",
        )
    async with AsyncExitStack() as stack:
        journal = stack.enter_context(_journal(lost, folder))
        marked = await _marked(lost, hosts, journal, stack)
        record = Record(marked)
        deserted = Deserted(
            name=lost.vm,
            source=hosts.source,
            destination=hosts.destination,
            address=lost.address,
            last=lost.last,
            exact=lost.exact,
            gone=gone,
            patience=patience,
        )
        if lost.source == lost.destination:
            repaired = await _left_alone(lost, hosts, told)
        else:
            repaired = await repair(deserted, record, told)
        await _settle_disks(lost, hosts, repaired)
        await _settle_memory(lost, hosts, repaired)
        silent = {lost.source, lost.destination} - hosts.sites.keys() - hosts.bare
        left = tuple(f"The move's mark may still be on {name}." for name in sorted(silent))
        repaired = replace(repaired, left=left)
        await record.before(Step.CLOSED, **_closing(repaired))
        return repaired


async def _left_alone(lost: Lost, hosts: Hosts, told: Callable[[Case], None]) -> Repaired:
    """Return where a VM is of which only disks were to move: it never left, whatever it does."""
    machine = await hosts.source.seek(lost.vm)
    if machine is None:
        sentence = f"Only disks of {lost.vm} were to move, and it has ended on {lost.source} since."
        case = Case(sentence, Repair.NOTHING, None)
    else:
        sentence = f"Only disks of {lost.vm} were to move; it is on {lost.source}, as before."
        case = Case(sentence, Repair.NOTHING, Side.SOURCE)
    told(case)
    return Repaired((case,), case.runs_on, machine)


async def _settle_disks(lost: Lost, hosts: Hosts, repaired: Repaired) -> None:
    """Give up copies of disks that are still on their way; keep the VM's images, no others."""
    if repaired.last.repair is not Repair.NOTHING or repaired.machine is None:
        return
    names = [lost.source, lost.destination]
    if repaired.runs_on is Side.DESTINATION:
        names.reverse()
    here, other = (hosts.sites.get(name) for name in names)
    if here is not None:
        with suppress(HostError):  # what is left is told by the preflight of the next move
            await recover_storage(repaired.machine, here, other)


async def _settle_memory(lost: Lost, hosts: Hosts, repaired: Repaired) -> None:
    """Give up what the move had reserved at the destination."""
    site = hosts.sites.get(lost.destination)
    if repaired.last.over and site is not None:
        with suppress(HostError):  # it counts no more by itself, a day after the move
            await forget_claims(site, lost.vm)


def _journal(lost: Lost, folder: Path | None) -> FileJournal:
    if lost.journal is not None:
        return FileJournal.reopen(lost.journal, lost.move)
    return FileJournal.create(lost.vm, lost.source, lost.destination, folder=folder)


async def _marked(lost: Lost, hosts: Hosts, journal: FileJournal, stack: AsyncExitStack) -> Journal:
    """Hold the VM on the hosts that answer, instead of the move that died."""
    names = [name for name in (lost.source, lost.destination) if name in hosts.sites]
    sites = [hosts.sites[name] for name in names]
    address = lost.address
    mark = Mark(
        # Another identity: of two who recover the same move only one can take its place.
        move=f"{lost.move}-{secrets.token_hex(2)}",
        vm=lost.vm,
        source=lost.source,
        destination=lost.destination,
        holder=myself(),
        step=lost.last or Step.OPENED,
        host=address.host if address else "",
        port=address.port if address else 0,
    )
    marks = await stack.enter_async_context(held(mark, sites, instead_of=lost.move))
    marks.settled = False
    return MarkedJournal(journal, marks)


def _closing(repaired: Repaired) -> dict[str, object]:
    case = repaired.last
    return {
        "ending": "recovered" if case.over else "left",
        "reason": f"{case.sentence} {case.hint}".strip(),
        "runs_on": repaired.runs_on and repaired.runs_on.value,
        "over": case.over,
        "left": list(repaired.left),
    }

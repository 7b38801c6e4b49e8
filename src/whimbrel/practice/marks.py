"""A move's marks on both hosts: the lock on the VM, and what another machine recovers from.

    async with held(move, sites) as marks:          refused where somebody else has the VM
        journal = MarkedJournal(journal, marks)     each step also goes into the marks

The marks stay when it is not known, at the end, where the guest runs.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from whimbrel.errors import CommandRefused, Held, HostError, ProtocolError
from whimbrel.model.holder import Holder
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import Entry, Step
from whimbrel.model.plain import plain, shaped
from whimbrel.ports import Journal, Site
from whimbrel.practice.holder import lives

AWAITED = frozenset({Step.SENDING, Step.POSTCOPY})
"""Steps that stand on both hosts before they are taken. The others follow as fast as they can:
past the hand-over the guest stands still, and waits for no far host."""


@dataclass(frozen=True)
class Mark:
    """What stands on a host about a move.

    Attributes:
        move: The move's identity, as in its journal; `MOVE-…` for a recovery of it.
        vm: The VM's name.
        source: The host it leaves, as the holder's config names it.
        destination: The host it goes to.
        holder: Who conducts it.
        step: The last step that was announced here; later ones may have been taken.
        host: The migration address; empty before there is one.
        port: Its port.
        count: Counts the changes, so that a late one does not undo a newer.
        left: Whether the holder has let go of it, before it was known where the guest runs.
        alive: Whether the holder still holds it; None where that cannot be told.
    """

    move: str
    vm: str
    source: str
    destination: str
    holder: Holder
    step: Step = Step.OPENED
    host: str = ""
    port: int = 0
    count: int = 0
    left: bool = False
    alive: bool | None = None

    @property
    def origin(self) -> str:
        """The identity of the move itself, also for a recovery of it."""
        return self.move.partition("-")[0]

    @property
    def address(self) -> MigrationAddress | None:
        """Where the destination listened."""
        return MigrationAddress(self.host, self.port) if self.host else None

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.holder.since))
        where = f"from {self.source} to {self.destination}"
        return f"{self.vm} is being moved {where} by {self.holder}, since {since}"


@dataclass
class Marks:
    """The marks of one move that is being conducted.

    Attributes:
        mark: What they say.
        settled: Whether it is known where the guest runs, so that they may go.
    """

    mark: Mark
    sites: Sequence[Site]
    settled: bool = True
    _following: set[asyncio.Task[None]] = field(default_factory=set)

    async def say(self, **changes: Any) -> None:
        """Change both; raises `HostError` when one of them cannot be changed."""
        self._change(changes)
        await self._tell()

    def follow(self, **changes: Any) -> None:
        """Change both as soon as that can be done, if it can."""
        self._change(changes)
        task = asyncio.create_task(self._follow())
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def clear(self) -> None:
        """Remove both; one on a host that does not answer stays, and says that it is stale."""
        if self._following:
            await asyncio.wait(self._following)
        for site in self.sites:
            try:
                await site.ask(
                    "mark_clear", folder=site.folder, name=self.mark.vm, move=self.mark.move
                )
            except HostError:
                continue

    async def leave(self) -> None:
        """Let go of the VM, and say so as far as the hosts answer; the marks stay."""
        self._change({"left": True})
        await self._follow()

    def _change(self, changes: dict[str, Any]) -> None:
        self.mark = replace(self.mark, count=self.mark.count + 1, **changes)

    async def _tell(self) -> None:
        await asyncio.gather(*(self._say(site, plain(self.mark)) for site in self.sites))

    async def _say(self, site: Site, mark: object) -> None:
        name, move = self.mark.vm, self.mark.move
        await site.ask("mark_change", folder=site.folder, name=name, move=move, mark=mark)

    async def _follow(self) -> None:
        try:
            await self._tell()
        except HostError:
            return  # what is known is in the journal


@asynccontextmanager
async def held(
    mark: Mark, sites: Sequence[Site], instead_of: str | None = None
) -> AsyncIterator[Marks]:
    """Hold a VM on all hosts of its move while the block runs.

    Args:
        mark: What the marks say at first.
        sites: The hosts; the same one twice counts once.
        instead_of: A move that is over although its marks are still there (`whimbrel recover`).

    Raises:
        Held: Somebody else has it, or had it and died; nothing is marked then.
        HostError: A host cannot be asked.
    """
    chosen = list({id(site): site for site in sites}.values())
    marks = Marks(mark, chosen)
    try:
        for site in chosen:
            await _set(site, mark, instead_of)
    except BaseException:
        await marks.clear()
        raise
    try:
        yield marks
    finally:
        if marks.settled:
            await marks.clear()
        else:
            await marks.leave()


async def marks_on(site: Site) -> tuple[Mark, ...]:
    """Return every mark on a host."""
    found = await site.ask("mark_list", folder=site.folder)
    return tuple(_mark(each) for each in found)


async def _set(site: Site, mark: Mark, instead_of: str | None) -> None:
    other = await site.ask(
        "mark_set", folder=site.folder, name=mark.vm, mark=plain(mark), instead_of=instead_of
    )
    if other is not None:
        raise _held(_mark(other), site)


def _held(other: Mark, site: Site) -> Held:
    if other.alive is False:
        return Held(
            f"{other} (says {site.name}), but that process has ended in the middle of it.",
            f"Bring it to its end: whimbrel recover {other.vm}",
        )
    if other.alive:
        return Held(f"{other}.", f"Look on with: whimbrel watch {other.vm}")
    return Held(
        f"{other} (says {site.name}). Whether that process still lives cannot be told from here.",
        f"Ask {other.holder.user}; if it has ended: whimbrel recover {other.vm} --take-over",
    )


def _mark(found: dict[str, Any]) -> Mark:
    try:
        mark = shaped(Mark, {**found, "alive": None})
    except ValueError as error:
        raise ProtocolError(f"The mark of a move cannot be read: {error}") from error
    here = False if mark.left else lives(mark.holder)
    return replace(mark, alive=found.get("alive") if here is None else here)


class MarkedJournal:
    """The port's `Journal`: what is written down also goes into the marks on both hosts.

    Attributes:
        arrived: Whether the guest was to run at the destination by now.
    """

    def __init__(self, journal: Journal, marks: Marks) -> None:
        self._journal = journal
        self._marks = marks
        self.arrived = False

    async def write(self, entry: Entry) -> None:
        """See `ports.Journal.write`; `HostError` too where a host cannot be told in time."""
        await self._journal.write(entry)
        self.arrived = self.arrived or entry.step is Step.RUNNING_THERE
        if entry.step is Step.CLOSED:
            known = entry.fields.get("runs_on") is not None or bool(entry.fields.get("over"))
            self._marks.settled = known and not entry.fields.get("left")
        else:
            self._marks.settled = False
        changes: dict[str, Any] = {"step": entry.step}
        if entry.step is Step.PREPARED:
            changes |= {"host": entry.fields["host"], "port": entry.fields["port"]}
        if entry.step in AWAITED:
            await self._told(changes)
        else:
            self._marks.follow(**changes)

    async def _told(self, changes: dict[str, Any]) -> None:
        try:
            await self._marks.say(**changes)
        except CommandRefused as error:
            raise HostError(
                f"The move's mark was taken away: {error.what}",
                "Somebody else has taken the VM over; see: whimbrel vms",
            ) from error

    def note(self, entry: Entry) -> None:
        """See `ports.Journal.note`."""
        self._journal.note(entry)

"""`whimbrel move VM --storage PATH` without --to: disks move, the VM stays where it is."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from whimbrel.cli.asked import Asked
from whimbrel.cli.move_choice import refuse_obstacles
from whimbrel.cli.move_screen import MoveScreen
from whimbrel.cli.session import Session
from whimbrel.errors import ConfigError
from whimbrel.model.journal import Step
from whimbrel.model.migration import Side
from whimbrel.model.outcome import Ending
from whimbrel.model.units import parse_rate
from whimbrel.ports import Site
from whimbrel.practice.holder import myself
from whimbrel.practice.journal import FileJournal
from whimbrel.practice.marks import Mark, MarkedJournal, held
from whimbrel.practice.preflight_storage import preflight_storage
from whimbrel.practice.record import Record
from whimbrel.practice.storage import StorageWish
from whimbrel.practice.storage_only import DiskMoved, move_storage
from whimbrel.practice.storage_places import placed_copies

STORAGE_SCHEMA = "whimbrel.storage/1"


@dataclass(frozen=True)
class StorageSaid:
    """What is to be said of disks that have moved.

    Attributes:
        vm: The VM's name.
        host: Where it runs.
        disks: Each disk that lies elsewhere now.
    """

    vm: str
    host: str
    disks: tuple[DiskMoved, ...]


async def moved_disks(session: Session, asked: Asked, screen: MoveScreen) -> StorageSaid:
    """Move disks of a VM to other places of its host, or to shares and devices that it sees.

    Interrupted, or failed, each disk is where it was.

    Raises:
        ConfigError: No place is named, or it cannot be used.
        NoFeasiblePlan: A check forbids it.
        HostError: A copy failed; the guest goes on with its old disks.
    """
    if not asked.storage:
        raise ConfigError(
            f"It is not said where {asked.vm} or its disks shall go.",
            "Say --to HOST for the VM, --storage PATH for its disks, or both.",
        )
    seen = await session.find(asked.vm)
    place, site = session.place(seen.host), session.site(seen.host)
    machine = await place.machine(seen)
    wish = StorageWish(
        places=tuple(asked.storage),
        extent=asked.chain,
        rate=None if asked.limit is None else parse_rate(asked.limit),
        remove_source=asked.remove_source,
    )
    facts = await machine.storage().disks()
    copies = placed_copies(machine.vm, facts, wish.places, wish.extent, only_named=True)
    checks = await preflight_storage(machine, site, place.examiner(), copies)
    refuse_obstacles(asked.vm, ", ".join(copy.place.path for copy in copies), checks)
    screen.works("copying disks")
    async with _written(asked.vm, seen.host, site):
        return StorageSaid(asked.vm, seen.host, await move_storage(machine, site, wish, screen))


@asynccontextmanager
async def _written(vm: str, host: str, site: Site) -> AsyncIterator[None]:
    """Hold the VM, and a journal of what is done with its disks: it stays where it is, always."""
    with FileJournal.create(vm, host, host) as journal:
        async with held(Mark(journal.move, vm, host, host, myself()), [site]) as marks:
            record = Record(MarkedJournal(journal, marks))
            await record.before(Step.OPENED, vm=vm, source=host, destination=host)
            ending, reason = Ending.FAILED, ""
            try:
                yield
                ending = Ending.COMPLETED
            except BaseException as error:
                reason = str(error)
                raise
            finally:
                told = {"ending": ending.value, "reason": reason, "runs_on": Side.SOURCE.value}
                await record.before(Step.CLOSED, **told)


def storage_document(said: StorageSaid) -> dict[str, object]:
    """Return what was said of disks as a document."""
    return {
        "schema": STORAGE_SCHEMA,
        "vm": said.vm,
        "host": said.host,
        "disks": [
            {"name": each.name, "old": each.old, "new": each.new, "old_removed": each.old_removed}
            for each in said.disks
        ],
    }


def show_storage(console: Console, said: StorageSaid) -> None:
    """Print where the disks lie now."""
    console.print(Text(f"{said.vm} runs on {said.host}, as before.", style="bold green"))
    for line in _lines(said.disks):
        console.print(Text(f"  {line}"))


def _lines(disks: Sequence[DiskMoved]) -> list[str]:
    return [
        f"{each.name}: {each.old} is now {each.new}; the old image "
        f"{'was removed' if each.old_removed else 'is still there'}"
        for each in disks
    ]

"""A whimbrel that kills itself in the middle of a move; run as a program by test_recover.

python dying.py FOLDER WHERE METHOD
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from whimbrel.errors import WhimbrelError
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import Entry, Step
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import (
    Decision,
    Event,
    Observation,
    Phase,
    PhaseChange,
    StartPostcopy,
)
from whimbrel.ports import Journal, Machine, Reception
from whimbrel.practice.attend import Afoot
from whimbrel.practice.holder import myself
from whimbrel.practice.journal import FileJournal
from whimbrel.practice.marks import Mark, MarkedJournal, held
from whimbrel.practice.move import Request, move
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

SLOW = 150_000.0

TUNINGS = {
    "precopy": Tuning(),
    "slow": Tuning(bandwidth_limit=SLOW),
    "postcopy": Tuning(postcopy=Postcopy.IF_STALLED, bandwidth_limit=5 * SLOW),
}


def die() -> None:
    """End at once: nothing of this process goes on, and nothing is undone."""
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A journal after one step of which its whimbrel dies."""

    def __init__(self, journal: Journal, where: str) -> None:
        self._journal, self._where = journal, where

    async def write(self, entry: Entry) -> None:
        await self._journal.write(entry)
        if entry.step.value == self._where:
            die()

    def note(self, entry: Entry) -> None:
        self._journal.note(entry)


class Onlooker:
    """Somebody who looks on until a phase is observed."""

    def __init__(self, where: str) -> None:
        self._where = where

    def prepared(self, machine: Machine) -> None: ...

    def happened(self, event: Event) -> None:
        if isinstance(event, Observation | PhaseChange) and f"in {event.phase}" == self._where:
            die()

    def decided(self, decision: Decision) -> None: ...

    def arrived(self, machine: Machine) -> None: ...


class Disks:
    """A companion, so that the guest stands still before it is handed over."""

    pauses = True

    async def before_memory(self, reception: Reception) -> None: ...
    async def before_handover(self) -> None: ...
    async def after_failure(self, machine: Machine | None) -> None: ...
    async def after_arrival(self) -> None: ...


class Hurry:
    """Lets post-copy begin at once: the guest is idle, and its move never stalls."""

    async def attend(self, afoot: Afoot) -> None:
        while not (seen := afoot.latest()) or seen.phase is not Phase.PRECOPY:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await afoot.migration.apply(StartPostcopy())

    def failed(self, error: WhimbrelError) -> None:
        raise error


async def main(folder: Path, where: str, method: str) -> None:
    """Move the guest of test_recover, and die on the way."""
    async with (
        OnSite(LocalShell("a"), str(folder / "a")) as here,
        OnSite(LocalShell("b"), str(folder / "b")) as there,
        ResidentHost("a", here) as source,
        ResidentHost("b", there) as destination,
    ):
        machine = await source.find("guest")
        with FileJournal.create("guest", "a", "b", folder=folder / "journals") as journal:
            mark = Mark(journal.move, "guest", "a", "b", myself())
            async with held(mark, [here, there]) as marks:
                request = Request(
                    source,
                    machine,
                    destination,
                    MigrationAddress("127.0.0.1"),
                    TUNINGS[method],
                    timeout=60.0,
                    attendants=(Hurry(),) if method == "postcopy" else (),
                    companions=(Disks(),) if where == Step.HANDING_OVER.value else (),
                    journal=Deadly(MarkedJournal(journal, marks), where),
                )
                await move(request, Onlooker(where))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))

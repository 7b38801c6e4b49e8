"""Post-copy between far hosts whose migration link breaks: paused, taken up again, kept whole."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from far.hosts import FarHosts, far_hosts, needs_far_hosts
from far.test_residents import SECONDS, Nobody, redlined, whimbrel
from whimbrel.errors import WhimbrelError
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.lab.image import CONTROL_PORT
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import Event, Phase, PhaseChange, Side, StartPostcopy
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice import mend
from whimbrel.practice.attend import Afoot
from whimbrel.practice.cases import Repair
from whimbrel.practice.holder import myself
from whimbrel.practice.journal import FileJournal
from whimbrel.practice.marks import Mark, MarkedJournal, held
from whimbrel.practice.move import Request, move
from whimbrel.practice.recover import Hosts, recover, search

pytestmark = [needs_far_hosts, pytest.mark.timeout(180)]

LOAD = Load(fill=48 * MIB, pattern=Pattern.RANDOM)
TUNING = Tuning(postcopy=Postcopy.IF_STALLED, bandwidth_limit=20e6)


class Breaking(Nobody):
    """Cuts the link as soon as the guest has gone over, and may mend it."""

    def __init__(self, far: FarHosts, mended: Callable[[], None]) -> None:
        self.phases: list[Phase] = []
        self._far, self._mended = far, mended

    def happened(self, event: Event) -> None:
        if not isinstance(event, PhaseChange):
            return
        self.phases.append(event.phase)
        if event.phase is Phase.POSTCOPY and Phase.POSTCOPY_PAUSED not in self.phases:
            self._far.cut_link()
        elif event.phase is Phase.POSTCOPY_PAUSED:
            self._mended()


class Hurry:
    """Lets post-copy begin with the first pass."""

    async def attend(self, afoot: Afoot) -> None:
        while not (seen := afoot.latest()) or seen.phase is not Phase.PRECOPY:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await afoot.migration.apply(StartPostcopy())

    def failed(self, error: WhimbrelError) -> None:
        raise error


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mend, "STALLED", 1.0)


async def filled(far: FarHosts, host: ResidentHost) -> Machine:
    machine = await host.start(replace(redlined(far.folder), disks=()))
    async with Redline.connect(machine.channel(CONTROL_PORT), SECONDS) as redline:
        await redline.ready()
        await redline.fill(LOAD, lambda _: None)
    return machine


async def is_whole(machine: Machine) -> bool:
    async with Redline.connect(machine.channel(CONTROL_PORT), SECONDS) as redline:
        await redline.ready()
        found = await redline.verify()
    return found.bad_pages == 0 and found.pages_checked >= LOAD.fill // 4096


async def test_a_post_copy_whose_link_breaks_goes_on_when_it_is_back() -> None:
    async with far_hosts() as far, whimbrel(far.a, far.b) as [a, b]:
        machine = await filled(far, a)
        address = MigrationAddress(far.b.lab.addresses[0])
        request = Request(a, machine, b, address, TUNING, 90.0, attendants=(Hurry(),))
        watcher = Breaking(far, far.restore_link)
        moved = await move(request, watcher)
        assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
        assert watcher.phases[-4:] == [
            Phase.POSTCOPY,
            Phase.POSTCOPY_PAUSED,
            Phase.POSTCOPY,
            Phase.COMPLETED,
        ]
        assert moved.machine is not None
        assert await is_whole(moved.machine)
        await b.remove(machine.vm.name)


async def test_a_post_copy_that_was_left_paused_is_recovered() -> None:
    async with far_hosts() as far:
        journals = far.folder / "journals"
        async with whimbrel(far.a, far.b) as [a, b]:
            machine = await filled(far, a)
            address = MigrationAddress(far.b.lab.addresses[0])
            with FileJournal.create("redline", "a", "b", folder=journals) as journal:
                mark = Mark(journal.move, "redline", "a", "b", myself())
                async with held(mark, [a.site, b.site]) as marks:
                    request = Request(
                        a,
                        machine,
                        b,
                        address,
                        TUNING,
                        90.0,
                        attendants=(Hurry(),),
                        journal=MarkedJournal(journal, marks),
                        patience=1.0,
                    )
                    moved = await move(request, Breaking(far, lambda: None))
        assert moved.outcome.ending is Ending.FAILED
        assert moved.outcome.runs_on is None
        assert "paused" in moved.outcome.reason
        far.restore_link()
        async with whimbrel(far.a, far.b) as [a, b]:
            sites = {"a": a.site, "b": b.site}
            [lost] = (await search(sites, folder=journals)).lost
            done = await recover(lost, Hosts(a, b, sites), folder=journals)
            assert done.cases[0].repair is Repair.TAKE_UP
            assert done.runs_on is Side.DESTINATION
            assert await a.seek("redline") is None
            found = await b.seek("redline")
            assert found is not None
            assert await is_whole(found)
            assert (await search(sites, folder=journals)).lost == ()
            await b.remove("redline")

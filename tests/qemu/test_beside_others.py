"""A real move leaves others their share of the link, and keeps to its budget of cores."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from whimbrel.errors import WhimbrelError
from whimbrel.lab.accelerator import Accelerator
from whimbrel.lab.audience import Nobody
from whimbrel.lab.goodput import measure_goodput
from whimbrel.lab.guests import Guest, boot, guest_vm
from whimbrel.lab.image import build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.proc import parse_stat
from whimbrel.lab.stage import End as LabEnd
from whimbrel.lab.stage import Stage, stage
from whimbrel.model.method import Codec, Compression, Tuning
from whimbrel.model.migration import (
    Decision,
    Event,
    Observation,
    Phase,
    PhaseChange,
    SetBandwidthLimit,
    Side,
)
from whimbrel.model.scenario import GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.threads import ThreadClass, thread_class
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice.attend import Attendant
from whimbrel.practice.budget import Allowance, Budget
from whimbrel.practice.leave import Leave, ends_between
from whimbrel.practice.move import Moved, Request, move
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite
from whimbrel.theory.sharing import HEADERS

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the lab makes network namespaces: needs root"),
    pytest.mark.timeout(300),
]

LINK = 25e6
MEMORY = 192 * MIB


class Looking:
    """A watcher that tells when the guest is on its way, what was sent, and when it has left."""

    def __init__(self) -> None:
        self.sent = Observation(0.0, Phase.IDLE)
        self.there: Machine | None = None
        self.under_way = asyncio.Event()
        self.over = asyncio.Event()

    def prepared(self, machine: Machine) -> None:
        self.there = machine

    def happened(self, event: Event) -> None:
        if isinstance(event, Observation):
            self.sent = event
        if isinstance(event, PhaseChange):
            if event.phase is Phase.PRECOPY:
                self.under_way.set()
            if event.phase is Phase.SWITCHOVER:
                self.over.set()

    def decided(self, decision: Decision) -> None:
        pass

    def arrived(self, machine: Machine) -> None:
        self.over.set()


@dataclass
class Surroundings:
    on: Stage
    guest: Guest
    here: OnSite
    there: OnSite
    lost: list[WhimbrelError] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    async def moved(self, looking: Looking, tuning: Tuning, attendant: Attendant) -> Moved:
        address = self.on.address(self.on.b)
        request = Request(
            self.on.a.hypervisor,
            self.guest.machine,
            self.on.b.hypervisor,
            address,
            tuning,
            120.0,
            attendants=(attendant,),
        )
        return await move(request, looking)


@asynccontextmanager
async def surroundings(load: Load, link: float | None) -> AsyncIterator[Surroundings]:
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    scenario = Scenario(guest=GuestSpec(MEMORY, redline=load), link=LinkSpec(link))
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with stage(scenario, Path(folder)) as on:
            here, there = site(on.a, folder), site(on.b, folder)
            try:
                accelerator = Accelerator("tcg", "the same everywhere")
                vm = guest_vm(scenario, image, accelerator, free_page_hints=False)
                guest = await boot(on, vm, load, Nobody())
                yield Surroundings(on, guest, here, there)
            finally:
                await here.close()
                await there.close()


def site(end: LabEnd, folder: str) -> OnSite:
    return OnSite(LocalShell(end.name, end.host.enter), folder)


async def test_a_tcp_flow_keeps_the_share_that_is_left_for_it_and_the_move_gets_the_rest() -> None:
    load = Load(fill=24 * MIB, pattern=Pattern.RANDOM)
    async with surroundings(load, LINK) as these:
        hosts = these.on.a.host, these.on.b.host
        address = these.on.address(these.on.b).host
        ends = await ends_between(these.here, these.there, address, (LINK, LINK))
        leave = Leave(0.6, ends, told=these.decisions.append, lost=these.lost.append)
        looking = Looking()
        tuning = Tuning(bandwidth_limit=leave.limit)
        moving = asyncio.create_task(these.moved(looking, tuning, leave))
        await looking.under_way.wait()
        before = looking.sent
        beside = await measure_goodput(*hosts, duration=3.0)
        after = looking.sent
        assert not looking.over.is_set(), "the move was too quick to compete"
        moved = await moving
    assert moved.outcome.runs_on is Side.DESTINATION, moved.outcome.reason
    assert these.lost == []
    own = (after.transferred - before.transferred) / (after.at - before.at)
    share = beside.rate / (beside.rate + own)
    reasons = [decision.reason for decision in these.decisions]
    assert 0.25 <= own * HEADERS / LINK <= 0.45, reasons
    # A machine that is busy may keep the flow from taking all that is left for it.
    assert 0.5 <= share <= 0.75, reasons
    limits = [d.action.rate for d in these.decisions if isinstance(d.action, SetBandwidthLimit)]
    assert limits[0] == pytest.approx(0.4 * LINK / 1.05)
    assert len(limits) <= 5


async def test_compression_keeps_to_one_core_of_the_machine_that_both_hosts_are() -> None:
    load = Load(fill=96 * MIB, pattern=Pattern.TEXT)
    async with surroundings(load, None) as these:
        allowed = [Allowance(each, 1.0) for each in (these.here, these.there)]
        budget = Budget(*allowed, told=these.told.append, lost=these.lost.append)
        looking = Looking()
        tuning = Tuning(channels=2, compression=Compression(Codec.ZLIB, 6))
        moving = asyncio.create_task(these.moved(looking, tuning, budget))
        await looking.under_way.wait()
        receiving = asyncio.create_task(held_at(these.there, looking))
        used, wall, cores = await cpu_of_threads(these.guest.machine.pid, looking.over)
        moved = await moving
    assert moved.outcome.runs_on is Side.DESTINATION, moved.outcome.reason
    assert await receiving >= 2, "both channels' receivers"
    assert these.lost == []
    assert [words.split(":")[0] for words in these.told[-2:]] == ["a", "b"]
    assert wall > 0.5, "too quick to tell"
    assert cores == {1}
    assert used / wall <= 0.6, these.told


async def held_at(site: OnSite, looking: Looking) -> int:
    """Return how many threads a host has held when the guest leaves."""
    assert looking.there is not None
    held = 0
    while not looking.over.is_set():
        found = await site.ask("confine", pid=looking.there.pid, cores=0.5, lease=12.0, ends=2)
        held = max(held, found["threads"])
        await asyncio.sleep(0.1)
    return held


async def cpu_of_threads(pid: int | None, over: asyncio.Event) -> tuple[float, float, set[int]]:
    """Watch a source's moving threads until it is over.

    Returns the CPU seconds they used, the time that took, and how many cores each might use when
    it was last seen.
    """
    clock = asyncio.get_running_loop().time
    began = last = clock()
    first: dict[int, float] = {}
    latest: dict[int, float] = {}
    cores: dict[int, int] = {}
    while not over.is_set():
        for thread, cpu in _threads(pid).items():
            with suppress(OSError):
                cores[thread] = len(os.sched_getaffinity(thread))
                first.setdefault(thread, cpu)
                latest[thread] = cpu
                last = clock()
        await asyncio.sleep(0.02)
    return sum(latest.values()) - sum(first.values()), last - began, set(cores.values())


def _threads(pid: int | None) -> dict[int, float]:
    found = {}
    for folder in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            stat = parse_stat((folder / "stat").read_text())
            if thread_class(stat.name) in {ThreadClass.MIGRATION, ThreadClass.CHANNEL}:
                found[int(folder.name)] = stat.cpu
    return found

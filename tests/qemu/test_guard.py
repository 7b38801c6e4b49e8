"""The guard on real moves of a real guest, whose load changes on the way."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from whimbrel.lab.accelerator import Accelerator
from whimbrel.lab.audience import Nobody
from whimbrel.lab.guests import Guest, boot, guest_vm
from whimbrel.lab.image import build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.redline import Redline
from whimbrel.lab.stage import Stage, stage
from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import (
    Cancel,
    Decision,
    Event,
    Pass,
    Phase,
    Side,
    StartPostcopy,
)
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.plan import Certificate, Rung, Step
from whimbrel.model.scenario import GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice.move import Request, move

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the lab makes network namespaces: needs root"),
    pytest.mark.timeout(300),
]

MEMORY, LINK, DEADLINE = 256 * MIB, 25e6, 120.0
CALM = Load(fill=96 * MIB, hot=48 * MIB, dirty_rate=10 * MIB, pattern=Pattern.RANDOM, touch=64)
WILD = replace(CALM, hot=64 * MIB, dirty_rate=120 * MIB)
READY = Tuning(postcopy=Postcopy.IF_STALLED, downtime_limit=0.1)
SHORT = Policy(downtime=0.3)


@dataclass
class Meddler:
    """A watcher that loads the guest anew as soon as a pass begins."""

    redline: Redline
    load: Load | None = None
    number: int = 2
    now: float = 0.0
    changed_at: float | None = None
    task: "asyncio.Task[None] | None" = None

    def prepared(self, machine: Machine) -> None:
        """Nothing to do."""

    def happened(self, event: Event) -> None:
        """Change the load at the pass it was asked for."""
        self.now = event.at
        if isinstance(event, Pass) and event.number == self.number and self.load is not None:
            self.task = asyncio.create_task(self._change(self.load))

    def decided(self, decision: Decision) -> None:
        """Nothing to do."""

    def arrived(self, machine: Machine) -> None:
        """Nothing to do."""

    async def _change(self, load: Load) -> None:
        await self.redline.change(load)
        self.changed_at = self.now


@asynccontextmanager
async def loaded(load: Load) -> AsyncIterator[tuple[Stage, Guest]]:
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    scenario = Scenario(guest=GuestSpec(MEMORY, redline=load), link=LinkSpec(LINK))
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with stage(scenario, Path(folder)) as on:
            accelerator = Accelerator("tcg", "the same everywhere")
            vm = guest_vm(scenario, image, accelerator, free_page_hints=False)
            yield on, await boot(on, vm, load, Nobody())


async def guarded(
    on: Stage,
    guest: Guest,
    policy: Policy = SHORT,
    certificate: Certificate | None = None,
    then: Load | None = None,
) -> tuple[Outcome, Meddler]:
    """Move a guest, see that it runs once and has its memory, and return what became of it."""
    request = Request(
        source=on.a.hypervisor,
        machine=guest.machine,
        destination=on.b.hypervisor,
        address=on.address(on.b),
        tuning=READY,
        timeout=DEADLINE,
        policy=policy,
        certificate=certificate,
    )
    async with guest.redline() as redline:
        meddler = Meddler(redline, then)
        result = await move(request, meddler)
        if meddler.task is not None:
            await meddler.task
    assert result.machine is not None
    assert await result.machine.running()
    if result.outcome.runs_on is Side.DESTINATION:
        assert not await guest.machine.running()
    where = on.a if result.outcome.runs_on is Side.SOURCE else on.b
    check = await Guest(result.machine, where, guest.load).check(Nobody())
    assert check.intact
    assert check.pages_checked == CALM.fill // 4096
    return result.outcome, meddler


async def test_a_guest_that_never_converges_is_taken_to_post_copy() -> None:
    async with loaded(WILD) as (on, guest):
        outcome, _ = await guarded(on, guest)
    assert outcome.ending is Ending.COMPLETED, outcome.reason
    assert outcome.runs_on is Side.DESTINATION
    [decision] = outcome.decisions
    assert decision.action == StartPostcopy()
    assert "rewritten in every pass" in decision.reason
    assert Phase.POSTCOPY in [change.phase for change in outcome.phases]


async def test_a_guest_that_stops_converging_is_noticed_within_two_passes_or_5_s() -> None:
    async with loaded(CALM) as (on, guest):
        outcome, meddler = await guarded(on, guest, then=WILD)
    assert outcome.ending is Ending.COMPLETED, outcome.reason
    [decision] = outcome.decisions
    assert decision.action == StartPostcopy()
    assert meddler.changed_at is not None, "the load changed before the guest moved"
    assert decision.at > meddler.changed_at, "as long as it converged it was left alone"
    told = [p.at for p in outcome.passes if meddler.changed_at < p.at <= decision.at]
    assert len(told) <= 2 or decision.at - told[0] <= 5.0


async def test_without_post_copy_the_guest_stays_where_it_is_and_is_told_why() -> None:
    policy = Policy(downtime=0.3, postcopy=False)
    async with loaded(WILD) as (on, guest):
        outcome, _ = await guarded(on, guest, policy)
    assert outcome.ending is Ending.CANCELLED
    assert outcome.runs_on is Side.SOURCE
    [decision] = outcome.decisions
    assert decision.action == Cancel()
    assert decision.at < DEADLINE / 2
    assert "will not converge" in outcome.reason
    assert "300 ms" in outcome.reason
    assert "policy forbids post-copy" in outcome.reason


async def test_a_rung_is_climbed_by_the_clock_before_any_pass_can_tell() -> None:
    latest = 3.0  # the first pass takes twice as long
    surest = Rung(
        Step.POSTCOPY, READY, StartPostcopy(), latest, 1.0, 30.0, 1.0, guaranteed=True, reason=""
    )
    async with loaded(CALM) as (on, guest):
        outcome, _ = await guarded(on, guest, SHORT, Certificate((surest,), ()))
    assert outcome.ending is Ending.COMPLETED, outcome.reason
    [decision] = outcome.decisions
    assert decision.action == StartPostcopy()
    assert "certificate" in decision.reason
    assert [p.number for p in outcome.passes if p.at < decision.at] == [1]

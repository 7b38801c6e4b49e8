"""`lab --nested`: one guest moves to and fro between two emulated hosts, table after table.

    boot two hosts ─► a guest on a ─► one wire, with soft-RoCE on it
                                  └─► both wires as one team

The guest is emulated within what is emulated: its figures are compared among themselves only.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from whimbrel.errors import ConfigError, LabError
from whimbrel.lab.audience import Audience, Nobody
from whimbrel.lab.image import Image, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.ledger import Ledger
from whimbrel.lab.nested import rdma, team
from whimbrel.lab.nested.hosts import nested_hosts
from whimbrel.lab.nested.moves import nested_move, remove
from whimbrel.lab.nested.stage import ALONE, NestedGuest, NestedStage, nested_stage
from whimbrel.lab.nested.tables import nested_plan
from whimbrel.lab.plan import Planned
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import LabResult, Run, Scenario
from whimbrel.model.units import format_time

BOOT, MOVE = 60.0, 45.0
"""Seconds that booting the hosts and one move take, roughly, before anything was measured."""

ACCELERATOR = "tcg, within two emulated hosts (tcg)"


async def run_nested(
    scenarios: Sequence[Scenario],
    audience: Audience | None = None,
    command: str = "whimbrel lab --nested",
) -> LabResult:
    """Run tables on two emulated hosts and return everything that was measured.

    Whatever they are made of ends with this call, or with this process where that is killed.

    Args:
        scenarios: The tables, as `nested_tables` makes them: all with the same guest, and those
            over a single wire before those over a team.
        audience: Who is told on the way.
        command: The command line that reproduces it, for the report.

    Raises:
        ConfigError: There is no table.
        LabError: The hosts cannot be made here; the hint says what is needed.
        HostError: QEMU does not start on them.
    """
    if not scenarios:
        raise ConfigError("There is no table to run.")
    seen_by = audience or Nobody()
    first = scenarios[0]
    left = _Left(sum(len(nested_plan(each)) for each in scenarios), BOOT)
    seen_by.says(f"Two emulated hosts: {left.sentence}.")
    kernel = await asyncio.to_thread(
        find_kernel, image=first.kernel, modules=first.modules, progress=seen_by.says
    )
    image = await asyncio.to_thread(build_image, kernel, seen_by.says)
    seen_by.works("booting two emulated hosts", 0.0)
    ledger = Ledger(command)
    async with (
        nested_hosts("a", "b", wires=ALONE, told=seen_by.says) as hosts,
        nested_stage(hosts) as stage,
    ):
        bench = _Bench(stage, image, ledger, seen_by, left)
        for scenario in scenarios:
            await bench.run(scenario)
    return ledger.result()


@dataclass
class _Left:
    """How many moves are left, and about how long they take.

    Attributes:
        moves: Left.
        besides: Seconds for all else that is to come.
    """

    moves: int
    besides: float = 0.0
    _each: float = MOVE
    _done: int = 0

    def took(self, seconds: float) -> None:
        """One more move is over, which took so long with its survey and its verification."""
        self.moves -= 1
        self._done += 1
        self._each += (seconds - self._each) / self._done
        self.besides = 0.0

    @property
    def sentence(self) -> str:
        """Both in words."""
        moves = "1 move" if self.moves == 1 else f"{self.moves} moves"
        return f"{moves}, about {format_time(round(self.moves * self._each + self.besides))}"


class _Bench:
    """Two emulated hosts in use."""

    def __init__(
        self, stage: NestedStage, image: Image, ledger: Ledger, audience: Audience, left: _Left
    ) -> None:
        self._stage = stage
        self._image = image
        self._ledger = ledger
        self._audience = audience
        self._left = left
        self._guest: NestedGuest | None = None
        self._joined = False
        self._began = 0.0

    async def run(self, scenario: Scenario) -> None:
        """Make the wires what a table wants, and every move of it."""
        planned = nested_plan(scenario)
        self._audience.scenario_begins(scenario, len(planned))
        await self._wired(scenario)
        version = (await self._stage.a.hypervisor.abilities()).version
        self._ledger.begin(scenario, f"QEMU {version}", ACCELERATOR)
        for move in planned:
            self._audience.run_begins(move)
            self._began = time.monotonic()
            run = await self._one(scenario, move)
            self._left.took(time.monotonic() - self._began)
            self._entered(replace(run, preset=move.preset))

    def _entered(self, run: Run) -> None:
        self._ledger.enter(run)
        self._audience.run_ended(run)
        self._audience.measured(self._ledger.result())
        if self._left.moves:
            self._audience.says(f"  left: {self._left.sentence}")

    async def _wired(self, scenario: Scenario) -> None:
        hosts = [self._stage.a.nested, self._stage.b.nested]
        link = scenario.link
        if link.team:
            self._audience.works(f"joining two wires to one team ({link.team})", 0.0)
            if self._joined:
                await team.part(hosts)
            await team.join(hosts, team.Mode(link.team), link.rate)
            self._joined = True
            return
        self._audience.works("making RDMA devices (soft-RoCE)", 0.0)
        try:
            await asyncio.gather(*(rdma.add_device(host, ALONE) for host in hosts))
        except LabError as error:  # then the moves by it say what is missing
            self._audience.says(f"no RDMA device: {error.what}")

    async def _one(self, scenario: Scenario, planned: Planned) -> Run:
        lacking = await self._lacking(planned)
        if lacking:
            return Run(planned.method, None, planned.repeat, Ending.NOT_AVAILABLE, lacking)
        if self._guest is None:
            await remove(self._stage, None)
            self._guest = await self._stage.boot(self._image, scenario.guest, self._audience)
            self._began = time.monotonic()  # what a guest's boot takes, no other move does
        done = await nested_move(self._stage, self._guest, planned, scenario, self._audience)
        self._guest = done.guest
        return done.run

    async def _lacking(self, planned: Planned) -> str:
        """Return why these hosts cannot do what a move needs; empty where they can."""
        reasons = set()
        for end in (self._stage.a, self._stage.b):
            lacking = await end.hypervisor.lacking()
            reasons |= {lacking[need] for need in planned.tuning.needs & lacking.keys()}
        return "; ".join(sorted(reasons))

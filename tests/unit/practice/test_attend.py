"""What attends a move acts beside it, undoes at its end, and can neither delay nor break it."""

import asyncio
from dataclasses import dataclass, field

from unit.practice.fakes import (
    ADDRESS,
    FakeHypervisor,
    FakeMachine,
    FakeMigration,
    FakeReception,
    Silent,
)
from whimbrel.errors import HostError, WhimbrelError
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Observation, Phase, PhaseChange, SetBandwidthLimit, Side
from whimbrel.practice.attend import Afoot
from whimbrel.practice.move import Moved, Request, move

WAY = [Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER, Phase.COMPLETED]


@dataclass
class Attending:
    breaks: bool = False
    told: list[str] = field(default_factory=list)
    afoot: Afoot | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def attend(self, afoot: Afoot) -> None:
        self.afoot = afoot
        self.came.set()
        await afoot.migration.apply(SetBandwidthLimit(1e6))
        if self.breaks:
            raise HostError("the counters are gone")
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("undone")

    def failed(self, error: WhimbrelError) -> None:
        self.told.append(error.what)


async def moved(attendant: Attending) -> tuple[Moved, FakeMigration]:
    here, there = FakeMachine(runs=True), FakeMachine()
    script = [PhaseChange(phase, 0.1) for phase in WAY]
    migration = FakeMigration(here, [*script[:2], Observation(0.2, Phase.PRECOPY, 7), *script[2:]])
    opened = asyncio.Event()
    migration.hold = opened
    request = Request(
        FakeHypervisor("a", migration=migration),
        here,
        FakeHypervisor("b", FakeReception(there)),
        ADDRESS,
        Tuning(),
        60.0,
        attendants=(attendant,),
    )
    moving = asyncio.create_task(move(request, Silent()))
    await attendant.came.wait()
    opened.set()
    return await moving, migration


async def test_an_attendant_acts_during_the_move_and_undoes_at_its_end() -> None:
    attendant = Attending()
    result, migration = await moved(attendant)
    assert result.outcome.runs_on is Side.DESTINATION
    assert migration.applied == [SetBandwidthLimit(1e6)]
    assert attendant.told == ["undone"]
    assert attendant.afoot is not None
    latest = attendant.afoot.latest()
    assert latest is not None
    assert latest.transferred == 7


async def test_an_attendant_that_fails_is_told_and_the_move_goes_on() -> None:
    attendant = Attending(breaks=True)
    result, _ = await moved(attendant)
    assert result.outcome.runs_on is Side.DESTINATION
    assert attendant.told == ["the counters are gone"]

"""Whoever holds the guest when a move is over keeps none of its keys."""

import pytest

from unit.practice.fakes import (
    ADDRESS,
    VM,
    FakeHypervisor,
    FakeMachine,
    FakeMigration,
    FakeReception,
    Silent,
)
from whimbrel.errors import HostError
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Event, Phase, PhaseChange
from whimbrel.practice.move import Request, move


def through(*phases: Phase) -> list[Event | HostError]:
    return [PhaseChange(phase, float(number)) for number, phase in enumerate(phases)]


async def holders(script: list[Event | HostError]) -> tuple[FakeMachine, FakeMachine]:
    here, there = FakeMachine(VM, runs=True), FakeMachine(VM)
    source = FakeHypervisor("a", migration=FakeMigration(here, script, there), held=here)
    destination = FakeHypervisor("b", reception=FakeReception(there))
    await move(Request(source, here, destination, ADDRESS, Tuning(), timeout=60.0), Silent())
    return here, there


@pytest.mark.parametrize("on_the_way", [Phase.PRECOPY, Phase.SWITCHOVER])
async def test_the_destination_forgets_after_the_guest_has_arrived(on_the_way: Phase) -> None:
    here, there = await holders(through(Phase.SETUP, Phase.PRECOPY, on_the_way, Phase.COMPLETED))
    assert there.forgotten == 1
    assert here.stopped


async def test_a_post_copy_keeps_its_key_until_all_memory_has_come() -> None:
    _, there = await holders(through(Phase.SETUP, Phase.PRECOPY, Phase.POSTCOPY, Phase.COMPLETED))
    assert there.forgotten == 1


@pytest.mark.parametrize("end", [Phase.FAILED, Phase.CANCELLED])
async def test_the_source_forgets_when_it_keeps_the_guest(end: Phase) -> None:
    before = [Phase.CANCELLING] if end is Phase.CANCELLED else []
    here, there = await holders(through(Phase.SETUP, Phase.PRECOPY, *before, end))
    assert here.forgotten == 1
    assert there.stopped

"""What a move could not clear away is told, and stays to be recovered."""

from dataclasses import dataclass, replace
from pathlib import Path

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
from whimbrel.errors import GuestLost, HostError, HostUnreachable
from whimbrel.model.holder import Holder
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.journal import Entry, Step
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Phase, PhaseChange, Side
from whimbrel.ports import Machine, Reception
from whimbrel.practice.history import History
from whimbrel.practice.move import Request, move

FAILED = [
    PhaseChange(phase, float(number))
    for number, phase in enumerate((Phase.SETUP, Phase.PRECOPY, Phase.FAILED))
]
ARRIVED = [
    PhaseChange(phase, float(number))
    for number, phase in enumerate((Phase.SETUP, Phase.PRECOPY, Phase.COMPLETED))
]


class Stubborn(FakeMachine):
    """A machine that cannot be ended: its host does not answer any more."""

    async def stop(self) -> None:
        raise HostUnreachable("no way to that host")


@dataclass
class Disks:
    """A companion that may fail before memory is sent, and when it is undone."""

    pauses = True

    here: FakeMachine
    dies: bool = False
    left: str = ""
    undone: int = 0

    async def before_memory(self, reception: Reception) -> None:
        assert reception.machine is not None
        if self.dies:
            self.here.stopped = True
        raise HostError("the copy failed")

    async def before_handover(self) -> None: ...

    async def after_failure(self, machine: Machine | None) -> None:
        self.undone += 1
        if self.left:
            raise HostError(self.left)

    async def after_arrival(self) -> None: ...


class Memory:
    """A journal in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def write(self, entry: Entry) -> None:
        self.entries.append(entry)

    def note(self, entry: Entry) -> None: ...

    @property
    def told(self) -> History:
        holder = Holder("eve", "far-away", 1, 1, "boot", 0.0)
        return History(Path(), "m", "guest", "a", "b", holder, tuple(self.entries))


def request(
    here: FakeMachine, there: FakeMachine, script: list[PhaseChange], journal: Memory
) -> Request:
    return Request(
        FakeHypervisor("a", migration=FakeMigration(here, list(script), there), held=here),
        here,
        FakeHypervisor("b", reception=FakeReception(there)),
        ADDRESS,
        Tuning(),
        timeout=60.0,
        journal=journal,
    )


async def test_a_destination_that_cannot_be_ended_is_told_and_left_to_recover() -> None:
    journal = Memory()
    here, there = FakeMachine(VM, runs=True), Stubborn(VM)
    moved = await move(request(here, there, FAILED, journal), Silent())
    assert moved.outcome.runs_on is Side.SOURCE
    assert "no way to that host" in moved.outcome.reason
    assert "whimbrel recover" in moved.outcome.reason
    assert len(moved.left) == 1
    assert journal.told.runs_on is Side.SOURCE
    assert not journal.told.closed


async def test_a_source_that_cannot_be_ended_is_told_and_left_to_recover() -> None:
    journal = Memory()
    here, there = Stubborn(VM, runs=True), FakeMachine(VM)
    moved = await move(request(here, there, ARRIVED, journal), Silent())
    assert moved.outcome.runs_on is Side.DESTINATION
    assert "whimbrel recover" in moved.outcome.reason
    assert not journal.told.closed


async def test_a_move_with_nothing_left_over_is_closed() -> None:
    journal = Memory()
    here, there = FakeMachine(VM, runs=True), FakeMachine(VM)
    await move(request(here, there, FAILED, journal), Silent())
    assert journal.told.closed


async def test_a_source_that_died_before_memory_was_sent_is_not_said_to_run() -> None:
    journal = Memory()
    here, there = FakeMachine(VM, runs=True), FakeMachine(VM)
    disks = Disks(here, dies=True)
    asked = replace(request(here, there, FAILED, journal), companions=(disks,))
    with pytest.raises(GuestLost, match="runs nowhere") as caught:
        await move(asked, Silent())
    assert "whimbrel up" in caught.value.what
    assert there.stopped
    assert disks.undone == 2
    assert journal.told.runs_on is None
    assert journal.told.closed


async def test_images_that_cannot_be_removed_are_told_and_left_to_recover() -> None:
    journal = Memory()
    here, there = FakeMachine(VM, runs=True), FakeMachine(VM)
    disks = Disks(here, left="An image is left over")
    asked = replace(request(here, there, FAILED, journal), companions=(disks,))
    with pytest.raises(HostError, match="An image is left over") as caught:
        await move(asked, Silent())
    assert "whimbrel recover" in caught.value.hint
    assert there.stopped
    assert journal.told.last is Step.CLOSED
    assert not journal.told.closed


class Unreachable(FakeHypervisor):
    """A destination that is lost while it builds the VM."""

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> FakeReception:
        raise HostUnreachable("the connection broke")


async def test_a_destination_that_is_lost_while_it_builds_the_vm_is_left_to_recover() -> None:
    journal = Memory()
    here, there = FakeMachine(VM, runs=True), FakeMachine(VM)
    asked = replace(request(here, there, FAILED, journal), destination=Unreachable("b"))
    with pytest.raises(HostError, match="may wait at the destination"):
        await move(asked, Silent())
    assert journal.told.runs_on is Side.SOURCE
    assert not journal.told.closed

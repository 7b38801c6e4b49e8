"""A destination that has yet to notice that its source has ended is given time to."""

import pytest

from unit.practice.fakes import VM, FakeHypervisor, FakeMachine, FakeReception
from whimbrel.model.journal import Step
from whimbrel.model.migration import Phase, Side
from whimbrel.ports import Standing
from whimbrel.practice import repair as repairing
from whimbrel.practice.cases import case_of
from whimbrel.practice.record import Record, Unwritten
from whimbrel.practice.repair import DECIDES, Deserted, look, repair


class Noticing(FakeMachine):
    """Says that it still pulls pages for some looks, and then how that ended."""

    looks = 0
    told = Phase.POSTCOPY
    after = 3

    async def standing(self) -> Standing:
        self.looks += 1
        return Standing(self.runs, self.told if self.looks > self.after else Phase.POSTCOPY)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairing, "LOOK_AGAIN", 0.0)


def deserted(told: Phase) -> tuple[Deserted, Noticing]:
    there = Noticing(VM, runs=True)
    there.told = told
    source = FakeHypervisor("a")  # whose process has ended
    destination = FakeHypervisor("b", reception=FakeReception(there))
    return Deserted(VM.name, source, destination, last=Step.RUNNING_THERE), there


async def test_a_guest_all_of_whose_pages_had_come_is_not_called_lost() -> None:
    move, there = deserted(Phase.COMPLETED)
    repaired = await repair(move, Record(Unwritten()))
    assert repaired.runs_on is Side.DESTINATION
    assert not repaired.last.lost
    assert there.runs
    assert not there.stopped


async def test_a_guest_whose_pages_will_not_come_is_called_lost_when_that_shows() -> None:
    move, there = deserted(Phase.POSTCOPY_PAUSED)
    assert case_of(await look(move)).lost
    assert there.looks == there.after + 1


async def test_a_destination_that_never_notices_is_not_waited_for_without_end() -> None:
    move, there = deserted(Phase.POSTCOPY)
    assert case_of(await look(move)).lost
    assert there.looks == DECIDES

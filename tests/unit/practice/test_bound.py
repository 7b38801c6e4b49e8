"""A move keeps to its limit, whatever its hypervisor makes of it, and to its part of a link."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from unit.practice.fakes import FakeMachine, FakeMigration
from whimbrel.errors import HostUnreachable, WhimbrelError
from whimbrel.model.migration import Decision, Observation, Phase, SetBandwidthLimit
from whimbrel.practice import bound
from whimbrel.practice.attend import Afoot, attended
from whimbrel.practice.bound import Bound, Lane
from whimbrel.theory.sharing import HEADERS
from whimbrel.theory.windows import to_tell

RATE = 25e6
HALF, THIRD = RATE / HEADERS / 2, RATE / HEADERS / 3


@dataclass
class Neighbours:
    """Other moves on the way, one number for each look; the last stays."""

    numbers: Iterator[int]
    now: int = 0
    gone: bool = False
    looks: int = 0

    async def count(self) -> int:
        self.looks += 1
        if self.gone:
            raise HostUnreachable("b is gone")
        self.now = next(self.numbers, self.now)
        return self.now


@dataclass
class Heard:
    decisions: list[Decision] = field(default_factory=list)
    errors: list[WhimbrelError] = field(default_factory=list)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bound, "EVERY", 0.002)
    monkeypatch.setattr(bound, "COUNT_EVERY", 0.004)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - fakes set no events
            await asyncio.sleep(0.002)


async def attends(these: Neighbours, most: float | None, looks: int) -> tuple[list[object], Heard]:
    """Attend a move until others were looked for so often; return what was applied."""
    heard, machine = Heard(), FakeMachine()
    migration = FakeMigration(machine, [])
    lane = Lane(RATE, these.count)
    one = Bound(most, lane, told=heard.decisions.append, lost=heard.errors.append)
    await one.count()
    seen = Observation(0.0, Phase.PRECOPY)
    async with attended([one], Afoot(migration, machine, machine, lambda: seen)):
        await until(lambda: these.looks >= looks or bool(heard.errors))
    return list(migration.applied), heard


def rates(applied: list[object]) -> list[float | None]:
    return [each.rate for each in applied if isinstance(each, SetBandwidthLimit)]


async def test_moves_that_come_and_go_each_leave_the_others_their_part() -> None:
    applied, heard = await attends(Neighbours(iter([0, 0, 1, 2, 2, 0])), None, 8)
    assert rates(applied) == [pytest.approx(to_tell(HALF)), pytest.approx(to_tell(THIRD)), None]
    reasons = [each.reason for each in heard.decisions]
    assert reasons[0] == "1 other move is on the way over 200 Mbit/s"
    assert reasons[1] == "2 other moves are on the way over 200 Mbit/s"
    assert reasons[2] == "no other move is left over 200 Mbit/s"
    assert heard.errors == []


async def test_a_part_is_never_more_than_the_limit_that_a_person_set() -> None:
    applied, heard = await attends(Neighbours(iter([0, 1, 3, 0])), 10e6, 6)
    assert rates(applied) == [
        to_tell(10e6),
        pytest.approx(to_tell(RATE / HEADERS / 4)),
        to_tell(10e6),
    ]
    assert len(heard.decisions) == 2, "one other move leaves more than the limit"


async def test_hosts_that_no_longer_tell_leave_the_limit_as_it_is() -> None:
    these = Neighbours(iter([1]))
    heard, machine = Heard(), FakeMachine()
    migration = FakeMigration(machine, [])
    one = Bound(
        None, Lane(RATE, these.count), told=heard.decisions.append, lost=heard.errors.append
    )
    await one.count()
    these.gone = True
    async with attended([one], Afoot(migration, machine, machine, lambda: None)):
        await until(lambda: bool(heard.errors))
    assert rates(list(migration.applied)) == [pytest.approx(to_tell(HALF))]
    assert "the limit stays as it is. b is gone" in heard.errors[0].what


async def test_without_a_link_that_is_known_the_limit_alone_counts() -> None:
    heard = Heard()
    alone = Bound(5e6, None, told=heard.decisions.append, lost=heard.errors.append)
    assert not await alone.count()
    assert alone.limit == 5e6
    assert Bound(None, None, told=print, lost=print).limit is None


async def test_several_channels_are_told_less_from_the_beginning() -> None:
    heard, machine = Heard(), FakeMachine()
    migration = FakeMigration(machine, [])
    one = Bound(20e6, None, told=heard.decisions.append, lost=heard.errors.append, channels=2)
    async with attended([one], Afoot(migration, machine, machine, lambda: None)):
        await until(lambda: bool(migration.applied))
    assert rates(list(migration.applied)) == [to_tell(20e6, 2)]


async def test_while_the_guest_stands_still_nothing_is_corrected() -> None:
    heard, machine = Heard(), FakeMachine()
    migration = FakeMigration(machine, [])
    looks = 0

    def latest() -> Observation:
        nonlocal looks
        looks += 1
        return Observation(looks * 1.0, Phase.SWITCHOVER, transferred=looks * 10**9)

    one = Bound(20e6, None, told=heard.decisions.append, lost=heard.errors.append)
    async with attended([one], Afoot(migration, machine, machine, latest)):
        await until(lambda: looks > 5)
    assert rates(list(migration.applied)) == [to_tell(20e6)]

"""A move keeps to its limit, whatever its hypervisor makes of it, and to its part of a link."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.practice.fakes import FakeMachine, FakeMigration
from whimbrel.errors import HostUnreachable, WhimbrelError
from whimbrel.model.migration import Decision, Observation, Phase, SetBandwidthLimit
from whimbrel.practice import bound
from whimbrel.practice.attend import Afoot, attended
from whimbrel.practice.bound import Bound, Exact, Lane
from whimbrel.theory.sharing import HEADERS

RATE = 25e6
HALF, THIRD = RATE / HEADERS / 2, RATE / HEADERS / 3


def sends(limit: float, factor: float, more: float = 0.0, link: float = 1e12) -> list[float]:
    """Return the rates of a hypervisor that sends `factor` times what it is told, and `more`."""
    exact, sent, rates = Exact(limit), 0.0, []
    for step in range(200):
        rate = min(link, exact.told * factor + more)
        exact.hear(step * 0.25, round(sent))
        sent += rate * 0.25
        rates.append(rate)
        assert 0.5 * limit <= exact.told <= limit
    return rates


@given(st.floats(1e6, 1e9), st.floats(1.0, 1.8))
def test_a_hypervisor_that_sends_more_than_it_is_told_comes_to_send_its_limit(
    limit: float, factor: float
) -> None:
    rates = sends(limit, factor)
    assert max(rates[40:]) <= 1.031 * limit
    assert min(rates[40:]) >= 0.93 * limit


@given(st.floats(3e6, 1e9))
def test_it_also_does_where_what_it_sends_too_much_does_not_depend_on_the_limit(
    limit: float,
) -> None:
    rates = sends(limit, 1.0, more=1e6)
    assert max(rates[40:]) <= 1.031 * limit


@given(st.floats(1e6, 1e9), st.floats(0.05, 0.94))
def test_where_the_link_is_slower_than_the_limit_nothing_is_told(limit: float, link: float) -> None:
    exact, sent = Exact(limit), 0.0
    for step in range(50):
        assert exact.hear(step * 0.25, round(sent)) is None
        sent += link * limit * 0.25


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
    assert rates(applied) == [pytest.approx(HALF), pytest.approx(THIRD), None]
    reasons = [each.reason for each in heard.decisions]
    assert reasons[0] == "1 other move is on the way over 200 Mbit/s"
    assert reasons[1] == "2 other moves are on the way over 200 Mbit/s"
    assert reasons[2] == "no other move is left over 200 Mbit/s"
    assert heard.errors == []


async def test_a_part_is_never_more_than_the_limit_that_a_person_set() -> None:
    applied, heard = await attends(Neighbours(iter([0, 1, 3, 0])), 10e6, 6)
    assert rates(applied) == [10e6, pytest.approx(RATE / HEADERS / 4), 10e6]
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
    assert rates(list(migration.applied)) == [pytest.approx(HALF)]
    assert "the limit stays as it is. b is gone" in heard.errors[0].what


async def test_without_a_link_that_is_known_the_limit_alone_counts() -> None:
    heard = Heard()
    alone = Bound(5e6, None, told=heard.decisions.append, lost=heard.errors.append)
    assert not await alone.count()
    assert alone.limit == 5e6
    assert Bound(None, None, told=print, lost=print).limit is None

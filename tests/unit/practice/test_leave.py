"""A share of the NICs is left for others while a move runs."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from unit.practice.fakes import FakeMachine, FakeMigration
from whimbrel.errors import (
    ConfigError,
    HostError,
    HostUnreachable,
    ProtocolError,
    WhimbrelError,
)
from whimbrel.model.migration import Decision, Observation, Phase, SetBandwidthLimit
from whimbrel.practice import leave
from whimbrel.practice.attend import Afoot, attended
from whimbrel.practice.leave import End, Leave, counted_in, end_with, ends_between
from whimbrel.theory.windows import to_tell

RATE = 1e6
INTERFACES = {
    "eth0": {"addresses": ["10.0.0.1/24"], "rate": RATE},
    "eth1": {"addresses": ["10.0.1.1/24", "fe80::1/64"], "rate": 2 * RATE},
    "tun0": {"addresses": ["10.0.2.1/24"], "rate": None},
}


@dataclass
class Counting:
    """A site whose interface carries so many bytes per second, told as often as asked."""

    rate: float = 0.0
    breaks_after: int = 10**9
    name: str = "a"
    folder: str = ""
    asked: int = 0

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        if question == "interfaces":
            return INTERFACES
        if question == "link_route":
            return "10.0.0.1"
        assert question == "counters"
        self.asked += 1
        if self.asked > self.breaks_after:
            raise HostUnreachable("the cable is gone")
        at = self.asked * 0.25
        figures = {"sent": round(self.rate * at), "received": round(self.rate * at)}
        return {"at": at, "interfaces": {"eth0": figures}}

    async def socket(self, path: str) -> Any:
        raise AssertionError

    async def close(self) -> None:
        pass


@dataclass
class Heard:
    decisions: list[Decision] = field(default_factory=list)
    lost: list[WhimbrelError] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.came.set()

    def gone(self, error: WhimbrelError) -> None:
        self.lost.append(error)
        self.came.set()


async def attend(
    site: Counting, monkeypatch: pytest.MonkeyPatch, news: int
) -> tuple[FakeMigration, Heard]:
    """Attend a move until so many things were told."""
    monkeypatch.setattr(leave, "EVERY", 0.05)
    machine, heard = FakeMachine(), Heard()
    migration = FakeMigration(machine, [])
    began = asyncio.get_running_loop().time()

    def latest() -> Observation:
        at = asyncio.get_running_loop().time() - began
        return Observation(at, Phase.PRECOPY, transferred=0)

    ends = [End(site, ("eth0",), RATE, receives) for receives in (False, True)]
    leaving = Leave(0.3, ends, told=heard.told, lost=heard.gone)
    async with attended([leaving], Afoot(migration, machine, machine, latest)):
        while len(heard.decisions) + len(heard.lost) < news:
            heard.came.clear()
            await heard.came.wait()
    return migration, heard


async def test_the_limit_leaves_the_share_from_the_first_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    migration, heard = await attend(Counting(), monkeypatch, 1)
    may = (1 - 0.3) * RATE / 1.05
    assert migration.applied == [SetBandwidthLimit(to_tell(may))]
    assert [d.action for d in heard.decisions] == [SetBandwidthLimit(may)]
    assert "30% of 8 Mbit/s stays for others" in heard.decisions[0].reason


async def test_the_limit_follows_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    migration, heard = await attend(Counting(rate=2.5e6), monkeypatch, 2)
    assert len(migration.applied) == 2
    assert "others use" in heard.decisions[-1].reason


async def test_counters_that_are_lost_are_told_and_the_limit_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    migration, heard = await attend(Counting(breaks_after=2), monkeypatch, 2)
    assert len(migration.applied) == 1
    assert "the limit stays as it is. the cable is gone" in heard.lost[0].what


@pytest.mark.parametrize("answer", [{}, {"at": 1.0, "interfaces": {}}, {"at": None}])
def test_an_interface_that_is_not_told_is_an_error(answer: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="eth0"):
        counted_in(answer, ("eth0",), receives=True)


def test_counters_of_joined_interfaces_are_added_up() -> None:
    two = {name: {"sent": 5, "received": 7} for name in ("eth0", "eth1")}
    answer = {"at": 1.0, "interfaces": two}
    assert counted_in(answer, ("eth0", "eth1"), receives=True).bytes == 14


async def test_the_interfaces_of_a_move_are_found_by_its_address() -> None:
    here, there = Counting(), Counting(name="b")
    ends = await ends_between(here, there, "10.0.1.1", (None, 5.0))
    assert ends == (End(here, ("eth0",), RATE, False), End(there, ("eth1",), 5.0, True))


def test_interfaces_that_are_joined_carry_what_they_carry_together() -> None:
    end = end_with(Counting(), INTERFACES, ("10.0.0.1", "10.0.1.1"), None, receives=True)
    assert end.rate == 3 * RATE


def test_an_interface_whose_rate_nobody_knows_is_told_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match="nobody knows the rate of tun0"):
        end_with(Counting(), INTERFACES, ("10.0.2.1",), None, receives=True)
    with pytest.raises(HostError, match=r"no interface with the address 10\.9"):
        end_with(Counting(), INTERFACES, ("10.9.9.9",), 1.0, receives=True)

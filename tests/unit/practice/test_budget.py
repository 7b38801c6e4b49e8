"""The budget of cores is asked of both hosts, renewed while the move runs, and undone."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from unit.practice.fakes import FakeMachine, FakeMigration
from whimbrel.errors import ConfigError, HostUnreachable, WhimbrelError
from whimbrel.model.migration import Observation, Phase
from whimbrel.practice import budget
from whimbrel.practice.attend import Afoot, attended
from whimbrel.practice.budget import Allowance, Budget, told

HELD = {"means": "affinity", "cores": [3], "nice": 5, "threads": 2, "known": True}


@dataclass
class Holding:
    """A site that holds threads, and breaks where it is told to."""

    name: str
    breaks_after: int = 10**9
    folder: str = ""
    boot: str = ""
    held: set[tuple[float | None, int | None]] = field(default_factory=set)
    asked: list[tuple[str, int]] = field(default_factory=list)
    arriving: list[bool] = field(default_factory=list)
    renewed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        if question == "boot_id":
            return self.boot or self.name
        if len(self.asked) >= self.breaks_after:
            raise HostUnreachable("gone")
        self.asked.append((question, arguments["pid"]))
        self.arriving.append(arguments.get("arriving", False))
        self.held.add((arguments.get("cores"), arguments.get("ends")))
        if len(self.asked) == 3:
            self.renewed.set()
        return HELD

    async def socket(self, path: str) -> Any:
        raise AssertionError

    async def close(self) -> None:
        pass


@dataclass
class Heard:
    words: list[str] = field(default_factory=list)
    errors: list[WhimbrelError] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def fails(self, error: WhimbrelError) -> None:
        self.errors.append(error)
        self.lost.set()


def afoot(pid: int | None = 7) -> Afoot:
    here, there = FakeMachine(pid=pid), FakeMachine(pid=8)
    return Afoot(FakeMigration(here, []), here, there, lambda: None)


async def last_asked(site: Holding, question: str) -> None:
    async with asyncio.timeout(10):
        while site.asked[-1][0] != question:  # noqa: ASYNC110 - it is asked from time to time
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "RENEW_EVERY", 0.01)
    monkeypatch.setattr(budget, "LOOK_EVERY", 0.002)


async def test_both_hosts_hold_their_process_until_the_move_is_over() -> None:
    a, b, heard = Holding("a"), Holding("b"), Heard()
    both = Budget(Allowance(a, 1.5), Allowance(b, 2.0), told=heard.words.append, lost=heard.fails)
    async with attended([both], afoot()):
        await a.renewed.wait()
        await b.renewed.wait()
    for site, pid in ((a, 7), (b, 8)):
        assert {question for question, _ in site.asked[:-1]} == {"confine"}
        assert site.asked[-1] == ("release_threads", pid)
        assert {each for _, each in site.asked} == {pid}
    assert len(heard.words) == 2
    assert heard.errors == []


async def test_two_ends_on_one_machine_have_its_budget_together() -> None:
    for boots, held, says in ((("x", "x"), (0.5, 2), True), (("x", "y"), (1.0, 1), False)):
        a, b = (Holding(name, boot=boot) for name, boot in zip("ab", boots, strict=True))
        heard = Heard()
        both = Budget(
            Allowance(a, 1.0), Allowance(b, 1.0), told=heard.words.append, lost=heard.fails
        )
        async with attended([both], afoot()):
            await a.renewed.wait()
            await b.renewed.wait()
        for site in (a, b):
            assert site.held - {(None, None)} == {held}
        assert any("either end has half" in words for words in heard.words) is says
        assert heard.errors == []


async def test_a_destination_that_is_built_meanwhile_is_held_once_it_is_there() -> None:
    a, b, heard = Holding("a"), Holding("b"), Heard()
    both = Budget(Allowance(a, 1.0), Allowance(b, 1.0), told=heard.words.append, lost=heard.fails)
    here, there = FakeMachine(pid=7), FakeMachine(pid=None)
    async with attended([both], Afoot(FakeMigration(here, []), here, there, lambda: None)):
        await a.renewed.wait()
        assert b.asked == []
        there.pid = 8
        await b.renewed.wait()
    assert b.asked[-1] == ("release_threads", 8)
    assert len(heard.words) == 2
    assert heard.errors == []


async def test_while_the_guest_stands_still_nothing_is_held_and_then_held_again() -> None:
    a, heard = Holding("a"), Heard()
    only = Budget(Allowance(a, 1.0), None, told=heard.words.append, lost=heard.fails)
    seen = [Observation(0.0, Phase.PRECOPY)]
    here, there = FakeMachine(pid=7), FakeMachine(pid=8)
    afoot = Afoot(FakeMigration(here, []), here, there, lambda: seen[-1])
    async with attended([only], afoot):
        await a.renewed.wait()
        seen.append(Observation(1.0, Phase.SWITCHOVER))
        await last_asked(a, "release_threads")
        seen.append(Observation(2.0, Phase.POSTCOPY))
        await last_asked(a, "confine")
    assert a.asked[-1] == ("release_threads", 7)
    assert len(heard.words) == 1
    assert heard.errors == []


async def test_only_a_destination_whose_guest_is_on_its_way_is_held_as_a_whole() -> None:
    a, b, heard = Holding("a"), Holding("b"), Heard()
    both = Budget(Allowance(a, 1.0), Allowance(b, 1.0), told=heard.words.append, lost=heard.fails)
    seen = [Observation(0.0, Phase.PRECOPY)]
    here, there = FakeMachine(pid=7), FakeMachine(pid=8)
    afoot = Afoot(FakeMigration(here, []), here, there, lambda: seen[-1])
    async with attended([both], afoot):
        await b.renewed.wait()
        assert b.arriving[:3] == [True, True, True]
        seen.append(Observation(1.0, Phase.POSTCOPY))  # too short a standstill to be seen
        async with asyncio.timeout(10):
            while b.arriving[-1]:  # noqa: ASYNC110 - it is asked from time to time
                await asyncio.sleep(0.002)
        assert b.asked[-1] == ("confine", 8)
    assert not any(a.arriving)
    assert heard.errors == []


async def test_a_host_that_is_lost_is_told_and_the_other_let_go() -> None:
    a, b, heard = Holding("a", breaks_after=2), Holding("b"), Heard()
    both = Budget(Allowance(a, 1.0), Allowance(b, 1.0), told=heard.words.append, lost=heard.fails)
    async with attended([both], afoot()):
        await heard.lost.wait()
    assert "no longer held. gone" in heard.errors[0].what
    assert b.asked[-1] == ("release_threads", 8)


async def test_one_host_alone_may_have_a_budget() -> None:
    b, heard = Holding("b"), Heard()
    only = Budget(None, Allowance(b, 1.0), told=heard.words.append, lost=heard.fails)
    async with attended([only], afoot()):
        await b.renewed.wait()
    assert [words.split(":")[0] for words in heard.words] == ["b"]


async def test_a_machine_without_a_process_is_told() -> None:
    a, heard = Holding("a"), Heard()
    one = Budget(Allowance(a, 1.0), None, told=heard.words.append, lost=heard.fails)
    async with attended([one], afoot(pid=None)):
        await heard.lost.wait()
    assert a.asked == []


@pytest.mark.parametrize("cores", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(cores: float) -> None:
    with pytest.raises(ConfigError):
        Budget(Allowance(Holding("a"), cores), None, told=print, lost=print)


def test_how_threads_are_held_is_said_with_its_limits() -> None:
    asked = Allowance(Holding("a"), 0.5)
    assert "niceness 5: guests go first; exact only beside" in told(asked, HELD)
    assert "held by a quota; guests go first" in told(
        asked, HELD | {"means": "cgroup v2", "nice": 0}
    )
    assert "does not name its threads" in told(asked, HELD | {"known": False})

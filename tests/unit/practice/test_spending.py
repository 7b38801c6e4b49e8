"""What the threads of a move use is looked at while memory flows, and carried on to its end."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from unit.practice.fakes import FakeMachine, FakeMigration
from whimbrel.errors import HostUnreachable
from whimbrel.model.migration import Observation, Phase
from whimbrel.practice import spending
from whimbrel.practice.attend import Afoot, attended
from whimbrel.practice.spending import Spending, Spent

NAMED = {"qemu-system-x86": 0.5, "CPU 0/KVM": 9.0, "mig/src/main": 2.0, "mig/dst/recv_0": 1.0}
UNNAMED = {"qemu-system-x86": 9.0}


@dataclass
class Told:
    """A site that tells what threads used, or breaks."""

    name: str
    threads: dict[str, float] | None = field(default_factory=lambda: dict(NAMED))
    folder: str = ""
    asked: int = 0

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        assert question == "thread_seconds"
        assert arguments["pid"] in {7, 8}
        self.asked += 1
        if self.threads is None:
            raise HostUnreachable("gone")
        return self.threads

    async def socket(self, path: str) -> Any:
        raise AssertionError

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "LOOK_EVERY", 0.002)


async def looked(
    source: Told,
    destination: Told,
    seen: list[Observation],
    *,
    channels: bool = False,
    pid: int | None = 7,
) -> Spending:
    """Attend a move that is seen as the first until a look, and as the last when it is over."""
    now = [seen[0]]
    here, there = FakeMachine(pid=pid), FakeMachine(pid=8)
    afoot = Afoot(FakeMigration(here, []), here, there, lambda: now[0])
    attendant = Spending(source, destination, channels=channels)
    async with attended([attendant], afoot):
        for _ in range(100):
            await asyncio.sleep(0.002)
            if source.asked > 1:
                break
        now[0] = seen[-1]
    return attendant


PRECOPY = Observation(1.0, Phase.PRECOPY, normal_pages=1000)
OVER = Observation(2.0, Phase.COMPLETED, normal_pages=1500)


async def test_what_the_last_look_found_is_carried_on_to_the_last_page() -> None:
    attendant = await looked(Told("a"), Told("b"), [PRECOPY, OVER], channels=True)
    assert attendant.spent == Spent(source=4.5, destination=4.5, pages=1500)


async def test_the_main_thread_counts_where_it_receives() -> None:
    attendant = await looked(Told("a"), Told("b"), [PRECOPY])
    assert attendant.spent == Spent(source=3.0, destination=3.5, pages=1000)


@pytest.mark.parametrize("source", [Told("a", UNNAMED), Told("a", None)])
async def test_where_threads_cannot_be_told_apart_nothing_is_said(source: Told) -> None:
    assert (await looked(source, Told("b"), [PRECOPY, OVER])).spent is None


async def test_nothing_is_asked_of_a_process_that_is_not_known() -> None:
    source = Told("a")
    assert (await looked(source, Told("b"), [PRECOPY], pid=None)).spent is None
    assert source.asked == 0


@pytest.mark.parametrize("phase", [Phase.SETUP, Phase.POSTCOPY, Phase.COMPLETED])
async def test_only_while_memory_flows_into_a_process_that_does_nothing_else(phase: Phase) -> None:
    source = Told("a")
    attendant = await looked(source, Told("b"), [Observation(1.0, phase, normal_pages=1000)])
    assert (attendant.spent, source.asked) == (None, 0)

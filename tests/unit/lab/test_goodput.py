import sys
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import pytest

from whimbrel.errors import LabError
from whimbrel.lab import goodput
from whimbrel.lab.goodput import measure_goodput
from whimbrel.lab.hosts import LabHost


@dataclass(frozen=True)
class Here(LabHost):
    """A host without a namespace: the loopback link of this machine."""

    name: str = "a"
    namespace: str = ""
    addresses: tuple[str, ...] = ("127.0.0.1", "127.0.0.2")
    interfaces: tuple[str, ...] = ("lo", "lo")

    def enter(self, command: Sequence[str]) -> list[str]:
        return list(command)


@dataclass(frozen=True)
class Broken(Here):
    """A host on which every command is this one instead."""

    command: tuple[str, ...] = ("false",)

    def enter(self, command: Sequence[str]) -> list[str]:
        del command
        return list(self.command)


@pytest.fixture(autouse=True)
def nothing_stays() -> object:
    yield
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize("streams", [1, 3])
async def test_what_was_received_is_told_with_the_seconds_it_took(streams: int) -> None:
    found = await measure_goodput(Here(), Here(), duration=0.2, streams=streams, link=1)
    assert found.rate > 0
    assert found.latency > 0
    assert found.seconds >= 0.2
    assert (found.streams, found.mptcp) == (streams, False)


async def test_an_end_that_fails_is_told_in_its_own_words() -> None:
    words = (sys.executable, "-c", "raise SystemExit('no route at all')")
    with pytest.raises(LabError, match="no route at all"):
        await measure_goodput(Here(), Broken(command=words))


async def test_an_end_that_fails_after_it_listened_is_told_too() -> None:
    words = (sys.executable, "-c", "raise SystemExit('no way back')")
    with pytest.raises(LabError, match="no way back"):
        await measure_goodput(Broken(command=words), Here(), duration=0.1)


async def test_an_end_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goodput, "PATIENCE", 0.1)
    with pytest.raises(LabError, match="no result after"):
        await measure_goodput(Here(), Broken(command=("sleep", "60")), duration=0.1)

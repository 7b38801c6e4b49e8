"""When a move begins: flags read, moments and quiet guests waited for."""

import time
from typing import cast

import pytest

from unit.practice.fakes import FakeMachine
from whimbrel.cli.later import Later, Occasion, until_still, until_time
from whimbrel.errors import ConfigError
from whimbrel.ports import Inspection, Written
from whimbrel.practice import quiet


def nobody(_: str) -> None:
    pass


def test_without_flags_a_move_begins_at_once() -> None:
    assert Later.read(None, None, "2 h") == Later()


def test_the_flags_are_read() -> None:
    later = Later.read("in 1 h", Occasion.QUIET, "30 min")
    assert later.moment == pytest.approx(time.time() + 3600, abs=60)
    assert (later.quiet, later.longest) == (True, 1800.0)


@pytest.mark.parametrize(("at", "at_most"), [("yesterday", "1 h"), (None, "ages"), (None, "0 s")])
def test_what_cannot_be_meant_is_refused(at: str | None, at_most: str) -> None:
    with pytest.raises(ConfigError):
        Later.read(at, None, at_most)


async def test_a_moment_is_waited_for_and_shown() -> None:
    shown: list[str] = []
    await until_time(Later(moment=time.time() + 0.01), shown.append)
    assert shown[0].startswith("waiting for 2")


async def test_who_asks_for_nothing_waits_for_nothing() -> None:
    await until_time(Later(), nobody)
    await until_still(Later(), FakeMachine(), None, nobody, nobody)


class Idle:
    """Looks into a guest that writes nothing."""

    async def written(self, window: float) -> Written:
        return Written(window, 0.0, 0.0)


class IdleMachine(FakeMachine):
    def inspection(self) -> Inspection:
        return cast("Inspection", Idle())


async def test_a_guest_that_writes_nothing_is_quiet_at_once_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quiet, "SOON", 0.0)
    said: list[str] = []
    await until_still(Later(quiet=True), IdleMachine(), None, nobody, said.append)
    assert said == ["The guest writes 0 B/s, which is next to nothing."]

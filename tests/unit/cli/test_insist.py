"""How often a command recovers its own move."""

from typing import Any, cast

import pytest

from whimbrel.cli import recover
from whimbrel.model.migration import Side
from whimbrel.practice.cases import Case, Repair
from whimbrel.practice.repair import Repaired

LEFT = Case("It is paused.", Repair.LEAVE)
HOPELESS = Repaired((LEFT,), None, hopeless=True)
UNKNOWN = Repaired((LEFT,), None)
FOUND = Repaired((Case("It runs.", Repair.NOTHING, Side.SOURCE),), Side.SOURCE)


@pytest.mark.parametrize(
    ("repairs", "last"),
    [([HOPELESS, FOUND], HOPELESS), ([UNKNOWN, FOUND], FOUND), ([FOUND, UNKNOWN], FOUND)],
)
async def test_it_is_tried_again_until_it_is_known_or_nothing_can_come_of_it(
    monkeypatch: pytest.MonkeyPatch, repairs: list[Repaired], last: Repaired
) -> None:
    left = iter(repairs)

    class Job:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        async def carry_out(self) -> list[tuple[None, Repaired]]:
            return [(None, next(left))]

    monkeypatch.setattr(recover, "_Job", Job)
    monkeypatch.setattr(recover, "AGAIN", 0.0)
    assert await recover.insist(cast("Any", None), "db", 60.0, lambda _: None) is last

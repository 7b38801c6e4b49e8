"""The wait for a moment on the clock."""

import pytest

from whimbrel.practice import later
from whimbrel.practice.later import until_moment


class Clock:
    """A clock that goes on by a step whenever it is read."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)

    def __call__(self) -> float:
        return self.times.pop(0)


async def test_a_moment_that_has_passed_is_not_waited_for() -> None:
    assert await until_moment(10.0, now=Clock(12.0)) == 2.0


async def test_a_clock_that_is_set_meanwhile_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "STEP", 0.0)
    left: list[float] = []
    late = await until_moment(100.0, now=Clock(0.0, 90.0, 10.0, 101.0), told=left.append)
    assert left == [100.0, 10.0, 90.0]
    assert late == 1.0

"""The wait for a quiet guest."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from whimbrel.errors import HostUnreachable
from whimbrel.practice.quiet import until_quiet


def looks(*rates: float) -> Callable[[], Awaitable[float]]:
    left = list(rates)

    async def look() -> float:
        return left.pop(0)

    return look


async def test_it_waits_until_the_guest_is_quiet_and_tells_each_look() -> None:
    begun: list[bool] = []
    found = await until_quiet(
        looks(9e7, 9e7, 8e7, 9e7, 1e6, 1e6),
        every=0.0,
        told=lambda each: begun.append(each.begin),
    )
    assert "low for it" in found.reason
    assert begun == [False] * 5 + [True]


async def test_it_waits_no_longer_than_it_was_told() -> None:
    found = await until_quiet(looks(*[9e7, 3e7] * 9), every=60.0, longest=0.05)
    assert "over" in found.reason


async def test_a_look_that_hangs_does_not_outlast_the_deadline() -> None:
    async def hangs() -> float:
        await asyncio.Event().wait()
        raise AssertionError

    found = await until_quiet(hangs, longest=0.05)
    assert "could not be looked at" in found.reason


async def test_a_host_that_fails_ends_the_wait() -> None:
    async def gone() -> float:
        raise HostUnreachable("gone")

    with pytest.raises(HostUnreachable):
        await until_quiet(gone)

"""The holder of warm memory: what it keeps, and that nothing of it is left."""

import asyncio
from pathlib import Path

import psutil
import pytest

from whimbrel.lab import warm as warm_memory
from whimbrel.lab.warm import WarmMemory
from whimbrel.model.units import GIB, MIB

SIZE = 32 * MIB


def holders() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "mmap" in " ".join(each.cmdline())]


async def gone(holder: psutil.Process) -> None:
    """Wait until it has let everything go."""
    async with asyncio.timeout(10):
        while holder.is_running() and holder.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_memory_is_held_until_it_is_released() -> None:
    async with WarmMemory(SIZE) as warm:
        await warm.hold()
        await warm.held()
        [holder] = holders()
        assert holder.memory_info().rss >= SIZE
        await warm.release()
        await gone(holder)
    assert not holders()
    assert not Path(f"/proc/{holder.pid}").exists()


async def test_what_nobody_takes_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_memory, "_AHEAD", -GIB)
    async with WarmMemory(SIZE) as warm:
        await warm.hold()
        await warm.release()
        [holder] = holders()
        assert holder.memory_info().rss >= SIZE
        await warm.hold()
        [another] = holders()
        assert another.pid != holder.pid
    assert not holders()


async def test_waiting_for_what_is_held_already_or_not_at_all_takes_no_time() -> None:
    async with WarmMemory(SIZE) as warm:
        await warm.held()
        await warm.hold()
        await warm.held()
        await asyncio.wait_for(warm.held(), 10)
        await warm.release()
        await warm.release()


async def test_nothing_is_left_when_it_is_given_up_while_it_is_filled() -> None:
    async with WarmMemory(SIZE) as warm:
        await warm.hold()
    assert not holders()


async def test_nothing_is_held_where_memory_is_short() -> None:
    async with WarmMemory(psutil.virtual_memory().total + GIB) as warm:
        await warm.hold()
        assert not holders()

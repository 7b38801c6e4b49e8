"""Children are killed without taking their end away from asyncio."""

import asyncio
import os
import signal
import sys
from contextlib import suppress

import pytest

from whimbrel.hypervisors.qemu.process import kill


async def child(code: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", code)


async def test_a_child_that_goes_on_is_killed() -> None:
    process = await child("import signal; signal.pause()")
    kill(process)
    assert await process.wait() == -signal.SIGKILL


async def test_a_child_that_has_just_ended_keeps_its_exit_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(10):
        process = await child("raise SystemExit(7)")
        # It ends, and asyncio is not told yet: its own kill would take the exit code away.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - just so
        kill(process)
        assert await process.wait() == 7
    assert not caplog.records


async def test_one_whose_end_is_known_is_left_alone() -> None:
    process = await child("")
    assert await process.wait() == 0
    kill(process)
    assert process.returncode == 0

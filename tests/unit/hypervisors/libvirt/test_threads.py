"""Calls in threads of their own."""

import asyncio
import subprocess
import sys
import threading

import pytest

from whimbrel.hypervisors.libvirt.threads import Threads

PATIENCE = 60.0
STUCK = """
import asyncio, threading
from whimbrel.hypervisors.libvirt.threads import Threads

async def ask():
    asked = asyncio.ensure_future(Threads("x").call(threading.Event().wait))
    await asyncio.wait([asked], timeout=0.1)

asyncio.run(ask())
print("ended")
"""
OPEN = """
import asyncio, sys
from whimbrel.hypervisors.libvirt.connection import Connection

async def ask():
    host = await Connection.open("x", "test:///default")
    vm = await host.domain("test")
    vm.around = host.around = vm, host  # so that only the end of the process finds them
    await host.close()
    return type(vm._handle), type(host._handle)

def told(kind):
    closes = kind.__del__
    def closed(handle):
        if handle._o is not None:
            print("closes", kind.__name__)
        closes(handle)
    return closed

for kind in asyncio.run(ask()):
    kind.__del__ = told(kind)
print("ended")
"""


async def test_a_call_returns_or_raises_what_it_would() -> None:
    threads = Threads("x")
    assert await threads.call(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.call(divmod, 7, 0)


async def test_calls_do_not_wait_for_each_other() -> None:
    threads, both = Threads("x"), threading.Barrier(2)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(threads.call(both.wait), threads.call(both.wait))


async def test_nobody_hears_of_a_call_that_was_not_waited_for() -> None:
    threads, go = Threads("x"), threading.Event()
    asked = asyncio.ensure_future(threads.call(go.wait))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    go.set()
    assert await threads.call(go.is_set)
    assert asked.cancelled()


async def test_after_the_end_nothing_is_called() -> None:
    threads = Threads("x")
    threads.close()
    with pytest.raises(RuntimeError):
        await threads.call(print)


def test_a_process_ends_while_a_call_never_returns() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == "ended\n"


def test_the_end_of_a_process_closes_nothing_that_would_have_to_be_answered() -> None:
    pytest.importorskip("libvirt")
    done = subprocess.run(
        [sys.executable, "-c", OPEN], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")

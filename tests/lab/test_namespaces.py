"""The lab's hosts as the kernel really makes them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from whimbrel.errors import LabError
from whimbrel.lab.counters import Counters, interface_bytes
from whimbrel.lab.folders import bases
from whimbrel.lab.goodput import Goodput, measure_goodput
from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.leftovers import Leftovers, find_leftovers, remove_leftovers
from whimbrel.lab.links import shape_of
from whimbrel.lab.namespaces import in_namespace, inhabitants, namespace_names
from whimbrel.lab.owner import Owner, owner_of_folder, owner_of_namespace

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="making network namespaces needs root")

MEGABIT = 1e6 / 8
STRETCH = 0.1
"""Seconds from one reading of the wire's counters to the next."""

ANOTHER_LAB = dedent("""
    import subprocess, sys
    from whimbrel.lab.folders import run_folder
    from whimbrel.lab.hosts import two_hosts

    with run_folder() as folder, two_hosts(None) as (a, b):
        (folder / "console").touch()
        with subprocess.Popen(a.enter(["sleep", "300"])) as guest:
            print(guest.pid, flush=True)
            sys.stdin.readline()
            guest.kill()
""")


@contextmanager
def another_lab() -> Iterator[tuple[subprocess.Popen[str], int, Owner]]:
    """Another whimbrel process that runs a lab with one guest: process, guest's pid, owner."""
    words = [sys.executable, "-W", "error", "-c", ANOTHER_LAB]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            yield process, int(process.stdout.readline()), Owner.of(process.pid)
        finally:
            process.kill()
            process.wait()
            remove_leftovers(only(Owner(process.pid, 0)))


def only(owner: Owner) -> Leftovers:
    """What the pid of one owner left: a test must not touch what others left."""
    found = find_leftovers()

    def his(other: Owner | None) -> bool:
        return other is not None and other.pid == owner.pid

    return Leftovers(
        tuple(name for name in found.namespaces if his(owner_of_namespace(name))),
        tuple(folder for folder in found.folders if his(owner_of_folder(folder.name))),
    )


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone; its parent may not have collected it yet."""
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return True


def ours() -> set[str]:
    owner = Owner.current()
    return {owner.namespace("a"), owner.namespace("b")} & set(namespace_names())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    network = Path("/proc/self/ns/net").stat().st_ino
    files = open_files()
    threads = threading.active_count()
    yield
    assert not ours()
    assert not psutil.Process().children(recursive=True)
    assert Path("/proc/self/ns/net").stat().st_ino == network
    assert open_files() <= files + 2  # the event loop's own come and go
    # asyncio's waiters for child processes end a moment after their processes
    for waiter in threading.enumerate():
        if waiter.name.startswith("asyncio-waitpid"):
            waiter.join(30)
    assert threading.active_count() <= threads + 1


def answers(caller: LabHost, called: LabHost, link: int) -> bool:
    """Tell whether a call from one host reaches the other over a link."""
    address = (called.addresses[link], 5000)
    with in_namespace(called.namespace, lambda: socket.create_server(address)):

        def call() -> socket.socket:
            return socket.create_connection(address, timeout=5)

        with in_namespace(caller.namespace, call) as connection:
            return bool(connection.getsockname()[0] == caller.addresses[link])


@dataclass(frozen=True)
class Wire:
    """What a busy sender put on the wire, headers counted.

    A machine that is busy itself carries less for a while, never more: the whole tells the most
    that a link gives, the best stretch what it gives to a sender that is let work.

    Attributes:
        found: What the receiver counted.
        total: Bytes from the first reading to the last.
        seconds: The time between the two, rather too much.
        best: Bytes per second of the best stretch, rather too few.
    """

    found: Goodput
    total: int
    seconds: float
    best: float


async def keep_busy(
    sender: LabHost, receiver: LabHost, *, streams: int = 1, mptcp: bool = False
) -> Wire:
    """Pour over a link for a second, and read the sender's counters meanwhile."""
    pouring = asyncio.create_task(
        measure_goodput(sender, receiver, duration=1.0, streams=streams, mptcp=mptcp)
    )
    start = interface_bytes(sender)

    def read() -> tuple[float, int, float]:
        began = time.monotonic()
        return began, sum(sent(start, sender)), time.monotonic()

    readings = [read()]
    while not pouring.done():
        await asyncio.wait({pouring}, timeout=STRETCH)
        readings.append(read())
    found = await pouring
    (first, base, _), (_, total, last) = readings[0], readings[-1]
    best = max(
        (after[1] - before[1]) / (after[2] - before[0]) for before, after in pairwise(readings)
    )
    return Wire(found, total - base, last - first, best)


def sent(before: dict[str, tuple[int, int]], host: LabHost) -> list[int]:
    """Bytes sent by each interface of a host since `before`."""
    after = interface_bytes(host)
    return [after[name][1] - before[name][1] for name in host.interfaces]


def test_hosts_reach_each_other_both_ways_over_every_link() -> None:
    with two_hosts(100 * MEGABIT, 3) as (a, b):
        for link in range(3):
            assert answers(a, b, link)
            assert answers(b, a, link)


def test_a_command_runs_on_its_host_under_the_pid_that_was_started() -> None:
    with two_hosts(None) as (a, _):
        ask = "import os, socket; print(os.getpid(), [name for _, name in socket.if_nameindex()])"
        with subprocess.Popen(
            a.enter([sys.executable, "-c", ask]), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.read().split(maxsplit=1) == [f"{process.pid}", "['lo', 'w0']\n"]


@pytest.mark.parametrize("surprise", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_hosts_are_gone_after_a_surprise(surprise: type[BaseException]) -> None:
    def meet() -> None:
        with two_hosts(None):
            assert len(ours()) == 2
            raise surprise

    with pytest.raises(surprise):
        meet()


@pytest.mark.parametrize("when", ["built", "anytime"])
def test_an_interrupt_from_outside_leaves_nothing(when: str) -> None:
    hold = "import signal; signal.pause()" if when == "built" else "pass"
    script = dedent(f"""
        from whimbrel.lab.hosts import two_hosts
        while True:
            with two_hosts(None, 2):
                print("built", flush=True)
                {hold}
    """)
    words = [sys.executable, "-W", "error", "-c", script]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        owner = Owner.of(process.pid)
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline(), process.stderr.read()
        process.send_signal(signal.SIGINT)
        try:
            _, complaint = process.communicate(timeout=120)
        finally:
            process.kill()
    try:
        assert complaint.strip().endswith("KeyboardInterrupt")
        assert not only(owner)
    finally:
        remove_leftovers(only(owner))


def test_a_process_that_was_left_running_ends_with_its_host() -> None:
    with two_hosts(None) as (a, _):
        guest = subprocess.Popen(a.enter(["sleep", "300"]))
        while guest.pid not in inhabitants(a.namespace):
            assert guest.poll() is None
    assert guest.wait() == -signal.SIGKILL


def test_a_lab_that_cannot_be_finished_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whimbrel.lab.links._CLASS", 0x20010)  # a class of no queue
    with pytest.raises(LabError, match="links cannot be made"), two_hosts(MEGABIT):
        pass


def test_a_second_lab_in_the_same_process_is_refused_and_the_first_stays() -> None:
    with two_hosts(None) as (a, b):
        with pytest.raises(LabError, match="taken"), two_hosts(None):
            pass
        assert answers(a, b, 0)


def test_who_may_not_make_namespaces_is_told_to_use_sudo() -> None:
    script = "from whimbrel.lab.hosts import two_hosts\nwith two_hosts(None): pass"
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script]
    failed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "LabError" in failed.stderr
    assert "run with sudo" in failed.stderr


async def test_a_link_gives_what_its_rate_promises_in_both_directions() -> None:
    for rate in (200 * MEGABIT, 1000 * MEGABIT):
        with two_hosts(rate) as (a, b):
            there = await keep_busy(a, b)
            back = await keep_busy(b, a, streams=4)
        for wire in (there, back):
            assert wire.total <= rate * wire.seconds * 1.01 + shape_of(rate).burst
            assert wire.best > 0.7 * rate
            # a receiver that is kept from its core misses much, or finds much in its buffer
            assert 0.2 * rate < wire.found.rate < 2 * rate


async def test_a_faster_link_gives_more() -> None:
    rates = []
    for rate in (50 * MEGABIT, None):
        with two_hosts(rate) as (a, b):
            rates.append((await measure_goodput(a, b, duration=0.3)).rate)
    assert rates[1] > 2 * rates[0]


async def test_the_queue_of_a_busy_link_delays_by_milliseconds_only() -> None:
    with two_hosts(200 * MEGABIT) as (a, b):
        busy = asyncio.create_task(measure_goodput(a, b, duration=1.0, streams=8))
        before = interface_bytes(a)
        while sum(sent(before, a)) < 4 << 20:
            assert not busy.done()
            await asyncio.sleep(0.01)  # the kernel does not call
        delayed = await measure_goodput(a, b, duration=0.1)
        await busy
    # 1000 packets of 64 KiB, the kernel's own queue, would take 2.6 s
    assert delayed.latency < 0.5


@pytest.mark.parametrize("count", [2, 3])
async def test_an_mptcp_connection_uses_all_links_whoever_calls(count: int) -> None:
    rate = 100 * MEGABIT
    with two_hosts(rate, count) as (a, b):
        for sender, receiver in ((a, b), (b, a)):
            before = interface_bytes(sender)
            wire = await keep_busy(sender, receiver, mptcp=True)
            shares = sent(before, sender)
            assert min(shares) > 0.3 * max(shares)
            assert wire.best > 1.2 * rate


async def test_a_plain_tcp_connection_uses_the_link_it_calls() -> None:
    for link in (0, 1):
        # hosts of their own: what a connection left in a queue goes on after it
        with two_hosts(100 * MEGABIT, 2) as (a, b):
            before = interface_bytes(a)
            await measure_goodput(a, b, duration=0.1, link=link)
            shares = sent(before, a)
            assert shares[link] > 10 * shares[1 - link]


async def test_counters_see_what_goes_over_the_link() -> None:
    with two_hosts(100 * MEGABIT) as (a, b):
        async with Counters((a, b), period=0.02) as counters:
            while not counters.samples:  # noqa: ASYNC110 - a plain list
                await asyncio.sleep(0.01)
            found = await measure_goodput(a, b, duration=0.3)
            left: dict[str, tuple[int, int]] = {}
            while left != (left := interface_bytes(a)):  # noqa: ASYNC110 - the kernel does not call
                await asyncio.sleep(0.05)  # the queue empties itself
        first, last = counters.samples[0].interfaces, counters.samples[-1].interfaces
        carried = last["b", "w0"][0] - first["b", "w0"][0]
        assert carried >= found.rate * found.seconds
        assert last["a", "w0"][1] == last["b", "w0"][0]


def test_a_living_lab_is_never_left_over() -> None:
    with another_lab() as (process, guest, owner), two_hosts(None) as (a, b):
        assert not only(Owner.current())
        assert not only(owner)
        remove_leftovers(only(owner))
        assert psutil.pid_exists(guest)
        assert answers(a, b, 0)
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
        assert owner.namespace("a") not in namespace_names()
        assert not any((base / owner.folder).exists() for base in bases(os.environ, os.getuid()))


def test_what_a_killed_lab_left_is_found_and_removed_while_another_one_runs() -> None:
    with another_lab() as (process, guest, owner), two_hosts(None) as (a, b):
        process.kill()
        process.wait()
        found = only(owner)
        assert found.namespaces == (owner.namespace("a"), owner.namespace("b"))
        assert [folder.name for folder in found.folders] == [owner.folder]
        said = remove_leftovers(found)
        assert len(said) == 4
        assert f"{guest}" in said[0]
        assert has_ended(guest)
        assert not found.folders[0].exists()
        assert not only(owner)
        assert answers(a, b, 0)


async def test_hosts_can_be_held_where_an_event_loop_runs_and_in_another_thread() -> None:
    with two_hosts(MEGABIT, 2) as (a, b):
        assert answers(a, b, 1)

    def hold() -> bool:
        with two_hosts(MEGABIT) as (a, b):
            return answers(a, b, 0)

    assert await asyncio.to_thread(hold)

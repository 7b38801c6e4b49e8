"""A budget of cores under cgroup v2, on a host with Debian's kernel; run by ./run test-nested.

A program stands for a VM in a cgroup of its own, as a systemd scope is one: it has a thread that
is called a vCPU, and one that is busy with a move.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from whimbrel.lab.nested.hosts import NestedHost, nested_hosts
from whimbrel.sites.connect import connect

pytestmark = pytest.mark.timeout(600)

VMS = "/sys/fs/cgroup/vms"

PROGRAM = """
import threading, time
def said(work):
    def run():
        print(threading.get_native_id(), flush=True)
        work()
    return run
def moves():
    while True:
        pass
for work in (lambda: time.sleep(600), moves):
    threading.Thread(target=said(work)).start()
    time.sleep(1)
"""

BEGIN = f"""
mkdir -p {VMS}
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
python3 -c "$1" >/run/threads </dev/null 2>&1 &
echo $! >{VMS}/cgroup.procs
echo $!
"""


@asynccontextmanager
async def a_vm(host: NestedHost) -> AsyncIterator[tuple[int, int, int]]:
    """Run the program; yields its process, its vCPU's thread and the one that moves."""
    pid = int(await host.run("sh", "-euc", BEGIN, "sh", PROGRAM))
    try:
        async with asyncio.timeout(60):
            while len(told := (await host.run("cat", "/run/threads")).split()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.2)  # nobody tells that a file has grown
        yield pid, int(told[0]), int(told[1])
    finally:
        await host.run("kill", "-KILL", str(pid))


async def test_a_move_is_held_by_a_quota_and_little_weight_and_let_go_again() -> None:
    async with nested_hosts("a") as nested:
        host = nested["a"]
        async with a_vm(host) as (pid, vcpu, moves), connect(host.host) as site:
            told = await site.ask("confine", pid=pid, cores=0.5, lease=120.0, vcpus=[vcpu])
            assert (told["means"], told["threads"]) == ("cgroup v2", 1)
            own = f"{VMS}/whimbrel-{pid}"
            held = [(await host.run("cat", f"{own}/{name}")).strip() for name in HELD]
            assert held == ["10000 20000", "2", str(moves)]
            async with asyncio.timeout(120):
                while not await throttled(host, own):  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
            assert await site.ask("release_threads", pid=pid) == 1
            there = (await host.run("cat", f"{VMS}/cgroup.threads")).split()
            assert {str(vcpu), str(moves)} <= set(there)
            assert "whimbrel" not in await host.run("ls", VMS)


HELD = ("cpu.max", "cpu.weight", "cgroup.threads")


async def throttled(host: NestedHost, cgroup: str) -> bool:
    """Tell whether a cgroup's threads have been stopped for having used up their quota."""
    lines = (await host.run("cat", f"{cgroup}/cpu.stat")).splitlines()
    return int(dict(line.split() for line in lines)["nr_throttled"]) > 0

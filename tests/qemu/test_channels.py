"""Channels that all call at once: the destination has room for them, however late it answers."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import pytest

from whimbrel.hypervisors.qemu import QemuHost
from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.namespaces import in_namespace
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Phase
from whimbrel.model.units import MIB

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="the lab makes network namespaces: needs root"),
    pytest.mark.timeout(120),
]

CHANNELS = 16
ESTABLISHED = "01"
LOST = ("ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPSynRetrans")
"""What a kernel counts where a listener has no room for who calls (TcpExt)."""


def on(host: LabHost, name: str) -> str:
    """Read a file of /proc/net as a host has it."""
    return in_namespace(host.namespace, lambda: Path("/proc/thread-self/net", name).read_text())


def lost(host: LabHost) -> dict[str, int]:
    names, figures = (
        line.split()[1:] for line in on(host, "netstat").splitlines() if line.startswith("TcpExt:")
    )
    found = dict(zip(names, map(int, figures), strict=True))
    return {name: found[name] for name in LOST}


def calls(host: LabHost, port: int) -> int:
    """Count the connections from a host to a port."""
    rows = [line.split() for line in on(host, "tcp").splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


async def test_a_destination_that_answers_late_has_room_for_every_channel() -> None:
    vm = Vm("wide", 64 * MIB)
    tuning = Tuning(channels=CHANNELS)
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder, two_hosts(None) as hosts:
        here, there = hosts
        async with (
            QemuHost("a", Path(folder), here.enter) as source,
            QemuHost("b", Path(folder), there.enter) as destination,
        ):
            before = lost(here), lost(there)
            machine = await source.start(vm)
            address = MigrationAddress(there.addresses[0])
            reception = await destination.receive(vm, tuning, address)
            assert reception.machine.pid is not None
            os.kill(reception.machine.pid, signal.SIGSTOP)
            migration = await source.send(machine, tuning, reception.address)
            # All of them, and the main stream; the kernel alone has answered.
            while calls(here, reception.address.port) < CHANNELS + 1:  # noqa: ASYNC110 - a kernel's state
                await asyncio.sleep(0.01)
            os.kill(reception.machine.pid, signal.SIGCONT)
            async for _ in migration.watch():
                pass
            assert (await migration.ended()).phase is Phase.COMPLETED
            assert (lost(here), lost(there)) == before

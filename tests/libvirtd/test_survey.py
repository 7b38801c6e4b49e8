"""What libvirt tells before a move: written pages, memory, and whether a CPU can be had."""

from dataclasses import replace

import pytest

from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirts
from libvirtd.test_moves import still
from whimbrel.errors import Unsupported
from whimbrel.hypervisors.libvirt.compare import cpu_check
from whimbrel.lab.paced import Pacing, firmware
from whimbrel.model.check import Result
from whimbrel.model.units import MIB, PAGE


async def test_libvirt_counts_written_pages_in_whole_seconds(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    vm = still(libvirts)
    busy = firmware(Pacing(first=MIB, pages=32 * MIB // PAGE, rate=1_000_000), libvirts.folder)
    machine = await hosts.a.start(replace(vm, firmware=busy))
    inspection = machine.inspection()
    written = await inspection.written(1.0)
    for _ in range(10):  # its firmware may still be filling
        if written.pages:
            break
        written = await inspection.written(1.0)
    assert written.window == 1.0
    assert 0 < written.pages <= inspection.pages
    for window in (0.5, 1.5, 61.0):
        with pytest.raises(Unsupported):
            await inspection.written(window)


async def test_a_cpu_that_the_other_host_has_can_go_there(libvirts: Libvirts, hosts: Hosts) -> None:
    machine = await hosts.a.start(still(libvirts))
    check = await cpu_check(machine, hosts.b)
    assert check.result is Result.PASS, check.detail


async def test_a_cpu_that_a_host_has_not_is_known_beforehand(hosts: Hosts) -> None:
    connection = await hosts.b.connection()
    cpu = "<cpu mode='custom' match='exact'><model>EPYC-Genoa</model></cpu>"
    assert await connection.compare_cpu(cpu, "qemu", "q35") == 0


async def test_hosts_tell_their_memory(hosts: Hosts) -> None:
    total, free = await (await hosts.a.connection()).memory()
    assert 0 < free < total

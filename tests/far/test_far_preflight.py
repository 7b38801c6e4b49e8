"""Preflights between two hosts over real SSH, with bridges, links and firewalls of their own."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from far.hosts import FarHost, FarHosts, far_hosts, needs_far_hosts
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.hypervisors.qemu.compare import QemuExaminer
from whimbrel.model.check import Check, Result, obstacles
from whimbrel.model.inventory import Disk, MigrationAddress, Nic, Vm
from whimbrel.model.units import MIB
from whimbrel.practice.preflight import PreflightSubject, preflight
from whimbrel.sites.connect import shell
from whimbrel.sites.site import OnSite

pytestmark = needs_far_hosts


@dataclass(frozen=True)
class Ready:
    """A VM on the bridge `lan` of a; b has no such bridge yet."""

    far: FarHosts
    subject: PreflightSubject


def on(host: FarHost, *words: str) -> None:
    subprocess.run(host.lab.enter(list(words)), check=True, timeout=20)


@asynccontextmanager
async def ready() -> AsyncIterator[Ready]:
    async with (
        far_hosts() as far,
        OnSite(shell(far.a.host), far.a.host.folder) as a,
        OnSite(shell(far.b.host), far.b.host.folder) as b,
        ResidentHost("a", a) as host,
    ):
        on(far.a, "ip", "link", "add", "lan", "type", "bridge")
        on(far.a, "ip", "link", "set", "lan", "up")
        disk = Disk("vda", str(far.folder / "vda.img"), size=4 * MIB, cache="writeback")
        machine = await host.start(Vm("web", 128 * MIB, disks=(disk,), nics=(Nic("nic", "lan"),)))
        try:
            address = MigrationAddress(far.b.host.links[0].address)
            examiners = QemuExaminer(a), QemuExaminer(b)
            yield Ready(far, PreflightSubject(machine, a, b, *examiners, address))
        finally:
            await machine.stop()


def found(checks: tuple[Check, ...], name: str) -> Check:
    [check] = [check for check in checks if check.name == name]
    return check


async def test_a_bridge_must_be_there_and_on_the_same_network() -> None:
    async with ready() as lab:
        missing = found(await preflight(lab.subject), "NIC nic")
        on(lab.far.b, "ip", "link", "add", "lan", "type", "bridge")
        off = found(await preflight(lab.subject), "NIC nic")
        on(lab.far.b, "ip", "link", "set", "lan", "up")
        strange = found(await preflight(lab.subject), "NIC nic")
        on(lab.far.a, "ip", "address", "add", "10.77.0.1/24", "dev", "lan")
        on(lab.far.b, "ip", "address", "add", "10.77.0.2/24", "dev", "lan")
        checks = await preflight(lab.subject)
    assert [check.result for check in (missing, off, strange)] == [
        Result.FAIL,
        Result.FAIL,
        Result.WARN,
    ]
    assert found(checks, "NIC nic").result is Result.PASS
    assert found(checks, "disk vda: same bytes").result is Result.PASS
    assert obstacles(checks) == ()


async def test_a_station_that_both_bridges_see_proves_the_same_network() -> None:
    async with ready() as lab:
        on(lab.far.b, "ip", "link", "add", "lan", "type", "bridge")
        on(lab.far.b, "ip", "link", "set", "lan", "up")
        other_end = ["peer", "name", "uplink", "netns", Path(lab.far.b.lab.namespace).name]
        on(lab.far.a, "ip", "link", "add", "uplink", "type", "veth", *other_end)
        for host, own, peer in ((lab.far.a, 1, 2), (lab.far.b, 2, 1)):
            on(host, "ip", "link", "set", "uplink", "master", "lan", "up")
            on(host, "ip", "address", "add", f"10.77.{own}.1/32", "dev", "lan")
            on(host, "ip", "route", "add", f"10.77.{peer}.1/32", "dev", "lan")
        # Nobody listens there: to be refused, each must have learnt where the other is.
        said = await lab.subject.source.ask(
            "preflight_connect", address="10.77.2.1", port=9, token="ab" * 16
        )
        assert said["error"] == "ECONNREFUSED"
        check = found(await preflight(lab.subject), "NIC nic")
    assert check.result is Result.PASS
    assert "both see" in check.detail


async def test_a_link_that_is_cut_is_no_way_though_control_answers() -> None:
    async with ready() as lab:
        lab.far.cut_link()
        checks = await preflight(lab.subject)
    assert found(checks, "control").result is Result.PASS
    assert found(checks, "migration address").result is Result.FAIL
    assert "cannot reach b" in found(checks, "migration address").detail


async def test_a_destination_without_ssh_is_an_obstacle_and_no_error() -> None:
    async with ready() as lab:
        lab.far.b.kill_sshd()
        checks = await preflight(lab.subject)
        gone = replace(lab.subject, address=MigrationAddress("192.0.2.1"))
        again = await preflight(gone)
    assert found(checks, "control").result is Result.FAIL
    assert found(checks, "guest").result is Result.PASS
    assert found(again, "control").remedy.startswith("ssh ")

"""What the contract suite needs of each adapter beyond the port: a pair, and ways to break it."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from libvirtd.daemons import Libvirts
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.qemu import QemuHost, ResidentHost
from whimbrel.hypervisors.simulated import SimulatedHypervisor, SimulatedMachine, simulated_pair
from whimbrel.lab.paced import Pacing, firmware
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.units import MIB, PAGE
from whimbrel.ports import Hypervisor, Machine
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite


class Harness(Protocol):
    """Two hosts of one adapter."""

    @property
    def source(self) -> Hypervisor: ...
    @property
    def destination(self) -> Hypervisor: ...
    @property
    def vm(self) -> Vm: ...
    @property
    def address(self) -> MigrationAddress: ...
    @property
    def foreign_address(self) -> MigrationAddress:
        """An address that no host has."""

    @property
    def slow(self) -> float:
        """Bytes per second at which a move of `vm` takes several seconds."""

    @property
    def may_lack(self) -> bool:
        """Whether a move that the hosts have no capability for is left out, not failed."""

    def kill(self, machine: Machine) -> None:
        """End the hypervisor that holds the machine as a power cut would."""

    def left_over(self) -> list[str]:
        """Name what has been started and not ended."""


@dataclass
class QemuHarness:
    """Plain QEMU twice on this machine; the guest is the firmware, waiting for a disk."""

    source: QemuHost
    destination: QemuHost
    folder: Path
    vm: Vm = Vm("contract", 256 * MIB)
    address: MigrationAddress = MigrationAddress("127.0.0.1")
    # TEST-NET-1 (RFC 5737): nobody's address, so nobody can listen there.
    foreign_address: MigrationAddress = MigrationAddress("192.0.2.1")
    slow: float = 150_000.0
    may_lack: bool = False

    def kill(self, machine: Machine) -> None:
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGKILL)

    def left_over(self) -> list[str]:
        return [entry.name for entry in self.folder.iterdir()] if self.folder.exists() else []


@asynccontextmanager
async def qemu_harness(folder: Path) -> AsyncIterator[QemuHarness]:
    """Yield two hosts and end whatever was started on them."""
    async with QemuHost("a", folder) as source, QemuHost("b", folder) as destination:
        yield QemuHarness(source, destination, folder)


@dataclass
class ResidentHarness:
    """QEMU on two hosts that sites lead to, here both this machine, with two folders."""

    source: ResidentHost
    destination: ResidentHost
    folder: Path
    vm: Vm = Vm("contract", 256 * MIB)
    address: MigrationAddress = MigrationAddress("127.0.0.1")
    foreign_address: MigrationAddress = MigrationAddress("192.0.2.1")
    slow: float = 150_000.0
    may_lack: bool = False

    def kill(self, machine: Machine) -> None:
        assert machine.pid is not None
        os.kill(machine.pid, signal.SIGKILL)

    def left_over(self) -> list[str]:
        return [str(place) for place in self.folder.glob("*/[vp]*/*")]


@asynccontextmanager
async def resident_harness(folder: Path) -> AsyncIterator[ResidentHarness]:
    """Yield two hosts, and end the VMs that are left on them."""
    async with (
        OnSite(LocalShell("a"), str(folder / "a")) as there,
        OnSite(LocalShell("b"), str(folder / "b")) as elsewhere,
        ResidentHost("a", there) as source,
        ResidentHost("b", elsewhere) as destination,
    ):
        try:
            yield ResidentHarness(source, destination, folder)
        finally:
            for host in (source, destination):
                for resident in await host.machines():
                    await host.remove(resident.name)


@dataclass
class SimulatedHarness:
    """Two hosts in memory, made of theory."""

    source: SimulatedHypervisor
    destination: SimulatedHypervisor
    vm: Vm = Vm("contract", 256 * MIB)
    address: MigrationAddress = MigrationAddress("127.0.0.1")
    foreign_address: MigrationAddress = MigrationAddress("192.0.2.1")
    slow: float = 20e6
    may_lack: bool = False

    def kill(self, machine: Machine) -> None:
        assert isinstance(machine, SimulatedMachine)
        machine.vanish()

    def left_over(self) -> list[str]:
        hosts = (self.source, self.destination)
        return [machine.vm.name for host in hosts for machine in host.machines]


@asynccontextmanager
async def simulated_harness() -> AsyncIterator[SimulatedHarness]:
    """Yield two simulated hosts on a clock twenty times as fast as the wall's."""
    yield SimulatedHarness(*simulated_pair(speed=20))


@dataclass
class LibvirtHarness:
    """Two hosts that libvirt runs; the guest fills 8 MiB and then hardly writes."""

    source: LibvirtHost
    destination: LibvirtHost
    libvirts: Libvirts
    vm: Vm
    address: MigrationAddress
    foreign_address: MigrationAddress = MigrationAddress("192.0.2.1")
    slow: float = 1.0 * MIB  # libvirt's finest
    may_lack: bool = True

    def kill(self, machine: Machine) -> None:
        assert isinstance(machine, LibvirtMachine)
        libvirt = self.libvirts.a if machine.host == "a" else self.libvirts.b
        os.kill(libvirt.pid(machine.vm.name), signal.SIGKILL)

    def left_over(self) -> list[str]:
        return [str(vm) for vm in self.libvirts.folder.glob("*/run/qemu/*.xml")]


@asynccontextmanager
async def libvirt_harness(libvirts: Libvirts) -> AsyncIterator[LibvirtHarness]:
    """Yield two hosts, and end the VMs that are left on them."""
    filling = Pacing(first=MIB, pages=8 * MIB // PAGE, rate=1)
    vm = Vm("contract", 256 * MIB, firmware=firmware(filling, libvirts.folder))
    async with libvirts.a.opened() as source, libvirts.b.opened() as destination:
        try:
            address = MigrationAddress(libvirts.b.lab.addresses[0])
            yield LibvirtHarness(source, destination, libvirts, vm, address)
        finally:
            for libvirt in (libvirts.a, libvirts.b):
                await libvirt.clear()

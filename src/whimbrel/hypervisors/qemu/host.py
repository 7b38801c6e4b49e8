"""QEMU on this machine, in processes that end with whimbrel: the lab's hosts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from whimbrel.hypervisors.qemu.command_line import command_line
from whimbrel.hypervisors.qemu.hypervisor import QemuHypervisor
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.probe import Abilities, probe
from whimbrel.hypervisors.qemu.process import ChildProcess, Launcher, as_it_is

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from whimbrel.model.inventory import Vm
    from whimbrel.model.method import PreparedMemory


class QemuHost(QemuHypervisor):
    """The port's `Hypervisor`: plain QEMU processes on one host.

    Used with `async with`: what it started ends with it.

    Args:
        name: The host's name, for people and folders.
        folder: Private folder for sockets and consoles; short, since socket paths are limited
            to 107 bytes (unix(7)).
        launcher: Puts words before QEMU's command, to start it in a namespace for instance.
    """

    def __init__(self, name: str, folder: Path, launcher: Launcher = as_it_is) -> None:
        super().__init__(name)
        self._folder = folder
        self._launcher = launcher
        self._abilities: Abilities | None = None
        self._machines: list[QemuMachine] = []
        self._started = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(machine.stop() for machine in self._machines))

    async def abilities(self) -> Abilities:
        """See `QemuHypervisor.abilities`."""
        if self._abilities is None:
            folder = self._folder / f"{self.name}-probe"
            self._abilities = await probe(f"{self.name} (probe)", folder, self._launcher)
        return self._abilities

    async def seek(self, name: str) -> QemuMachine | None:
        """See `QemuHypervisor.seek`."""
        alive = (each for each in self._machines if each.process.alive)
        return next((each for each in alive if each.vm.name == name), None)

    async def build(self, vm: Vm, memory: PreparedMemory | None, *, incoming: bool) -> QemuMachine:
        """See `QemuHypervisor.build`."""
        self._started += 1
        folder = self._folder / f"{self.name}-{vm.name}-{self._started}"
        words = command_line(vm, folder, memory, incoming=incoming)
        name = f"{vm.name} on {self.name}"
        process = await ChildProcess.start(name, words, folder, self._launcher)
        machine = QemuMachine(vm, process)
        self._machines.append(machine)
        return machine

"""One QEMU as practice sees it: a machine that runs, or one that waits for its guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whimbrel.errors import ConfigError, HostError, HostUnreachable
from whimbrel.hypervisors.qemu import encryption
from whimbrel.hypervisors.qemu.command_line import channel_name
from whimbrel.hypervisors.qemu.storage import QemuStorage

if TYPE_CHECKING:
    from pathlib import Path

    from whimbrel.hypervisors.qemu.inspect import QemuInspection
    from whimbrel.hypervisors.qemu.monitor import Monitor
    from whimbrel.hypervisors.qemu.process import Process
    from whimbrel.model.inventory import MigrationAddress, Vm

RUNS_WITHIN = 30.0
"""Seconds a destination may take to load the device state and run its guest."""

_GONE_WITHIN = 2.0
"""Seconds between a connection's end and the process's, when a QEMU dies."""


class QemuMachine:
    """The port's `Machine`: one QEMU process."""

    def __init__(self, vm: Vm, process: Process) -> None:
        self.vm = vm
        self.process = process

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.process.pid

    def channel(self, name: str) -> Path:
        """See `ports.Machine.channel`."""
        try:
            return self.process.socket(channel_name(self.vm.channels.index(name)))
        except ValueError:
            known = ", ".join(self.vm.channels) or "none"
            raise ConfigError(
                f'VM {self.vm.name} has no channel "{name}"; it has {known}.'
            ) from None

    def inspection(self) -> QemuInspection:
        """See `ports.Machine.inspection`."""
        return self.process.inspection(self.vm.memory)

    def storage(self) -> QemuStorage:
        """See `ports.Machine.storage`."""
        names = [disk.name for disk in self.vm.disks]
        return QemuStorage(self.process.monitor, names, self._credentials)

    async def record(self, vm: Vm) -> None:
        """See `ports.Machine.record`."""
        self.vm = vm
        await self.process.record(vm)

    async def running(self) -> bool:
        """See `ports.Machine.running`."""
        if not self.process.alive:
            return False
        try:
            answer = await self.process.monitor.execute("query-status")
        except HostUnreachable:
            if await self.process.ends_within(_GONE_WITHIN):
                return False
            raise
        return bool(answer["running"])

    async def resume(self) -> None:
        """See `ports.Machine.resume`."""
        await self.process.monitor.execute("cont")

    async def forget_move(self) -> None:
        """See `ports.Machine.forget_move`."""
        await encryption.forget(self.process)

    async def stop(self) -> None:
        """See `ports.Machine.stop`."""
        await self.process.stop()

    async def _credentials(self, _: Monitor, address: MigrationAddress, endpoint: str) -> str:
        return await encryption.nbd_credentials(self.process, address, endpoint)


class QemuReception:
    """The port's `Reception`: a QEMU that waits for a guest."""

    def __init__(self, machine: QemuMachine, address: MigrationAddress) -> None:
        self.machine = machine
        self.address = address
        self._events = machine.process.monitor.listen("RESUME", "MIGRATION")

    async def run(self) -> None:
        """See `ports.Reception.run`."""
        try:
            await self.machine.process.monitor.execute("cont")
            await self._resumed()
            await self.machine.process.settled()
        except HostUnreachable as error:
            raise await self._lost(error) from error
        finally:
            self._events.close()

    async def _resumed(self) -> None:
        while heard := await self._events.next(RUNS_WITHIN):
            if heard[0] == "RESUME":
                return
            if heard[1].get("status") == "failed":
                answer = await self.machine.process.monitor.execute("query-migrate")
                reason = answer.get("error-desc") or await self.machine.process.output()
                raise HostError(f"The destination could not load the guest: {reason}")
        if not await self.machine.running():
            raise HostError(f"The guest did not run at the destination in {RUNS_WITHIN:.0f} s.")

    async def _lost(self, error: HostUnreachable) -> HostUnreachable:
        words = await self.machine.process.output()
        return HostUnreachable(f"The destination's QEMU is gone: {words or error.what}")

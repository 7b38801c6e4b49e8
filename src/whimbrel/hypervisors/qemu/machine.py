"""One QEMU as practice sees it: a machine that runs, or one that waits for its guest."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from whimbrel.errors import (
    CommandRefused,
    ConfigError,
    HostError,
    HostUnreachable,
    MachineEnded,
)
from whimbrel.hypervisors.qemu import encryption
from whimbrel.hypervisors.qemu.command_line import channel_name
from whimbrel.hypervisors.qemu.migration import HANDSHAKE_WITHIN
from whimbrel.hypervisors.qemu.mute import waits_for_memory
from whimbrel.hypervisors.qemu.storage import QemuStorage
from whimbrel.hypervisors.qemu.translate import phase_of, recover_uri
from whimbrel.model.migration import Phase
from whimbrel.ports import Standing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from whimbrel.hypervisors.qemu.inspect import QemuInspection
    from whimbrel.hypervisors.qemu.monitor import Monitor
    from whimbrel.hypervisors.qemu.process import Process
    from whimbrel.model.inventory import MigrationAddress, Vm

RUNS_WITHIN = 30.0
"""Seconds a destination may take to load the device state and run its guest."""

_PAUSES_WITHIN = 3.0
"""Seconds for a destination to pause a post-copy whose connection was shut."""

_TRY_AGAIN = 0.05

_STANDS_WITHIN = 10.0
"""Seconds for a QEMU to say how it stands; one that hangs is asked otherwise then."""

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
        process = self.process
        return QemuStorage(process.monitor, names, self._credentials, process.cut)

    async def record(self, vm: Vm) -> None:
        """See `ports.Machine.record`."""
        self.vm = vm
        await self.process.record(vm)

    async def vcpu_threads(self) -> tuple[int, ...]:
        """Return the threads of its vCPUs, for a QEMU that does not name its threads."""
        vcpus = await self.process.monitor.execute("query-cpus-fast")
        return tuple(dict.fromkeys(int(vcpu["thread-id"]) for vcpu in vcpus))

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

    async def standing(self) -> Standing:
        """See `ports.Machine.standing`; also of a QEMU that waits for a page of the guest."""
        monitor = self.process.monitor
        try:
            async with asyncio.timeout(_STANDS_WITHIN):
                status = await monitor.execute("query-status")
                move = await monitor.execute("query-migrate")
        except TimeoutError as error:
            if await self._waits_for_memory():
                reason = "it waits for memory of the guest that has not come"
                return Standing(running=False, phase=Phase.POSTCOPY_PAUSED, reason=reason)
            raise HostUnreachable(
                f"{self.process.name}: QEMU does not answer.",
                "See whether the process hangs or its host is overloaded.",
            ) from error
        return Standing(
            running=bool(status["running"]),
            phase=phase_of(move.get("status", "none")),
            reason=str(move.get("error-desc", "")),
        )

    async def _waits_for_memory(self) -> bool:
        """Tell whether this is a destination whose post-copy has lost its link.

        Its main loop answers nobody as soon as it needs a page that has not come. It is told by
        its threads: whatever was asked out of band would end its listening for the source.
        """
        return waits_for_memory(await self.process.threads())

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

    async def listen_again(self) -> MigrationAddress:
        """See `ports.Reception.listen_again`; on the port that it had, which is known to all."""
        try:
            return await self._listening_again()
        except HostUnreachable as error:
            if await self.machine.process.ends_within(_GONE_WITHIN):
                raise MachineEnded(f"The destination's QEMU is gone: {error.what}") from error
            raise

    async def _listening_again(self) -> MigrationAddress:
        clock = asyncio.get_running_loop().time
        until = clock()
        with suppress(CommandRefused):  # it may have noticed by itself
            await self._urgently("migrate-pause")
            until += _PAUSES_WITHIN
        arguments = {"uri": recover_uri(self.address)}
        while True:
            try:
                await self._urgently("migrate-recover", arguments)
            except CommandRefused as error:
                # Its own listening for the lost connection may be about to end only now.
                more = _PAUSES_WITHIN if "Address already in use" in error.what else 0.0
                if clock() >= until + more:
                    raise
                # Urgent commands are all it answers for sure, and none waits for the pause.
                await asyncio.sleep(_TRY_AGAIN)
            else:
                # It is paused, then: whoever is connected is a stranger, or a connection that
                # died. One that keeps silent would hold up QEMU, and the guest with it.
                await self.machine.process.cut(self.address.port)
                return self.address

    async def _urgently(self, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        # Waiting for a page it would answer; waiting for a stranger's handshake it does not.
        monitor = self.machine.process.monitor
        try:
            async with asyncio.timeout(HANDSHAKE_WITHIN):
                await monitor.execute(command, arguments, urgent=True)
        except TimeoutError:
            await self.machine.process.cut(self.address.port)
            await monitor.execute(command, arguments, urgent=True)

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

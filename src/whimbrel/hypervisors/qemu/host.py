"""QEMU on one host, behind the port `Hypervisor`.

    source                                 destination
    start ─► QEMU                          receive ─► QEMU -incoming defer -S
    send: capabilities, parameters ─►         capabilities, parameters, migrate-incoming
          migrate ═══════ pages, device state ══════► paused
          "completed" or "postcopy-active" ──────────► run: cont

`-S` and the explicit `cont` are what keeps a guest from running twice: without them a
destination starts by itself, and a source whose link breaks at that moment starts again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from whimbrel.errors import CommandRefused, ConfigError, HostError, HostUnreachable, Unsupported
from whimbrel.hypervisors.qemu.command_line import channel_socket, command_line
from whimbrel.hypervisors.qemu.inspect import QemuInspection
from whimbrel.hypervisors.qemu.migration import EVENTS, QemuMigration
from whimbrel.hypervisors.qemu.probe import Abilities, probe
from whimbrel.hypervisors.qemu.process import Launcher, QemuProcess
from whimbrel.hypervisors.qemu.translate import (
    capabilities_for,
    channels_argument,
    parameters_for,
)
from whimbrel.model.inventory import Capability, MigrationAddress, Vm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from whimbrel.model.method import PreparedMemory, Tuning
    from whimbrel.ports import Machine

RUNS_WITHIN = 30.0
"""Seconds a destination may take to load the device state and run its guest."""

_GONE_WITHIN = 2.0
"""Seconds between a connection's end and the process's, when a QEMU dies."""


def as_it_is(words: Sequence[str]) -> list[str]:
    """Launch a command on this machine, with nothing before it."""
    return list(words)


class QemuMachine:
    """The port's `Machine`: one QEMU process."""

    def __init__(self, vm: Vm, process: QemuProcess) -> None:
        self.vm = vm
        self.process = process

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.process.pid

    def channel(self, name: str) -> Path:
        """See `ports.Machine.channel`."""
        try:
            return channel_socket(self.process.folder, self.vm.channels.index(name))
        except ValueError:
            known = ", ".join(self.vm.channels) or "none"
            raise ConfigError(
                f'VM {self.vm.name} has no channel "{name}"; it has {known}.'
            ) from None

    def inspection(self) -> QemuInspection:
        """See `ports.Machine.inspection`."""
        return QemuInspection(self.process.monitor, self.pid, self.vm.memory)

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

    async def stop(self) -> None:
        """See `ports.Machine.stop`."""
        await self.process.stop()


class QemuReception:
    """The port's `Reception`: a QEMU that waits for a guest."""

    def __init__(self, machine: QemuMachine, address: MigrationAddress) -> None:
        self.machine = machine
        self.address = address
        self._events = machine.process.monitor.listen("RESUME")

    async def run(self) -> None:
        """See `ports.Reception.run`."""
        try:
            await self.machine.process.monitor.execute("cont")
            heard = await self._events.next(RUNS_WITHIN)
            if heard is None and not await self.machine.running():
                raise HostError(f"The guest did not run at the destination in {RUNS_WITHIN:.0f} s.")
        except HostUnreachable as error:
            raise self._lost(error) from error
        finally:
            self._events.close()

    def _lost(self, error: HostUnreachable) -> HostUnreachable:
        words = self.machine.process.output
        return HostUnreachable(f"The destination's QEMU is gone: {words or error.what}")


class QemuHost:
    """The port's `Hypervisor`: plain QEMU processes on one host.

    Used with `async with`: what it started ends with it.

    Args:
        name: The host's name, for people and folders.
        folder: Private folder for sockets and consoles; short, since socket paths are limited
            to 107 bytes (unix(7)).
        launcher: Puts words before QEMU's command, to start it in a namespace for instance.
    """

    def __init__(self, name: str, folder: Path, launcher: Launcher = as_it_is) -> None:
        self.name = name
        self._folder = folder
        self._launcher = launcher
        self._abilities: Abilities | None = None
        self._processes: list[QemuProcess] = []
        self._started = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(process.stop() for process in self._processes))

    async def abilities(self) -> Abilities:
        """Return what this QEMU can do and is; probed at the first call."""
        if self._abilities is None:
            folder = self._folder / f"{self.name}-probe"
            self._abilities = await probe(f"{self.name} (probe)", folder, self._launcher)
        return self._abilities

    async def capabilities(self) -> frozenset[Capability]:
        """See `ports.Hypervisor.capabilities`."""
        return (await self.abilities()).present

    async def lacking(self) -> Mapping[Capability, str]:
        """See `ports.Hypervisor.lacking`."""
        return (await self.abilities()).lacking

    async def start(self, vm: Vm) -> QemuMachine:
        """See `ports.Hypervisor.start`."""
        return await self._build(vm, None, incoming=False)

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> QemuReception:
        """See `ports.Hypervisor.receive`."""
        await self._require(tuning)
        machine = await self._build(vm, tuning.prepared_memory, incoming=True)
        try:
            await self._configure(machine, tuning)
            listening = await _listen(machine, tuning, address)
        except BaseException:
            await machine.stop()
            raise
        return QemuReception(machine, listening)

    async def send(
        self, machine: Machine, tuning: Tuning, address: MigrationAddress
    ) -> QemuMigration:
        """See `ports.Hypervisor.send`."""
        if not isinstance(machine, QemuMachine):
            raise ConfigError(f"VM {machine.vm.name} is not held by plain QEMU on {self.name}.")
        await self._require(tuning)
        await self._configure(machine, tuning)
        monitor = machine.process.monitor
        migration = QemuMigration(
            monitor, monitor.listen(*EVENTS), machine.vm.memory, lambda: machine.process.alive
        )
        channels = channels_argument(address, tuning.transport)
        await monitor.execute("migrate", {"channels": channels})
        return migration

    async def _require(self, tuning: Tuning) -> None:
        lacking = await self.lacking()
        for capability in sorted(tuning.needs & lacking.keys()):
            raise Unsupported(f"Host {self.name} has no {capability}: {lacking[capability]}")

    async def _build(self, vm: Vm, memory: PreparedMemory | None, *, incoming: bool) -> QemuMachine:
        self._started += 1
        folder = self._folder / f"{self.name}-{vm.name}-{self._started}"
        words = command_line(vm, folder, memory, incoming=incoming)
        name = f"{vm.name} on {self.name}"
        process = await QemuProcess.start(name, words, folder, self._launcher)
        self._processes.append(process)
        return QemuMachine(vm, process)

    async def _configure(self, machine: QemuMachine, tuning: Tuning) -> None:
        known = await self.capabilities()
        monitor = machine.process.monitor
        await monitor.execute("migrate-set-parameters", _defaults(known))
        capabilities = capabilities_for(tuning, known)
        await monitor.execute("migrate-set-capabilities", {"capabilities": capabilities})
        await monitor.execute("migrate-set-parameters", parameters_for(tuning))


def _defaults(known: frozenset[Capability]) -> dict[str, Any]:
    """Return what an earlier move may have left and no tuning may inherit (QEMU's defaults)."""
    parameters: dict[str, Any] = {"max-bandwidth": 128 << 20, "max-postcopy-bandwidth": 0}
    if Capability.MULTICHANNEL in known:
        parameters |= {"multifd-compression": "none", "multifd-channels": 2}
    if Capability.SWITCHOVER_BANDWIDTH in known:
        parameters["avail-switchover-bandwidth"] = 0
    return parameters


async def _listen(
    machine: QemuMachine, tuning: Tuning, address: MigrationAddress
) -> MigrationAddress:
    monitor = machine.process.monitor
    channels = channels_argument(address, tuning.transport)
    try:
        await monitor.execute("migrate-incoming", {"channels": channels})
    except CommandRefused as error:
        raise CommandRefused(
            error.what,
            f"See whether {address.host} is an address of this host and the port is free.",
        ) from error
    with suppress(KeyError, IndexError, TypeError):
        chosen = (await monitor.execute("query-migrate"))["socket-address"][0]
        return MigrationAddress(address.host, int(chosen["port"]), address.mptcp)
    return address

"""What every host that runs plain QEMU does alike, behind the port `Hypervisor`.

    source                                 destination
    start ─► QEMU                          receive ─► QEMU -incoming defer -S
    send: capabilities, parameters ─►         capabilities, parameters, migrate-incoming
          migrate ═══════ pages, device state ══════► paused
          "completed" or "postcopy-active" ──────────► run: cont

`-S` and the explicit `cont` are what keeps a guest from running twice: without them a
destination starts by itself, and a source whose link breaks at that moment starts again.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from whimbrel.errors import CommandRefused, ConfigError, HostError, Unsupported
from whimbrel.hypervisors.qemu.encryption import (
    MIGRATION,
    Endpoint,
    forget,
    migration_parameters,
)
from whimbrel.hypervisors.qemu.machine import QemuMachine, QemuReception
from whimbrel.hypervisors.qemu.migration import EVENTS, Far, Guard, QemuMigration
from whimbrel.hypervisors.qemu.translate import (
    capabilities_for,
    channels_argument,
    parameters_for,
)
from whimbrel.model.by_hand import ByHand
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.method import Postcopy, Transport, rdma_refusal, zero_copy_refusal
from whimbrel.model.migration import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whimbrel.hypervisors.qemu.probe import Abilities
    from whimbrel.hypervisors.qemu.process import Process
    from whimbrel.model.method import PreparedMemory, Tuning
    from whimbrel.ports import Machine

_PORTS = range(49152, 65536)
"""Where ports for RDMA are drawn from: those that nobody is assigned (RFC 6335, 6)."""

_TRIES = 4
"""How many of them are tried."""


class QemuHypervisor(ABC):
    """The port's `Hypervisor`, but for where QEMU's processes live."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def abilities(self) -> Abilities:
        """Return what this QEMU can do and is; probed at the first call."""

    @abstractmethod
    async def seek(self, name: str) -> QemuMachine | None:
        """See `ports.Hypervisor.seek`."""

    def by_hand(self, name: str) -> ByHand:
        """See `ports.Hypervisor.by_hand`; what it was built from is a file of its owner's."""
        return ByHand(end=f"whimbrel down {name} --now --on {self.name}")

    @abstractmethod
    async def build(self, vm: Vm, memory: PreparedMemory | None, *, incoming: bool) -> QemuMachine:
        """Start a QEMU that holds the VM; raises `HostError`, and nothing is left then."""

    async def capabilities(self) -> frozenset[Capability]:
        """See `ports.Hypervisor.capabilities`."""
        return (await self.abilities()).present

    async def lacking(self) -> Mapping[Capability, str]:
        """See `ports.Hypervisor.lacking`."""
        return (await self.abilities()).lacking

    async def start(self, vm: Vm) -> QemuMachine:
        """See `ports.Hypervisor.start`."""
        return await self.build(vm, None, incoming=False)

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> QemuReception:
        """See `ports.Hypervisor.receive`."""
        await self._require(tuning)
        _agree(tuning, address)
        machine = await self.build(vm, tuning.prepared_memory, incoming=True)
        try:
            await self._configure(machine, tuning)
            await _encrypt(machine, address, Endpoint.SERVER)
            listening = await _listen(machine, tuning, address)
        except BaseException:
            await machine.stop()
            raise
        return QemuReception(machine, listening)

    async def send(
        self, machine: Machine, tuning: Tuning, address: MigrationAddress
    ) -> QemuMigration:
        """See `ports.Hypervisor.send`."""
        machine = self._own(machine)
        await self._require(tuning)
        _agree(tuning, address)
        await self._configure(machine, tuning)
        await _encrypt(machine, address, Endpoint.CLIENT)
        process, monitor = machine.process, machine.process.monitor
        migration = QemuMigration(
            monitor,
            monitor.listen(*EVENTS),
            machine.vm.memory,
            lambda: process.alive,
            _guard(process, tuning, address),
            far=Far(address.port, process.limit_silence),
        )
        channels = channels_argument(address, tuning.transport)
        try:
            await monitor.execute("migrate", {"channels": channels})
        except BaseException:
            with suppress(HostError):  # it is gone, and its files with it
                await forget(process, MIGRATION)
            raise
        return migration

    async def rejoin(self, machine: Machine) -> QemuMigration:
        """See `ports.Hypervisor.rejoin`."""
        held = self._own(machine)
        monitor = held.process.monitor
        events = monitor.listen(*EVENTS)
        return await QemuMigration.rejoined(
            monitor,
            events,
            held.vm.memory,
            lambda: held.process.alive,
            Guard(held.process.cut),
        )

    async def expecting(self, machine: Machine, address: MigrationAddress) -> QemuReception:
        """See `ports.Hypervisor.expecting`."""
        return QemuReception(self._own(machine), address)

    def _own(self, machine: Machine) -> QemuMachine:
        if not isinstance(machine, QemuMachine):
            raise ConfigError(f"VM {machine.vm.name} is not held by plain QEMU on {self.name}.")
        return machine

    async def _require(self, tuning: Tuning) -> None:
        lacking = await self.lacking()
        for capability in sorted(tuning.needs & lacking.keys()):
            raise Unsupported(f"Host {self.name} has no {capability}: {lacking[capability]}")

    async def _configure(self, machine: QemuMachine, tuning: Tuning) -> None:
        known = await self.capabilities()
        monitor = machine.process.monitor
        await monitor.execute("migrate-set-parameters", _defaults(known))
        capabilities = capabilities_for(tuning, known)
        await monitor.execute("migrate-set-capabilities", {"capabilities": capabilities})
        await monitor.execute("migrate-set-parameters", parameters_for(tuning))


def _agree(tuning: Tuning, address: MigrationAddress) -> None:
    """Raise where a move would be less private than its tuning says, or cannot be private."""
    if tuning.encrypted and not address.encrypted:
        raise ConfigError("The move shall be encrypted, but there is no key for it.")
    if address.encrypted and tuning.transport is Transport.RDMA:
        raise Unsupported("QEMU cannot encrypt a move by RDMA.", "Choose another method.")
    refusal = rdma_refusal(tuning) or zero_copy_refusal(tuning)
    if refusal is not None:
        raise Unsupported(*refusal)


async def _encrypt(machine: QemuMachine, address: MigrationAddress, endpoint: Endpoint) -> None:
    parameters = await migration_parameters(machine.process, address, endpoint)
    if parameters:
        await machine.process.monitor.execute("migrate-set-parameters", parameters)


def _guard(process: Process, tuning: Tuning, address: MigrationAddress) -> Guard | None:
    if not address.encrypted:
        return None
    guard = Guard(process.cut, address.port)
    if tuning.postcopy is Postcopy.AFTER_FIRST_PASS_PREEMPT:  # its channel comes later
        return replace(guard, phases=guard.phases | {Phase.PRECOPY})
    return guard


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
    if tuning.transport is Transport.RDMA:
        return await _listen_by_rdma(machine, address)
    monitor = machine.process.monitor
    channels = channels_argument(address, tuning.transport)
    try:
        await _await_guest(machine, {"channels": channels})
    except CommandRefused as error:
        raise CommandRefused(
            error.what,
            f"See whether {address.host} is an address of this host and {_ports(address)} free.",
        ) from error
    with suppress(KeyError, IndexError, TypeError):
        chosen = (await monitor.execute("query-migrate"))["socket-address"][0]
        return replace(address, port=int(chosen["port"]))
    return address


def _ports(address: MigrationAddress) -> str:
    if address.port or address.ports is None:
        return "the port is"
    return f"one of the ports {address.ports[0]} to {address.ports[1]} is"


async def _listen_by_rdma(machine: QemuMachine, address: MigrationAddress) -> MigrationAddress:
    """Listen on a port of our choice: by RDMA, QEMU does not tell which one it was given."""
    left = _TRIES
    first, last = address.ports or (_PORTS.start, _PORTS.stop - 1)
    while True:
        left -= 1
        port = address.port or first + secrets.randbelow(last - first + 1)
        asked = replace(address, port=port)
        try:
            await _await_guest(machine, {"channels": channels_argument(asked, Transport.RDMA)})
        except CommandRefused as error:
            if left and not address.port:
                continue  # somebody else's, perhaps
            raise CommandRefused(
                error.what,
                f"See whether {address.host} is an address of this host whose NIC has an RDMA "
                "device: rdma link",
            ) from error
        return asked


async def _await_guest(machine: QemuMachine, arguments: dict[str, Any]) -> None:
    # A destination that ends with the first thing that goes wrong could not say what it was.
    staying = arguments | {"exit-on-error": False}
    monitor = machine.process.monitor
    try:
        await monitor.execute("migrate-incoming", staying)
    except CommandRefused as error:
        if "exit-on-error" not in error.what:  # QEMU before 9.1 does not know the word
            raise
        await monitor.execute("migrate-incoming", arguments)

"""QEMU on a host that a `Site` leads to, whose VMs outlive whimbrel.

FOLDER/vms/NAME/   one VM each: vm.json, sockets, console, stderr (sites/onsite/machines.py)

start, receive ──► a machine, known from then on to every whimbrel that reaches the host
find(name)     ──► the same machine, conducted from here
look(name)     ──► answers to questions, beside whoever conducts it
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from whimbrel.errors import ConfigError, HostError, HostUnreachable
from whimbrel.hypervisors.qemu.adopter import Adopter
from whimbrel.hypervisors.qemu.command_line import (
    CONDUCT,
    TERMINAL,
    channel_name,
    command_line,
)
from whimbrel.hypervisors.qemu.hypervisor import QemuHypervisor
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.mute import MuteMonitor, waits_for_memory
from whimbrel.hypervisors.qemu.network_devices import taps
from whimbrel.hypervisors.qemu.probe import Abilities, ask, at_second_try, probe_words
from whimbrel.hypervisors.qemu.resident_process import Birth, Place, ResidentProcess
from whimbrel.hypervisors.qemu.resident_record import SCHEMA, Resident, check_name, resident_from
from whimbrel.model.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from whimbrel.hypervisors.qemu.adopt import Adoption
    from whimbrel.hypervisors.qemu.migration import QemuMigration
    from whimbrel.model.inventory import MigrationAddress, Vm
    from whimbrel.model.method import PreparedMemory, Tuning
    from whimbrel.ports import Machine, Site

_ANSWERS_WITHIN = 3.0

_STALE = 60.0
"""Seconds after which a probe belongs to a whimbrel that was killed."""


class ResidentHost(QemuHypervisor):
    """The port's `Hypervisor` on one host; `close` lets go of its VMs, which go on.

    Args:
        name: The host's name, for people.
        site: The way onto it; not closed with this.
        here: Whether it is this machine.
        sockets: QMP sockets of VMs on it that somebody else started.
    """

    def __init__(
        self, name: str, site: Site, *, here: bool = False, sockets: Sequence[str] = ()
    ) -> None:
        super().__init__(name)
        self.site = site
        self._here = here
        self._abilities: Abilities | None = None
        self._probing = asyncio.Lock()
        self._held: list[QemuMachine] = []
        self._adopter = Adopter(name, site, sockets, here=here)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of every VM; they go on."""
        await self._adopter.close()
        while self._held:
            process = self._held.pop().process
            if isinstance(process, ResidentProcess):
                await process.close()

    async def abilities(self) -> Abilities:
        """See `QemuHypervisor.abilities`."""
        async with self._probing:
            if self._abilities is None:
                self._abilities = await at_second_try(self._probe)
            return self._abilities

    async def _probe(self) -> Abilities:
        site = self.site
        await site.ask("machine_sweep", folder=site.folder, older=_STALE)
        place = self._place(f"probes/{secrets.token_hex(4)}")
        process = await ResidentProcess.start(
            f"{self.name} (probe)", place, probe_words(PurePosixPath(place.folder)), {}
        )
        try:
            facts = await site.ask("probe_facts")
            return await ask(process, rdma=facts["rdma"], mptcp=facts["mptcp"])
        finally:
            await process.stop()

    async def build(self, vm: Vm, memory: PreparedMemory | None, *, incoming: bool) -> QemuMachine:
        """See `QemuHypervisor.build`; the machine type becomes the versioned one it stands for.

        A disk that has a size and no image gets an image, but not at a destination.
        """
        check_name(vm.name)
        known = (await self.abilities()).machines
        vm = replace(vm, machine=known.get(vm.machine, vm.machine))
        if not incoming:
            await self._make_images(vm)
        place = self._place(f"vms/{vm.name}")
        folder = PurePosixPath(place.folder)
        words = command_line(vm, folder, memory, incoming=incoming, resident=True)
        record = {
            "schema": SCHEMA,
            "vm": plain(vm),
            "words": words,
            "role": "incoming" if incoming else "running",
        }
        name = f"{vm.name} on {self.name}"
        process = await ResidentProcess.start(name, place, words, record, taps(vm, folder))
        return await self._hold(vm, process)

    async def machines(self) -> tuple[Resident, ...]:
        """Return the VMs whose folders are on this host, living or ended, by name."""
        found = await self.site.ask("machine_list", folder=self.site.folder)
        return tuple(resident_from(record) for record in found if record.get("pid") is not None)

    async def resident(self, name: str) -> Resident | None:
        """Return what is written of one VM; None where there is none of that name."""
        check_name(name)
        place = self._place(f"vms/{name}").folder
        record = await self.site.ask("machine_find", place=place)
        return None if record is None or record.get("pid") is None else resident_from(record)

    async def find(self, name: str) -> QemuMachine:
        """Conduct a VM that runs here, or waits for its guest.

        One that somebody else started is found by the sockets that the host is known to have;
        `hindrances` then says whether it can be moved.

        Raises:
            ConfigError: There is none of that name.
            HostError: Its QEMU has ended, or is conducted by two others.
        """
        found = await self.resident(name)
        if found is None:
            adopted = await self._adopter.named(name)
            if adopted is None:
                raise await self._unknown(name)
            return adopted.machine
        title = f"{name} on {self.name}"
        place = self._place(f"vms/{name}")
        if not found.alive:
            output = await self.site.ask("machine_output", place=place.folder)
            raise HostError(
                f"{title} has ended: {output or 'its QEMU said nothing'}",
                f"Start it again, or remove what is left: whimbrel down {name}",
            )
        birth = Birth(found.pid, found.start)
        for held in list(self._held):
            if isinstance(held.process, ResidentProcess) and held.process.birth == birth:
                if await _connected(held):
                    return held
                self._held.remove(held)
                await held.process.close()
        process = await ResidentProcess.find(title, place, birth, found.sockets or CONDUCT)
        return await self._hold(found.vm, process)

    async def adopt(self, socket: str) -> Adoption:
        """See `Adopter.adopt`."""
        return await self._adopter.adopt(socket)

    def hindrances(self, machine: Machine) -> tuple[str, ...]:
        """Return what prevents building a machine again elsewhere; empty for whimbrel's own."""
        adoption = self._adopter.of(machine)
        return adoption.reasons if adoption else ()

    async def send(
        self, machine: Machine, tuning: Tuning, address: MigrationAddress
    ) -> QemuMigration:
        """See `ports.Hypervisor.send`; an adopted VM is entered first."""
        adoption = self._adopter.of(machine)
        if adoption is not None:
            await self._adopter.enter(adoption)
        return await super().send(machine, tuning, address)

    async def seek(self, name: str) -> QemuMachine | None:
        """See `QemuHypervisor.seek`; also one that waits for its guest's memory, and is mute."""
        found = await self.resident(name)
        if found is None or not found.alive:
            return None
        try:
            return await self.find(name)
        except HostUnreachable:
            threads = await self.site.ask("machine_threads", pid=found.pid)
            if not waits_for_memory(threads):
                raise
        title, birth = f"{name} on {self.name}", Birth(found.pid, found.start)
        monitor = MuteMonitor(title)
        place = self._place(f"vms/{name}")
        return QemuMachine(found.vm, ResidentProcess.mute(title, place, birth, monitor))

    async def remove(self, name: str) -> None:
        """End a VM whatever it does, and remove its folder; harmless where there is none."""
        check_name(name)
        place = self._place(f"vms/{name}").folder
        await self.site.ask("machine_stop", folder=self.site.folder, place=place)

    async def note(self, vm: Vm) -> None:
        """Write down that a VM is built otherwise now: a disk has moved."""
        place = self._place(f"vms/{vm.name}").folder
        await self.site.ask(
            "machine_note", folder=self.site.folder, place=place, changes={"vm": plain(vm)}
        )

    async def output(self, name: str, *, console: bool = False, count: int = 4000) -> str:
        """Return the last bytes of what a VM's QEMU, or its guest's console, has written."""
        check_name(name)
        place = self._place(f"vms/{name}").folder
        found: str = await self.site.ask(
            "machine_output", place=place, name="console" if console else "stderr", count=count
        )
        return found

    async def look(
        self, name: str, *commands: str | tuple[str, Mapping[str, Any]]
    ) -> tuple[Any, ...]:
        """Return a VM's answers to QMP questions (query-…, qom-get), beside its conductor.

        Raises:
            HostError: There is no such VM, its QEMU refuses one, or does not answer.
        """
        check_name(name)
        asked = [
            [each, {}] if isinstance(each, str) else [each[0], dict(each[1])] for each in commands
        ]
        place = self._place(f"vms/{name}").folder
        return tuple(await self.site.ask("machine_look", place=place, commands=asked))

    async def _make_images(self, vm: Vm) -> None:
        for disk in vm.disks:
            if disk.size is not None and disk.path.startswith("/"):
                await self.site.ask(
                    "machine_image", path=disk.path, kind=disk.format, size=disk.size
                )

    async def _hold(self, vm: Vm, process: ResidentProcess) -> QemuMachine:
        names = [channel_name(index) for index in range(len(vm.channels))]
        await process.prepare_sockets([*names, *([] if vm.words else [TERMINAL])])
        machine = QemuMachine(vm, process)
        self._held.append(machine)
        return machine

    def _place(self, folder: str) -> Place:
        return Place(self.site, f"{self.site.folder}/{folder}", self._here)

    async def _unknown(self, name: str) -> ConfigError:
        names = [each.name for each in await self.machines()]
        near = get_close_matches(name, names, 1)
        known = ", ".join(names) or "none"
        return ConfigError(
            f'There is no VM "{name}" on {self.name}; it has {known}.',
            f"Did you mean {near[0]}?" if near else "",
        )


async def _connected(machine: QemuMachine) -> bool:
    """Tell whether its connection stands; a QEMU that hangs answers a new one even less."""
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN):
            await machine.process.monitor.execute("query-status")
    except TimeoutError:
        return True
    except HostError:
        return False
    return True

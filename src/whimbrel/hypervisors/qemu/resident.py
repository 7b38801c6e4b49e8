"""QEMU on a host that a `Site` leads to, whose VMs outlive whimbrel.

FOLDER/vms/NAME/   one VM each: vm.json, sockets, console, stderr (sites/onsite/machines.py)

start, receive ──► a machine, known from then on to every whimbrel that reaches the host
find(name)     ──► the same machine, conducted from here
look(name)     ──► answers to questions, beside whoever conducts it
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from whimbrel.errors import (
    CommandRefused,
    ConfigError,
    HostError,
    HostUnreachable,
    ProtocolError,
)
from whimbrel.hypervisors.qemu.adopt import Adoption, asked, described
from whimbrel.hypervisors.qemu.command_line import (
    CONDUCT,
    TERMINAL,
    channel_name,
    command_line,
)
from whimbrel.hypervisors.qemu.hypervisor import QemuHypervisor
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.network_devices import taps
from whimbrel.hypervisors.qemu.probe import Abilities, ask, probe_words
from whimbrel.hypervisors.qemu.resident_process import Birth, Place, ResidentProcess
from whimbrel.model.inventory import Vm
from whimbrel.model.plain import plain, shaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whimbrel.model.method import PreparedMemory
    from whimbrel.ports import Site

SCHEMA = "whimbrel.vm/1"
"""What vm.json says it is."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_STALE = 60.0
"""Seconds after which a probe belongs to a whimbrel that was killed."""


@dataclass(frozen=True)
class Resident:
    """What a host's files say of one VM; nobody has asked its QEMU.

    Attributes:
        vm: How it was built.
        place: Its folder on the host.
        role: "running", or "incoming": a destination whose guest has not arrived.
        pid: QEMU's process.
        start: That process's start time, in ticks since the host booted.
        began: When it was started, in seconds since 1970 by the host's clock.
        alive: Whether the process lives.
        words: The command line it was started with.
        sockets: QMP sockets of a VM that somebody else started; empty for whimbrel's own.
    """

    vm: Vm
    place: str
    role: str
    pid: int
    start: int
    began: float
    alive: bool
    words: tuple[str, ...]
    sockets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.vm.name


class ResidentHost(QemuHypervisor):
    """The port's `Hypervisor` on one host; `close` lets go of its VMs, which go on.

    Args:
        name: The host's name, for people.
        site: The way onto it; not closed with this.
        here: Whether it is this machine.
    """

    def __init__(self, name: str, site: Site, *, here: bool = False) -> None:
        super().__init__(name)
        self.site = site
        self._here = here
        self._abilities: Abilities | None = None
        self._probing = asyncio.Lock()
        self._held: list[QemuMachine] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of every VM; they go on."""
        while self._held:
            process = self._held.pop().process
            if isinstance(process, ResidentProcess):
                await process.close()

    async def abilities(self) -> Abilities:
        """See `QemuHypervisor.abilities`."""
        async with self._probing:
            if self._abilities is None:
                self._abilities = await self._probe()
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
        _check_name(vm.name)
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
        return tuple(_resident(record) for record in found if record.get("pid") is not None)

    async def resident(self, name: str) -> Resident | None:
        """Return what is written of one VM; None where there is none of that name."""
        _check_name(name)
        place = self._place(f"vms/{name}").folder
        record = await self.site.ask("machine_find", place=place)
        return None if record is None or record.get("pid") is None else _resident(record)

    async def find(self, name: str) -> QemuMachine:
        """Conduct a VM that runs here, or waits for its guest.

        Raises:
            ConfigError: There is none of that name.
            HostError: Its QEMU has ended, or is conducted by two others.
        """
        found = await self.resident(name)
        if found is None:
            raise await self._unknown(name)
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
                if await _answers(held):
                    return held
                self._held.remove(held)
                await held.process.close()
        process = await ResidentProcess.find(title, place, birth, found.sockets or CONDUCT)
        return await self._hold(found.vm, process)

    async def adopt(self, socket: str) -> Adoption:
        """Conduct a VM that somebody else started, by its QMP socket; nothing changes on the host.

        Raises:
            HostError: Nobody listens there, or somebody else conducts it.
        """
        try:
            facts = await self.site.ask("adoption_facts", path=socket)
        except CommandRefused as error:
            raise HostUnreachable(
                f"No QEMU answers at {socket}: {error.what}",
                f"See whether the VM still runs, and the sockets of host {self.name} in the file.",
            ) from error
        birth = Birth(facts["pid"], facts["start"])
        title = f"{socket} on {self.name}"
        place = self._place(f"vms/pid-{birth.pid}")
        process = await ResidentProcess.find(title, place, birth, (socket,))
        try:
            said = await asked(process.monitor)
        except BaseException:
            await process.close()
            raise
        vm, reasons = described(facts["words"], said, f"pid-{birth.pid}")
        process.name = f"{vm.name} on {self.name}"
        process.place = self._place(f"vms/{vm.name}")
        machine = QemuMachine(vm, process)
        self._held.append(machine)
        return Adoption(machine, reasons)

    async def enter(self, adoption: Adoption, socket: str) -> None:
        """Write an adopted VM down on its host, as every move of it needs.

        From then on `machines` and `find` know it; when it has been moved, nothing of that stays.

        Raises:
            HostError: Something is in the way of adopting it, or a VM of its name is here.
        """
        vm, process = adoption.machine.vm, adoption.machine.process
        if adoption.reasons or not isinstance(process, ResidentProcess):
            raise CommandRefused(
                f"{vm.name} cannot be built again elsewhere: {'; '.join(adoption.reasons)}."
            )
        record = {
            "schema": SCHEMA,
            "vm": plain(vm),
            "words": list(vm.words),
            "role": "running",
            "sockets": [socket],
            "pid": process.birth.pid,
            "start": process.birth.start,
        }
        site = self.site
        await site.ask(
            "machine_adopt", folder=site.folder, place=process.place.folder, record=record
        )

    async def seek(self, name: str) -> QemuMachine | None:
        """See `QemuHypervisor.seek`."""
        found = await self.resident(name)
        return await self.find(name) if found is not None and found.alive else None

    async def remove(self, name: str) -> None:
        """End a VM whatever it does, and remove its folder; harmless where there is none."""
        _check_name(name)
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
        _check_name(name)
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
        _check_name(name)
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


async def _answers(machine: QemuMachine) -> bool:
    with suppress(HostError):
        await machine.process.monitor.execute("query-status")
        return True
    return False


def _resident(record: Mapping[str, Any]) -> Resident:
    try:
        return Resident(
            vm=shaped(Vm, record["vm"]),
            place=record["place"],
            role=record["role"],
            pid=record["pid"],
            start=record["start"],
            began=record["began"],
            alive=record["alive"],
            words=tuple(record["words"]),
            sockets=tuple(record.get("sockets", ())),
        )
    except (KeyError, ValueError) as error:
        raise ProtocolError(
            f"{record.get('place')}/vm.json cannot be read: {error}.",
            "It was written by another version of whimbrel.",
        ) from error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f'"{name}" is no name for a VM.',
            "Use letters, digits and . _ - , a letter or a digit first.",
        )

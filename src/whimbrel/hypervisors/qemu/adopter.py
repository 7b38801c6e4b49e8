"""VMs on a host that somebody else started: found by their QMP sockets, and entered for a move."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from whimbrel.errors import CommandRefused, HostError, HostUnreachable
from whimbrel.hypervisors.qemu.adopt import Adoption, asked, described
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.resident_process import Birth, Place, ResidentProcess
from whimbrel.hypervisors.qemu.resident_record import SCHEMA
from whimbrel.model.plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from whimbrel.ports import Machine, Site


class Adopter:
    """What is conducted on one host without having been started by whimbrel.

    Args:
        name: The host's name.
        site: The way onto it.
        sockets: QMP sockets on it that its owner named.
        here: Whether it is this machine.
    """

    def __init__(self, name: str, site: Site, sockets: Sequence[str], *, here: bool) -> None:
        self._name, self._site, self._sockets, self._here = name, site, tuple(sockets), here
        self._known: list[Adoption] = []

    async def close(self) -> None:
        """Let go of every one; they go on."""
        while self._known:
            await _release(self._known.pop())

    def of(self, machine: Machine) -> Adoption | None:
        """Return the adoption that a machine came from; None for whimbrel's own."""
        return next((each for each in self._known if each.machine is machine), None)

    async def named(self, name: str) -> Adoption | None:
        """Return the VM of that name behind one of the host's sockets; None where there is none."""
        for known in list(self._known):
            if known.machine.vm.name == name:
                with suppress(HostError):
                    await known.machine.process.monitor.execute("query-status")
                    return known
                self._known.remove(known)
                await _release(known)
        for socket in self._sockets:
            with suppress(HostUnreachable):  # it has ended, or another conducts it
                adoption = await self.adopt(socket)
                if adoption.machine.vm.name == name:
                    return adoption
                self._known.remove(adoption)
                await _release(adoption)
        return None

    async def adopt(self, socket: str) -> Adoption:
        """Conduct a VM that somebody else started, by its QMP socket; nothing changes on the host.

        Raises:
            HostError: Nobody listens there, or somebody else conducts it.
        """
        try:
            facts = await self._site.ask("adoption_facts", path=socket)
        except CommandRefused as error:
            raise HostUnreachable(
                f"No QEMU answers at {socket}: {error.what}",
                f"See whether the VM still runs, and the sockets of host {self._name} in the file.",
            ) from error
        birth = Birth(facts["pid"], facts["start"])
        title = f"{socket} on {self._name}"
        place = self._place(f"pid-{birth.pid}")
        process = await ResidentProcess.find(title, place, birth, (socket,))
        try:
            said = await asked(process.monitor)
        except BaseException:
            await process.close()
            raise
        vm, reasons = described(facts["words"], said, f"pid-{birth.pid}")
        process.name = f"{vm.name} on {self._name}"
        process.place = self._place(vm.name)
        adoption = Adoption(QemuMachine(vm, process), reasons, socket)
        self._known.append(adoption)
        return adoption

    async def enter(self, adoption: Adoption) -> None:
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
            "sockets": [adoption.socket],
            "pid": process.birth.pid,
            "start": process.birth.start,
        }
        site = self._site
        await site.ask(
            "machine_adopt", folder=site.folder, place=process.place.folder, record=record
        )

    def _place(self, vm: str) -> Place:
        return Place(self._site, f"{self._site.folder}/vms/{vm}", self._here)


async def _release(adoption: Adoption) -> None:
    process = adoption.machine.process
    if isinstance(process, ResidentProcess):
        await process.close()

"""What a command needs of a host beyond the port `Hypervisor`, whatever runs the VMs there.

    QemuPlace      plain QEMU: its residents, and VMs that were started by hand
    LibvirtPlace   libvirt: its domains, transient or defined

A VM moves between two hosts of one kind; `refuse_unlike` says so before any host is asked.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from whimbrel.errors import CommandRefused, ConfigError
from whimbrel.hypervisors.connect import runs_libvirt
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.checks import at_home, in_virsh, own_checks, seen_by_both
from whimbrel.hypervisors.libvirt.examine import LibvirtExaminer
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.libvirt.teller import LibvirtTeller
from whimbrel.hypervisors.libvirt.translate import dotted
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.hypervisors.qemu.compare import QemuExaminer
from whimbrel.hypervisors.qemu.translate import observation_from, phase_of
from whimbrel.model.check import Check, failed, passed
from whimbrel.model.inventory import X509, Host
from whimbrel.model.migration import ENDS, Event, Phase, PhaseChange
from whimbrel.model.overview import VmSeen
from whimbrel.ports import Examiner, Hypervisor, Machine

BY_HAND = "Start it with whimbrel up, from a file that describes it (docs/config.md)."
"""What to do about a VM whose command line cannot be built again elsewhere."""

EVERY = 0.3
"""Seconds between two looks at a QEMU."""


class Place(Protocol):
    """One host of a move."""

    @property
    def hypervisor(self) -> Hypervisor:
        """The same as practice sees it."""

    async def machine(self, seen: VmSeen) -> Machine:
        """Return a VM that was seen here, to be conducted from now on."""

    async def version(self) -> str:
        """Return its QEMU's version, as QEMU prints it."""

    def examiner(self) -> Examiner:
        """Return what tells a preflight of it."""

    async def judged(
        self, machine: Machine, checks: Sequence[Check], there: "Place", /
    ) -> list[Check]:
        """Return a preflight's checks as they hold here, and those that only such hosts need."""

    async def afterwards(self, vm: str, there: "Place", /) -> list[Check]:
        """Return what is left here of a VM that has moved there, and what became of it there."""

    def credentials(self, named: X509 | None, there: Host, /) -> X509 | None:
        """Return the certificates that encrypt a move from here to a host.

        None: a key is made for it. `named` are those that both hosts name, if they do.
        """

    def looks(self, vm: str) -> AsyncIterator[Event]:
        """Yield what happens to a VM that leaves, beside whoever conducts its move, to its end.

        `ConfigError` where it is not being moved; nothing is changed by looking.
        """


class QemuPlace:
    """A host with plain QEMU."""

    def __init__(self, host: ResidentHost) -> None:
        self.hypervisor = host

    async def machine(self, seen: VmSeen) -> Machine:
        """See `Place.machine`; one that was started by hand is adopted."""
        if seen.socket is not None and seen.by_hand:
            return (await self.hypervisor.adopt(seen.socket)).machine
        return await self.hypervisor.find(seen.name)

    async def version(self) -> str:
        """See `Place.version`."""
        return (await self.hypervisor.abilities()).version

    def examiner(self) -> QemuExaminer:
        """See `Place.examiner`."""
        return QemuExaminer(self.hypervisor.site)

    async def judged(self, machine: Machine, checks: Sequence[Check], _: Place, /) -> list[Check]:
        """See `Place.judged`; with what keeps a VM that was started by hand where it is."""
        reasons = self.hypervisor.hindrances(machine)
        return [*checks, *(failed("started by hand", why, BY_HAND) for why in reasons)]

    async def afterwards(self, vm: str, _: Place, /) -> list[Check]:
        """See `Place.afterwards`."""
        left, name = await self.hypervisor.resident(vm), self.hypervisor.name
        if left is None or not left.alive:
            gone = f"Its process on {name} is gone; memory and disks are free there."
            return [passed("source", gone)]
        still = f"Its process on {name} is still there, stopped."
        return [failed("source", still, f"whimbrel recover {vm}")]

    def credentials(self, named: X509 | None, _: Host, /) -> X509 | None:
        """See `Place.credentials`."""
        return named

    async def looks(self, vm: str) -> AsyncIterator[Event]:
        """See `Place.looks`; QEMU is asked again and again, so only figures are told."""
        began, phase = time.monotonic(), Phase.IDLE
        while phase not in ENDS:
            (answer,) = await self.hypervisor.look(vm, "query-migrate")
            at, seen = time.monotonic() - began, phase_of(str(answer.get("status", "none")))
            if phase is Phase.IDLE and seen in {Phase.IDLE, *ENDS}:
                raise not_moved(vm, self.hypervisor.name)
            if seen is not phase:
                phase = seen
                yield PhaseChange(phase, at, str(answer.get("error-desc", "")))
            if "ram" in answer and phase not in ENDS:
                yield observation_from(answer, at, phase)
            await asyncio.sleep(EVERY)


class LibvirtPlace:
    """A host that libvirt runs."""

    def __init__(self, host: LibvirtHost) -> None:
        self.hypervisor = host
        self._defined: dict[str, bool] = {}

    async def machine(self, seen: VmSeen) -> Machine:
        """See `Place.machine`; whether it is defined is remembered for afterwards."""
        machine = await self._sought(seen.name)
        self._defined[seen.name] = await (await machine.domain()).persistent()
        return machine

    async def version(self) -> str:
        """See `Place.version`."""
        return dotted((await self.hypervisor.versions()).hypervisor)

    def examiner(self) -> LibvirtExaminer:
        """See `Place.examiner`."""
        return LibvirtExaminer(self.hypervisor)

    def teller(self) -> LibvirtTeller:
        """Return what libvirt tells of the host itself, where no shell leads there."""
        return LibvirtTeller(self.hypervisor)

    async def judged(
        self, machine: Machine, checks: Sequence[Check], there: Place, /
    ) -> list[Check]:
        """See `Place.judged`; with what libvirt refuses by itself, and remedies for virsh."""
        own: Iterable[Check] = ()
        if isinstance(machine, LibvirtMachine) and isinstance(there, LibvirtPlace):
            own = await own_checks(machine, there.hypervisor, checks)
            machine.proven = seen_by_both(checks)
        return [*in_virsh(checks, machine.vm.name), *own]

    async def afterwards(self, vm: str, there: Place, /) -> list[Check]:
        """See `Place.afterwards`."""
        if not isinstance(there, LibvirtPlace):
            return []
        defined = self._defined.get(vm, False)
        return await at_home(self.hypervisor, vm, defined=defined, there=there.hypervisor)

    def credentials(self, _: X509 | None, there: Host, /) -> X509 | None:
        """See `Place.credentials`; libvirt has its own, and nothing else to encrypt with."""
        return X509("", "", there.certificate_name)

    async def looks(self, vm: str) -> AsyncIterator[Event]:
        """See `Place.looks`; libvirt tells everybody who listens."""
        try:
            migration = await self.hypervisor.rejoin(await self._sought(vm))
        except CommandRefused as error:
            raise not_moved(vm, self.hypervisor.name) from error
        async for event in migration.watch():
            yield event

    async def _sought(self, vm: str) -> LibvirtMachine:
        machine = await self.hypervisor.seek(vm)
        if machine is None:
            raise CommandRefused(
                f"{vm} on {self.hypervisor.name} is off.", f"Start it: virsh start {vm}"
            )
        return machine


def not_moved(vm: str, host: str) -> ConfigError:
    """Return the error that there is no move to look on at."""
    return ConfigError(f"{vm} on {host} is not being moved now.", "Past moves: whimbrel history")


def refuse_unlike(source: Host, destination: Host) -> None:
    """Raise `ConfigError` where no move leads from one host to the other, before they are asked."""
    if runs_libvirt(source) == runs_libvirt(destination):
        return
    kinds = {True: "run by libvirt", False: "plain QEMU"}
    here, there = (kinds[runs_libvirt(each)] for each in (source, destination))
    raise ConfigError(
        f"{source.name} is {here} and {destination.name} {there}: neither can take over what the "
        "other has built.",
        "Move between two hosts of one kind. Where libvirt runs on both machines, write their "
        "uri as libvirt+ssh://HOST/system.",
    )

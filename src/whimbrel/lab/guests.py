"""The guest of a scenario: booted, redlined, asked about its memory wherever it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from whimbrel.errors import LabError
from whimbrel.lab.accelerator import Accelerator
from whimbrel.lab.audience import Audience
from whimbrel.lab.image import APPEND, BEAT_PORT, CONTROL_PORT, Image
from whimbrel.lab.redline import Redline
from whimbrel.lab.stage import End, Stage
from whimbrel.model.inventory import Vm
from whimbrel.model.scenario import GuestCheck, Load, Scenario
from whimbrel.model.units import format_size
from whimbrel.ports import Machine

_RATE_WINDOW = 1.05
"""Seconds; redline tells the rate over the last second of the guest's clock."""


@dataclass(frozen=True)
class Guest:
    """A running guest.

    Attributes:
        machine: What holds it now.
        end: On which host.
        load: What its memory does.
    """

    machine: Machine
    end: End
    load: Load

    @property
    def label(self) -> str:
        """What its heartbeat is called at this place; no two machines share it."""
        return beat_label(self.machine)

    @asynccontextmanager
    async def redline(self) -> AsyncIterator[Redline]:
        """Talk to the redliner inside."""
        async with Redline.connect(self.machine.channel(CONTROL_PORT)) as redline:
            await redline.ready()
            yield redline

    async def dirty_rate(self) -> float:
        """Return the bytes of pages that it rewrites per second, over the second from now on.

        The second before may belong to a fill or a verification, which the writer waits for.
        """
        await asyncio.sleep(_RATE_WINDOW)
        async with self.redline() as redline:
            return (await redline.status()).rate

    async def free_again(self, audience: Audience) -> None:
        """Fill what the load calls freed once more, and give it back to the guest's kernel."""
        if not self.load.freed:
            return
        what = f"filling and freeing {format_size(self.load.freed)}"
        async with self.redline() as redline:
            await redline.free(self.load, lambda share: audience.works(what, share))

    async def check(self, audience: Audience) -> GuestCheck:
        """Let the guest verify every page."""
        what = f"verifying {format_size(self.load.fill)}"
        async with self.redline() as redline:
            found = await redline.verify(lambda share: audience.works(what, share))
        return GuestCheck(intact=found.bad_pages == 0, pages_checked=found.pages_checked)


class Verifying(Protocol):
    """A guest that can look at its own memory."""

    async def check(self, audience: Audience) -> GuestCheck:
        """Let it verify every page; raises `LabError` where it does not answer."""


async def checked(guest: Verifying | None, audience: Audience) -> tuple[GuestCheck | None, str]:
    """Return what a guest found after its move, and why it found nothing; None: it is lost."""
    if guest is None:
        return None, ""
    try:
        return await guest.check(audience), ""
    except LabError as error:
        return None, f"the guest does not answer after the move: {error.what}"


def guest_vm(
    scenario: Scenario, image: Image, accelerator: Accelerator, *, free_page_hints: bool
) -> Vm:
    """Return the VM that a scenario's guest needs."""
    return Vm(
        name="redline",
        memory=scenario.guest.memory,
        vcpus=scenario.guest.vcpus,
        accelerator=accelerator.name,
        kernel=image.kernel,
        initrd=image.initrd,
        append=APPEND,
        channels=(CONTROL_PORT, BEAT_PORT),
        free_page_hints=free_page_hints,
    )


async def boot(stage: Stage, vm: Vm, load: Load, audience: Audience) -> Guest:
    """Boot a guest on host a, fill its memory and start its load.

    Raises:
        HostError: QEMU does not start.
        LabError: The guest does not answer, or its memory does not take the fill.
    """
    audience.works("booting the guest", 0.0)
    machine = await stage.a.hypervisor.start(vm)
    guest = Guest(machine, stage.a, load)
    stage.beats.add(guest.label, machine.channel(BEAT_PORT))
    what = f"redlining {format_size(load.fill)} ({load.pattern})"
    async with guest.redline() as redline:
        # What is freed is filled before each move, not now.
        await redline.fill(replace(load, freed=0), lambda share: audience.works(what, share))
    return guest


def beat_label(machine: Machine) -> str:
    """Return the heartbeat's name for one machine."""
    return f"pid {machine.pid}"

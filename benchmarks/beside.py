"""What a move leaves to those beside it, measured when you ask for it.

    sudo .venv/bin/python benchmarks/beside.py budget   a busy guest's pace beside a compressed move
    sudo .venv/bin/python benchmarks/beside.py leave    a TCP flow's share beside --leave

The busy guest rewrites memory as fast as its vCPU can, on the source; its own count of what it
wrote is the measure, once alone and once beside the move. Nothing else may run meanwhile.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from whimbrel.errors import WhimbrelError
from whimbrel.lab.accelerator import choose_accelerator
from whimbrel.lab.audience import Nobody
from whimbrel.lab.goodput import Goodput, measure_goodput
from whimbrel.lab.guests import Guest, boot, guest_vm
from whimbrel.lab.image import build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.stage import End, Stage, stage
from whimbrel.model.method import Codec, Compression, Tuning
from whimbrel.model.migration import ENDS, Decision, Event, Phase, PhaseChange
from whimbrel.model.scenario import AcceleratorChoice, GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.units import MIB, format_rate
from whimbrel.ports import Machine
from whimbrel.practice.attend import Attendant
from whimbrel.practice.budget import Allowance, Budget
from whimbrel.practice.leave import Leave, ends_between
from whimbrel.practice.move import Request, move
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

MEMORY = 768 * MIB
MOVED = Load(fill=512 * MIB, pattern=Pattern.TEXT)
BUSY = Load(fill=128 * MIB, pattern=Pattern.RANDOM, hot=96 * MIB, dirty_rate=1e12)
BUDGETS = (None, 0.5, 0.25)
LINK = 25e6


class Looking:
    """Tells when memory flows, and when the guest has left."""

    def __init__(self) -> None:
        self.flowing, self.over = asyncio.Event(), asyncio.Event()

    def prepared(self, machine: Machine) -> None:
        """See `Watcher`."""

    def happened(self, event: Event) -> None:
        """See `Watcher`."""
        if isinstance(event, PhaseChange):
            if event.phase is Phase.PRECOPY:
                self.flowing.set()
            elif event.phase is Phase.SWITCHOVER or event.phase in ENDS:
                self.over.set()

    def decided(self, decision: Decision) -> None:
        """See `Watcher`."""

    def arrived(self, machine: Machine) -> None:  # noqa: ARG002
        """See `Watcher`."""
        self.over.set()


def lost(error: WhimbrelError) -> None:
    """Say that something is no longer held."""
    print(f"  {error}", file=sys.stderr)


@asynccontextmanager
async def two_guests(
    link: float | None, load: Load
) -> AsyncIterator[tuple[Stage, Guest, Guest, tuple[OnSite, OnSite]]]:
    """Hold a guest that moves and a busy one beside it, both on the source."""
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    scenario = Scenario(guest=GuestSpec(MEMORY, redline=load), link=LinkSpec(link))
    accelerator = await asyncio.to_thread(choose_accelerator, AcceleratorChoice.AUTO, image)
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with stage(scenario, Path(folder)) as on:
            sites = [_site(end, folder) for end in (on.a, on.b)]
            try:
                vm = guest_vm(scenario, image, accelerator, free_page_hints=False)
                moved = await boot(on, vm, load, Nobody())
                busy = await boot(on, replace(vm, name="busy", memory=256 * MIB), BUSY, Nobody())
                yield on, moved, busy, (sites[0], sites[1])
            finally:
                for site in sites:
                    await site.close()


def _site(end: End, folder: str) -> OnSite:
    return OnSite(LocalShell(end.name, end.host.enter), folder)


async def pace(guest: Guest, over: asyncio.Event | None = None, seconds: float = 5.0) -> float:
    """Return the bytes per second that a guest writes, until `over` or for so long."""
    async with guest.redline() as redline:
        await redline.stop()
        await redline.start()  # it counts anew from here
        if over is None:
            await asyncio.sleep(seconds)
        else:
            await over.wait()
        return (await redline.status()).rate_since


async def budget() -> None:
    """Print the busy guest's pace alone, and beside a compressed move under each budget."""
    for cores in BUDGETS:
        async with two_guests(None, MOVED) as (on, moved, busy, sites):
            alone = await pace(busy)
            allowed = [Allowance(site, cores) for site in sites] if cores else []
            held: tuple[Attendant, ...] = ()
            if cores:
                held = (Budget(allowed[0], allowed[1], told=print, lost=lost),)
            tuning = Tuning(channels=2, compression=Compression(Codec.ZLIB, 6))
            beside = await _beside(on, moved, busy, tuning, held)
        share = f"a budget of {cores:g} cores" if cores else "no budget"
        print(
            f"{share}: {format_rate(alone)} alone, {format_rate(beside)} beside the move, "
            f"{1 - beside / alone:.1%} less"
        )


async def _beside(
    on: Stage, moved: Guest, busy: Guest, tuning: Tuning, held: tuple[Attendant, ...]
) -> float:
    looking = Looking()
    request = Request(
        on.a.hypervisor,
        moved.machine,
        on.b.hypervisor,
        on.address(on.b),
        tuning,
        600.0,
        attendants=held,
    )
    moving = asyncio.create_task(move(request, looking))
    await looking.flowing.wait()
    found = await pace(busy, looking.over)
    outcome = (await moving).outcome
    if outcome.arrival_time is None:
        sys.exit(f"The guest did not arrive: {outcome.reason}")
    return found


async def leave() -> None:
    """Print the share of a TCP flow beside a move that leaves it 30 to 70 % of the link."""
    load = Load(fill=96 * MIB, pattern=Pattern.RANDOM)
    for left in (0.3, 0.5, 0.7):
        async with two_guests(LINK, load) as (on, moved, busy, sites):
            async with busy.redline() as redline:
                await redline.stop()
            address = on.address(on.b)
            ends = await ends_between(*sites, address.host, (LINK, LINK))
            follow = Leave(left, ends, told=lambda _: None, lost=lost)
            looking = Looking()
            request = Request(
                on.a.hypervisor,
                moved.machine,
                on.b.hypervisor,
                address,
                Tuning(bandwidth_limit=follow.limit),
                600.0,
                attendants=(follow,),
            )
            moving = asyncio.create_task(move(request, looking))
            await looking.flowing.wait()
            flows: list[Goodput] = []
            while not looking.over.is_set():
                flows.append(await measure_goodput(on.a.host, on.b.host, duration=1.5))
            await moving
        shares = [each.rate * 1.046 / LINK for each in flows[:-1]]
        told = ", ".join(f"{share:.0%}" for share in shares)
        print(f"{left:.0%} left: the flow got {told} of the link")


if __name__ == "__main__":
    for name in sys.argv[1:] or ("budget", "leave"):
        asyncio.run({"budget": budget, "leave": leave}[name]())

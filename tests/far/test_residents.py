"""Real VMs on two hosts behind real SSH: started, conducted, moved, and left running."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from far.hosts import FarHost, far_hosts, needs_far_hosts
from whimbrel.hypervisors.connect import connect
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.lab.image import APPEND, BEAT_PORT, CONTROL_PORT, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import Disk, MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Decision, Event, Side
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.ports import IN_MEMORY, Machine
from whimbrel.practice.move import Request, move
from whimbrel.sites.connect import connect as site_of

pytestmark = needs_far_hosts

LOAD = Load(fill=64 * MIB, pattern=Pattern.TEXT, hot=16 * MIB, dirty_rate=10 * MIB)
SECONDS = 60.0


class Nobody:
    """Looks on and says nothing."""

    def prepared(self, machine: Machine) -> None: ...
    def happened(self, event: Event) -> None: ...
    def decided(self, decision: Decision) -> None: ...
    def arrived(self, machine: Machine) -> None: ...


@asynccontextmanager
async def whimbrel(*hosts: FarHost) -> AsyncIterator[list[ResidentHost]]:
    """Yield what one run of whimbrel has of some hosts; VMs go on when that run ends."""
    async with AsyncExitStack() as stack:
        found = []
        for each in hosts:
            site = await stack.enter_async_context(site_of(each.host))
            found.append(await stack.enter_async_context(connect(each.host, site)))
        yield found


def redlined(folder: Path) -> Vm:
    image = build_image(find_kernel())
    return Vm(
        "redline",
        256 * MIB,
        kernel=image.kernel,
        initrd=image.initrd,
        append=APPEND,
        channels=(CONTROL_PORT, BEAT_PORT),
        disks=(Disk("vda", str(folder / "vda.img"), size=8 * MIB, cache="writeback"),),
    )


async def verified(machine: Machine) -> bool:
    async with Redline.connect(machine.channel(CONTROL_PORT), SECONDS) as redline:
        await redline.ready()
        found = await redline.verify()
    return found.bad_pages == 0 and found.pages_checked >= LOAD.fill // 4096


async def test_a_guest_moves_between_far_hosts_and_keeps_every_page() -> None:
    async with far_hosts() as far:
        async with whimbrel(far.a) as [a]:
            machine = await a.start(redlined(far.folder))
            async with Redline.connect(machine.channel(CONTROL_PORT), SECONDS) as redline:
                await redline.ready()
                await redline.fill(LOAD, lambda _: None)
        async with whimbrel(far.a, far.b) as [a, b]:
            machine = await a.find("redline")
            address = MigrationAddress(far.b.lab.addresses[0])
            request = Request(a, machine, b, address, Tuning(channels=2), 60.0)
            moved = await move(request, Nobody())
            assert moved.outcome.ending is Ending.COMPLETED, moved.outcome.reason
            assert moved.outcome.runs_on is Side.DESTINATION
            assert await a.machines() == ()
        async with whimbrel(far.b) as [b]:
            machine = await b.find("redline")
            assert await verified(machine)
            assert (await b.resident("redline")) is not None
            await machine.stop()
            assert await b.machines() == ()


async def test_a_vm_goes_on_when_ssh_breaks_and_is_conducted_again_when_it_is_back() -> None:
    async with far_hosts() as far:
        async with whimbrel(far.a) as [a]:
            machine = await a.start(Vm("vm", 128 * MIB))
            pid = machine.pid
            far.a.kill_sshd()
            assert not await machine.process.ends_within(0.0)
        await far.a.restart_sshd()
        async with whimbrel(far.a) as [a]:
            machine = await a.find("vm")
            assert machine.pid == pid
            assert await machine.running()
            inspection = machine.inspection()
            pages = [
                at for at, state in enumerate(await inspection.provided()) if state == IN_MEMORY
            ]
            assert len(await inspection.read(pages[:10])) == 10 * 4096
            assert (await inspection.look(pages[:10])).marks
            await machine.stop()
            assert await a.machines() == ()


async def test_a_conductor_that_went_silent_holds_up_nobody() -> None:
    async with far_hosts() as far, whimbrel(far.a) as [lost]:
        await lost.start(Vm("vm", 128 * MIB))
        far.a.cut_control()
        far.a.restore_control()
        async with whimbrel(far.a) as [a]:
            machine = await a.find("vm")
            assert await machine.running()

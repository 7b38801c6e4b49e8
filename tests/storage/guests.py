"""Guests that write their disks, and what verifies them afterwards."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from whimbrel.lab.image import APPEND, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.redline import DiskVerification, Redline
from whimbrel.model.inventory import Disk, Vm
from whimbrel.model.units import MIB
from whimbrel.ports import Machine

CONTROL = "org.whimbrel.redline"
BEAT = "org.whimbrel.beat"


def disk_vm(disks: Sequence[Disk], memory: int = 192 * MIB) -> Vm:
    """Return the VM of a guest that serves redline and has these disks."""
    image = build_image(find_kernel())
    return Vm(
        name="writer",
        memory=memory,
        kernel=image.kernel,
        initrd=image.initrd,
        append=APPEND,
        channels=(CONTROL, BEAT),
        disks=tuple(disks),
    )


@asynccontextmanager
async def redline(machine: Machine) -> AsyncIterator[Redline]:
    """Talk to the guest's redline."""
    async with Redline.connect(machine.channel(CONTROL)) as client:
        await client.ready()
        yield client


async def verified(machine: Machine, *disks: str) -> list[DiskVerification]:
    """Let the guest read all of its disks."""
    async with redline(machine) as client:
        return [await client.verify_disk(disk) for disk in disks]


def sparse(path: Path, size: int) -> str:
    """Make a raw image without a byte in it."""
    with path.open("xb") as file:
        file.truncate(size)
    return str(path)

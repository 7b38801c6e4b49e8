"""Both ends of `lab --nested`, reached as `whimbrel move` reaches any host: a site over SSH.

What is measured there is asked of the hosts themselves: their interfaces' counters every two
seconds, and the guest's heartbeat through SSH.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from whimbrel.errors import HostError
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.lab.audience import Audience
from whimbrel.lab.counters import CpuTimes, ProcessSample, Sample
from whimbrel.lab.heartbeat import HeartbeatListener
from whimbrel.lab.image import APPEND, BEAT_PORT, CONTROL_PORT, Image
from whimbrel.lab.nested.hosts import NestedHost
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.scenario import GuestCheck, GuestSpec, LinkSpec, Load
from whimbrel.model.units import Seconds, format_size
from whimbrel.ports import Machine, Site
from whimbrel.sites.connect import connect

VM_NAME = "redline"

PATIENCE: Seconds = 900.0
"""Seconds that a guest may say nothing: emulated within what is emulated, it boots for minutes on a
busy machine."""

CALM = "beat_ms=200"
"""Words of the guest's kernel: one that beats 200 times a second does nothing else there."""

ALONE = 3
"""Number of the wire that is in no team; RDMA's device stays on it."""

EVERY: Seconds = 2.0
"""Seconds between two looks at a host's counters, which an emulated host notices."""


@dataclass(frozen=True)
class NestedEnd:
    """One end.

    Attributes:
        nested: The emulated host.
        site: The way onto it.
        hypervisor: What runs VMs there.
    """

    nested: NestedHost
    site: Site
    hypervisor: ResidentHost

    @property
    def name(self) -> str:
        """The host's name."""
        return self.nested.host.name

    def address(self, link: LinkSpec) -> MigrationAddress:
        """Return where it listens for guests: on the team, or on the wire beside it."""
        return MigrationAddress(self.nested.addresses[0 if link.team else ALONE - 1])

    async def counters(self, pid: int | None = None) -> Mapping[str, Any]:
        """Return its counters, and those of one process."""
        told: Mapping[str, Any] = await self.site.ask("counters", pid=pid)
        return told

    async def sent(self) -> dict[str, int]:
        """Return the bytes that each of its wires has sent so far."""
        counted = (await self.counters())["interfaces"]
        return {name: int(counted[name]["sent"]) for name in self._wires(counted)}

    def _wires(self, counted: Mapping[str, Any]) -> list[str]:
        names = [f"eth{number}" for number in range(1, len(self.nested.wires) + 1)]
        return [name for name in names if name in counted]

    async def sample(self, pid: int | None) -> tuple[dict[tuple[str, str], tuple[int, int]], Any]:
        """Return the bytes received and sent by each wire, and what `pid` holds and has used."""
        told = await self.counters(pid)
        counted = told["interfaces"]
        wires = {
            (self.name, name): (int(counted[name]["received"]), int(counted[name]["sent"]))
            for name in self._wires(counted)
        }
        return wires, told["process"]


@dataclass
class NestedGuest:
    """The guest wherever it runs now.

    Attributes:
        machine: What holds it.
        end: On which host.
        load: What its memory does.
    """

    machine: Machine
    end: NestedEnd
    load: Load

    @property
    def label(self) -> str:
        """What its heartbeat is called at this place."""
        return beat_label(self.end, self.machine)

    async def check(self, audience: Audience) -> GuestCheck:
        """Let the guest verify every page; raises `LabError` where it does not answer."""
        what = f"verifying {format_size(self.load.fill)}"
        path = self.machine.channel(CONTROL_PORT)
        async with Redline.connect(path, PATIENCE) as redline:
            await redline.ready()
            found = await redline.verify(lambda share: audience.works(what, share))
        return GuestCheck(intact=found.bad_pages == 0, pages_checked=found.pages_checked)


@dataclass
class NestedStage:
    """Two ends, and who listens to the guest.

    Attributes:
        a: One end; guests boot here.
        b: The other.
        beats: Hears the guest.
    """

    a: NestedEnd
    b: NestedEnd
    beats: HeartbeatListener = field(default_factory=HeartbeatListener)

    def other(self, end: NestedEnd) -> NestedEnd:
        """Return the end across the wires."""
        return self.b if end is self.a else self.a

    async def boot(self, image: Image, guest: GuestSpec, audience: Audience) -> NestedGuest:
        """Boot a guest on host a, fill its memory and start its load.

        Raises:
            HostError: QEMU does not start.
            LabError: The guest does not answer, or its memory does not take the fill.
        """
        audience.works("booting the guest", 0.0)
        load = guest.redline
        machine = await self.a.hypervisor.start(nested_vm(image, guest))
        booted = NestedGuest(machine, self.a, load)
        self.beats.add(booted.label, machine.channel(BEAT_PORT))
        what = f"redlining {format_size(load.fill)} ({load.pattern})"
        async with Redline.connect(machine.channel(CONTROL_PORT), PATIENCE) as redline:
            await redline.ready()
            await redline.fill(load, lambda share: audience.works(what, share))
        return booted


def nested_vm(image: Image, guest: GuestSpec) -> Vm:
    """Return the VM of a guest on emulated hosts."""
    return Vm(
        name=VM_NAME,
        memory=guest.memory,
        vcpus=guest.vcpus,
        accelerator="tcg",
        kernel=image.kernel,
        initrd=image.initrd,
        append=f"{APPEND} {CALM}",
        channels=(CONTROL_PORT, BEAT_PORT),
    )


def beat_label(end: NestedEnd, machine: Machine) -> str:
    """Return the heartbeat's name for one machine: a pid says nothing without its host."""
    return f"pid {machine.pid} on {end.name}"


@asynccontextmanager
async def nested_stage(hosts: Mapping[str, NestedHost]) -> AsyncIterator[NestedStage]:
    """Hold both ends' connections, of the hosts "a" and "b"."""
    async with AsyncExitStack() as stack:
        ends = []
        for name in ("a", "b"):
            site = await stack.enter_async_context(connect(hosts[name].host))
            hypervisor = await stack.enter_async_context(ResidentHost(name, site))
            ends.append(NestedEnd(hosts[name], site, hypervisor))
        beats = stack.enter_context(HeartbeatListener())
        a, b = ends
        yield NestedStage(a, b, beats)


@asynccontextmanager
async def sampled(stage: NestedStage, pids: dict[str, int]) -> AsyncIterator[list[Sample]]:
    """Look at both hosts' counters for as long as the block lasts.

    Args:
        stage: Both ends.
        pids: The guest's process on each host, by its name; may grow meanwhile.
    """
    samples: list[Sample] = []
    task = asyncio.create_task(_sampling(stage, pids, samples))
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _sampling(stage: NestedStage, pids: dict[str, int], samples: list[Sample]) -> None:
    while True:
        with suppress(HostError):  # a host that is too slow now is asked again
            samples.append(await _sample(stage, pids))
        await asyncio.sleep(EVERY)


async def _sample(stage: NestedStage, pids: Mapping[str, int]) -> Sample:
    ends = (stage.a, stage.b)
    found = await asyncio.gather(*(end.sample(pids.get(end.name)) for end in ends))
    wires: dict[tuple[str, str], tuple[int, int]] = {}
    processes = {}
    for end, (counted, process) in zip(ends, found, strict=True):
        wires |= counted
        if process is not None:
            used = CpuTimes(float(process["cpu"]), {})
            processes[end.name] = ProcessSample(int(process["resident"]), used)
    return Sample(time.monotonic(), (), (), wires, processes)

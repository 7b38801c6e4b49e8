"""What busy guests lose beside a move that has a budget of cores, measured when you ask for it.

    sudo .venv/bin/python benchmarks/beside.py                  all of it, four minutes at most
    sudo .venv/bin/python benchmarks/beside.py idle             a core is idle beside a busy vCPU
    sudo .venv/bin/python benchmarks/beside.py full             none is
    sudo .venv/bin/python benchmarks/beside.py full compressed  one way of moving

Guests that rewrite memory as fast as their vCPU can stay on the source while another one moves to
and fro, plain, over channels, and compressed; their own count of what they wrote is the measure.
They are watched alone and beside the move in turns, and each time beside it is compared with the
two alone around it. Both hosts are this one machine, so both ends of the move burden it, and have
its budget together (practice/budget.py). A move
that takes longer than is watched ends beside guests that rest: with nothing idle it waits for them.

What is lost has two parts: vCPUs that ran for less time, which is the scheduler's to prevent, and
vCPUs that were slower while they ran, since others use the same caches, the same memory, and,
where two hardware threads are one core, the same core: no scheduler can take that away. A program
that only counts, and takes as much CPU time as the move did, tells how much of that is the core.
Nothing else may run meanwhile. Exits with 1 where the scheduler's part is over 5 %.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from whimbrel.errors import WhimbrelError
from whimbrel.lab.accelerator import choose_accelerator
from whimbrel.lab.audience import Nobody
from whimbrel.lab.guests import Guest, boot, guest_vm
from whimbrel.lab.image import build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.proc import parse_stat
from whimbrel.lab.stage import End, Stage, stage
from whimbrel.model.method import Codec, Compression, Tuning
from whimbrel.model.migration import ENDS, Decision, Event, Phase, PhaseChange
from whimbrel.model.scenario import AcceleratorChoice, GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.threads import ThreadClass, thread_class
from whimbrel.model.units import MIB, format_rate
from whimbrel.ports import Machine
from whimbrel.practice.budget import Allowance, Budget
from whimbrel.practice.move import Request, move
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

LINK = 125e6
MOVED = Load(fill=320 * MIB, pattern=Pattern.TEXT)
BUSY = Load(fill=128 * MIB, pattern=Pattern.RANDOM, hot=96 * MIB, dirty_rate=1e12)
BUDGET = 0.5
"""Cores that a move may use on this machine."""

MOST = 0.05
"""What a busy guest may lose."""

ALONE = 2.0
"""Seconds for which it is watched alone."""

WATCHED = 5.0
"""Seconds for which it is watched beside a move at most."""

TURNS = 2
"""Moves for each way."""

WAYS = {
    "plain": Tuning(),
    "multichannel": Tuning(channels=2),
    "compressed": Tuning(channels=2, compression=Compression(Codec.ZSTD, 1)),
}

COUNTING = """
import os, sys, time
cores, seconds = float(sys.argv[1]), float(sys.argv[2])
os.nice(15)
end = time.monotonic() + seconds
while time.monotonic() < end:
    began, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.02 * cores and time.monotonic() - began < 0.02:
        pass
    time.sleep(max(0.0, began + 0.02 - time.monotonic()))
"""


class Looking:
    """Tells when memory flows, when the guest has left, and what the destination's process is."""

    def __init__(self) -> None:
        self.flowing, self.over = asyncio.Event(), asyncio.Event()
        self.pid: int | None = None

    def prepared(self, machine: Machine) -> None:
        """See `Watcher`."""
        self.pid = machine.pid

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


@dataclass(frozen=True)
class Pace:
    """What busy guests did for a while.

    Attributes:
        written: Bytes per second that they wrote, all together.
        ran: Seconds that their vCPUs ran, for each second and vCPU.
    """

    written: float
    ran: float


@dataclass(frozen=True)
class Lost:
    """What they lost beside something, as shares of what they did alone.

    Attributes:
        all: Of what they wrote.
        time: Of the time that their vCPUs ran.
    """

    all: float
    time: float

    @property
    def speed(self) -> float:
        """Of what they wrote while they ran."""
        return 1 - (1 - self.all) / (1 - self.time)


@dataclass(frozen=True)
class Took:
    """What a move took while it was watched.

    Attributes:
        cores: At both ends together.
        seconds: For how long.
        whole: Whether it was over by then.
    """

    cores: float
    seconds: float
    whole: bool

    def __str__(self) -> str:
        lasted = "in" if self.whole else "not over in"
        return f"{self.cores:.2f} cores taken at both ends, {lasted} {self.seconds:.1f} s"


@dataclass
class Surroundings:
    """A stage with a guest to be moved and busy ones that stay."""

    on: Stage
    sites: tuple[OnSite, OnSite]
    moved: Machine
    busy: tuple[Guest, ...]
    at: End

    async def pace(self, until: Callable[[], "asyncio.Future[object]"]) -> Pace:
        """Return what the busy guests do until something is over."""
        async with AsyncExitStack() as held:
            lines = [await held.enter_async_context(each.redline()) for each in self.busy]
            for line in lines:
                await line.stop()
            for line in lines:
                await line.start()  # it counts anew from here
            clock = asyncio.get_running_loop().time
            began, before = clock(), self._ran()
            await until()
            ran, seconds = self._ran() - before, clock() - began
            written = sum([(await line.status()).rate_since for line in lines])
            for line in lines:
                await line.stop()
        return Pace(written, ran / seconds / len(self.busy))

    def _ran(self) -> float:
        return sum(vcpu_seconds(guest.machine.pid or 0) for guest in self.busy)

    async def alone(self) -> Pace:
        """Return what they do alone."""
        return await self.pace(lambda: asyncio.ensure_future(asyncio.sleep(ALONE)))

    async def beside_move(self, tuning: Tuning, cores: float | None) -> tuple[Pace, "Took"]:
        """Move the guest to the other host; return what they did, and what it took."""
        other, looking = self.on.other(self.at), Looking()
        here, there = self.sites if self.at is self.on.a else self.sites[::-1]
        held: tuple[Budget, ...] = ()
        if cores is not None:
            both = Allowance(here, cores), Allowance(there, cores)
            held = (Budget(*both, told=lambda _: None, lost=lost),)
        address = self.on.address(other)
        source, destination = self.at.hypervisor, other.hypervisor
        request = Request(source, self.moved, destination, address, tuning, 60.0, attendants=held)
        moving = asyncio.create_task(move(request, looking))
        await looking.flowing.wait()
        clock = asyncio.get_running_loop().time
        pids = (self.moved.pid or 0, looking.pid or 0)
        began, before = clock(), sum(map(cpu_seconds, pids))
        took = 0.0

        async def over() -> object:
            nonlocal took
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCHED):
                    await looking.over.wait()
            took = (sum(map(cpu_seconds, pids)) - before) / (clock() - began)
            return None

        found = await self.pace(lambda: asyncio.ensure_future(over()))
        whole = looking.over.is_set()
        lasted = clock() - began
        ended = await moving
        if ended.outcome.arrival_time is None or ended.machine is None:
            sys.exit(f"The guest did not arrive: {ended.outcome.reason}")
        self.moved, self.at = ended.machine, other
        return found, Took(took, lasted, whole=whole)

    async def beside_counting(self, cores: float) -> Pace:
        """Return what they do beside a program that only counts, for so many cores' time."""
        words = [sys.executable, "-c", COUNTING, f"{cores}", f"{ALONE}"]
        counting = await asyncio.create_subprocess_exec(*words)
        found = await self.pace(lambda: asyncio.ensure_future(counting.wait()))
        await counting.wait()
        return found


def lost(error: WhimbrelError) -> None:
    """Say that something is no longer held."""
    print(f"  {error}", file=sys.stderr)


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process; 0 where it has gone."""
    with suppress(OSError):
        return parse_stat(Path(f"/proc/{pid}/stat").read_text()).cpu
    return 0.0


def vcpu_seconds(pid: int) -> float:
    """Return for how many seconds a guest's vCPUs have run, to the nanosecond (schedstat)."""
    ran = 0.0
    for folder in Path(f"/proc/{pid}/task").iterdir():
        if thread_class((folder / "comm").read_text().strip()) is ThreadClass.VCPU:
            ran += int((folder / "schedstat").read_text().split()[0]) / 1e9
    return ran


@asynccontextmanager
async def surroundings(busy: int) -> AsyncIterator[Surroundings]:
    """Hold a guest to be moved, and so many busy ones."""
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    scenario = Scenario(guest=GuestSpec(640 * MIB, redline=MOVED), link=LinkSpec(LINK))
    accelerator = await asyncio.to_thread(choose_accelerator, AcceleratorChoice.AUTO, image)
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with stage(scenario, Path(folder)) as on:
            a, b = (OnSite(LocalShell(e.name, e.host.enter), folder) for e in (on.a, on.b))
            try:
                vm = guest_vm(scenario, image, accelerator, free_page_hints=False)
                moved = await boot(on, vm, MOVED, Nobody())
                small = [replace(vm, name=f"busy{n}", memory=256 * MIB) for n in range(busy)]
                guests = [await boot(on, each, BUSY, Nobody()) for each in small]
                for guest in guests:
                    async with guest.redline() as line:
                        await line.stop()
                yield Surroundings(on, (a, b), moved.machine, tuple(guests), on.a)
            finally:
                await a.close()
                await b.close()


def compared(beside: Pace, around: Sequence[Pace]) -> Lost:
    """Return what was lost beside something, against what they did alone before and after."""
    written = sum(each.written for each in around) / len(around)
    ran = sum(each.ran for each in around) / len(around)
    return Lost(1 - beside.written / written, 1 - beside.ran / ran)


def say(what: str, found: Sequence[Lost], alone: Pace) -> bool:
    """Print what was lost, and tell whether the scheduler's part is within bounds."""
    every = ", ".join(f"{each.all:.1%}" for each in found)
    middle = median(each.all for each in found)
    time, speed = median(each.time for each in found), median(each.speed for each in found)
    verdict = "kept" if middle <= MOST else "NOT KEPT" if time > MOST else "kept by the scheduler"
    print(
        f"{what}: of {format_rate(alone.written)} {middle:.1%} less ({every}): vCPUs ran "
        f"{time:.1%} less and were {speed:.1%} slower while they ran: {verdict}",
        flush=True,
    )
    return time <= MOST


async def beside(these: Surroundings, title: str, ways: Sequence[str]) -> bool:
    """Print what busy guests lose beside each way of moving; tell whether all is kept."""
    good, took = True, Took(0.0, 0.0, whole=True)
    for name in ways:
        alone, found = [await these.alone()], []
        for _ in range(TURNS):
            pace, took = await these.beside_move(WAYS[name], BUDGET)
            alone.append(await these.alone())
            found.append(compared(pace, alone[-2:]))
        what = f"{title}, {name}, a budget of {BUDGET:g} cores, {took}"
        good &= say(what, found, alone[0])
    alone = [await these.alone()]
    pace = await these.beside_counting(took.cores)
    alone.append(await these.alone())
    counts = f"{title}, a program that only counts, {took.cores:.2f} cores"
    say(counts, [compared(pace, alone)], alone[0])
    free, took = await these.beside_move(WAYS[ways[-1]], None)
    alone.append(await these.alone())
    what = f"{title}, {ways[-1]}, without a budget, {took}"
    say(what, [compared(free, alone[-2:])], alone[0])
    return good


async def main(words: list[str]) -> int:
    """Measure what was asked for; return the exit code."""
    ways = [each for each in words if each in WAYS] or list(WAYS)
    cores = len(os.sched_getaffinity(0))
    cases = {"idle": max(1, cores - 1), "full": cores}
    good = True
    named = [each for each in words if each in cases] or list(cases)
    async with surroundings(max(cases[each] for each in named)) as these:
        guests = these.busy
        for name in named:
            these.busy = guests[: cases[name]]  # the others rest
            title = "a core is idle" if name == "idle" else "no core is idle"
            good &= await beside(these, title, ways)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))

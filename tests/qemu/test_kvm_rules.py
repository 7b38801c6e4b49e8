"""QEMU's rules under KVM, held against a guest of ours whose writes are known exactly.

Where KVM opens but boots no Linux, as a para-virtual one, this guest runs all the same.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.qemu.command_line import BINARY, monitor_words
from whimbrel.hypervisors.qemu.host import QemuHost
from whimbrel.hypervisors.qemu.inspect import QemuInspection
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.process import ChildProcess
from whimbrel.lab.paced import COUNTED_IN, Pacing, firmware, writes
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.memory import LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Pass
from whimbrel.model.prediction import Course
from whimbrel.model.survey import Depth
from whimbrel.model.units import MIB, PAGE
from whimbrel.ports import IN_MEMORY, Ended
from whimbrel.practice.survey_guest import survey_guest
from whimbrel.practice.survey_plan import EFFORTS
from whimbrel.theory.dirtying import sequential
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate


def why_not() -> str:
    """Return why KVM cannot be had; empty where it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"/dev/kvm does not open: {error.strerror}"
    return ""


pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(240),
]

MOVED = 1280 * MIB
HALF = Pacing(768 * MIB, 512 * MIB // PAGE, 10_000)
"""The guest that is moved; half of what it writes lies in each of the two 1 GiB chunks.

Nothing lies behind it: where QEMU looks in a tail of zero pages decides how many of them count.
"""

COUNTED = 512 * MIB
QUARTER = Pacing(64 * MIB, 128 * MIB // PAGE, 20_000)

# So slow that a busy machine with two cores can hold it.
LIMIT = 100.0 * MIB
LOOPBACK = 1.5e9
DEFAULT_SHIFT = 18
ATTEMPTS = 4
UNSTEADY = 4.0
"""Factor on every tolerance where the machine never held limit and pace: the rules still show."""


@dataclass(frozen=True)
class Paced:
    """A running paced guest."""

    machine: QemuMachine
    inspection: QemuInspection

    async def writes(self) -> int:
        return writes(await self.inspection.read([COUNTED_IN]))

    async def begun(self) -> None:
        while (await self.inspection.provided())[COUNTED_IN] != IN_MEMORY:
            assert await self.machine.running()
        while not await self.writes():
            assert await self.machine.running()

    async def counts(self, window: float) -> tuple[float, str]:
        """Let the adapter count; return pages per second and the mode that QEMU used."""
        found = await self.inspection.written(window)
        answer = await self.machine.process.monitor.execute("query-dirty-rate")
        return found.pages / window, str(answer["mode"])


class Unreadable(QemuInspection):
    """A guest whose memory belongs to another user: QEMU itself must count."""

    async def provided(self) -> bytes:
        raise Unsupported("Memory cannot be read.")


def dies_with_us(words: Sequence[str]) -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL", "--", *words]


@asynccontextmanager
async def private_folder() -> AsyncIterator[Path]:
    # Not tmp_path: UNIX socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        yield Path(folder)


@asynccontextmanager
async def paced(
    folder: Path, vm: Vm, pacing: Pacing, shift: int = DEFAULT_SHIFT, *, incoming: bool = False
) -> AsyncIterator[Paced]:
    """Run a paced guest, or a destination that waits for one."""
    name = "destination" if incoming else "source"
    words = [
        *(BINARY, "-machine", "q35", "-accel", vm.accelerator, "-cpu", "qemu64"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-m", f"{vm.memory}B"),
        *("-bios", str(firmware(pacing, folder)), *monitor_words(folder / name)),
        *("-global", f"migration.x-clear-bitmap-shift={shift}"),
        *(("-incoming", "defer", "-S") if incoming else ()),
    ]
    process = await ChildProcess.start(name, words, folder / name, dies_with_us)
    try:
        machine = QemuMachine(vm, process)
        found = Paced(machine, machine.inspection())
        if not incoming:
            await found.begun()
        yield found
    finally:
        await process.stop()


@dataclass(frozen=True)
class Mark:
    """The start of a pass, and how often the guest had written by then."""

    start: Pass
    writes: int


@dataclass(frozen=True)
class Moved:
    """One move as it was: every pass that found something dirty, and the last word."""

    marks: list[Mark]
    ended: Ended
    version: tuple[int, int]

    @property
    def second(self) -> Pass:
        return self.marks[1].start

    def bandwidth(self, number: int) -> float:
        """Bytes per second until pass `number` began, an index of `marks`."""
        first, last = self.marks[0].start, self.marks[number].start
        return last.transferred / (last.at - first.at)

    def rate(self, number: int) -> float:
        """Writes per second until then."""
        first, last = self.marks[0], self.marks[number]
        return (last.writes - first.writes) / (last.start.at - first.start.at)

    @property
    def steady(self) -> bool:
        """Whether the machine kept both the limit and the guest's pace."""
        return all(
            self.bandwidth(number) > 0.97 * LIMIT and abs(self.rate(number) / HALF.rate - 1) < 0.02
            for number in (1, -1)
        )


async def moved(accelerator: str, shift: int) -> Moved:
    """Move the guest over loopback and watch it."""
    vm = Vm("paced", MOVED, accelerator=accelerator)
    async with (
        private_folder() as folder,
        paced(folder, vm, HALF, shift) as source,
        paced(folder, vm, HALF, shift, incoming=True) as there,
        QemuHost("a", folder, dies_with_us) as host,
    ):
        await host.abilities()
        address = await listening(there)
        migration = await host.send(source.machine, Tuning(bandwidth_limit=LIMIT), address)
        marks = [
            Mark(event, await source.writes())
            async for event in migration.watch()
            if isinstance(event, Pass) and event.remaining
        ]
        version = (await source.machine.process.monitor.execute("query-version"))["qemu"]
        release = (int(version["major"]), int(version["minor"]))
        return Moved(marks, await migration.ended(), release)


async def steadily_moved(accelerator: str, shift: int) -> Moved:
    """Move it again where something else took the machine's cores meanwhile."""
    for _ in range(ATTEMPTS):
        seen = await moved(accelerator, shift)
        if seen.steady:
            break
    return seen


async def listening(destination: Paced) -> MigrationAddress:
    monitor = destination.machine.process.monitor
    events = [{"capability": "events", "state": True}]
    await monitor.execute("migrate-set-capabilities", {"capabilities": events})
    await monitor.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0"})
    [there] = (await monitor.execute("query-migrate"))["socket-address"]
    return MigrationAddress("127.0.0.1", int(there["port"]))


def said(seen: Moved, number: int, rules: QemuRules) -> Course:
    """Return what theory says at the rates that were held until pass `number` began."""
    end = HALF.first + HALF.pages * PAGE
    memory = MemoryProfile(
        total=MOVED,
        zero_share=1 - HALF.pages * PAGE / MOVED,
        dirty=sequential(HALF.pages, seen.rate(number)),
        extent=(HALF.first, end),
    )
    survey = Survey(memory, LinkProfile({1: LOOPBACK}))
    return simulate(survey, Tuning(bandwidth_limit=seen.bandwidth(number)), rules)


def rewritten(second: Pass) -> float:
    """Return the bytes found dirty again after the first pass, without those it left unsent."""
    zero_pages = HALF.first // PAGE
    sent = (second.transferred - 9 * zero_pages) / 4104
    return second.remaining - (HALF.pages - sent) * PAGE


async def test_the_dirty_log_is_cleared_in_chunks_under_kvm_and_not_under_tcg(
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    found, widest = [], 1.0
    for accelerator, shift in (("kvm", 6), ("kvm", DEFAULT_SHIFT), ("kvm", 31), ("tcg", 18)):
        seen = await steadily_moved(accelerator, shift)
        rules = QemuRules.of(seen.version, accelerator, 1 << shift)
        # What is written again before the second pass is what the rule is about.
        early, whole = said(seen, 1, rules), said(seen, -1, rules)
        again = rewritten(seen.second)
        moves = {"seen": (seen.ended.total_time, seen.ended.transferred, again)}
        moves["said"] = (whole.total_time, whole.wire_bytes, rewritten(early.passes[1]))
        record_testsuite_property(
            f"{accelerator}, shift {shift}: seconds, bytes, written again", moves
        )
        assert early.passes[1].number == seen.second.number == 2, seen
        room = 1.0 if seen.steady else UNSTEADY
        widest = max(widest, room)
        assert again == pytest.approx(rewritten(early.passes[1]), rel=0.06 * room), seen
        assert seen.ended.transferred == pytest.approx(whole.wire_bytes, rel=0.02 * room), seen
        assert seen.ended.total_time == pytest.approx(whole.total_time, rel=0.03 * room), seen
        found.append(again / (HALF.rate * PAGE * seen.second.at))
    small, usual, all_memory, emulated = found
    # A write counts from its chunk's clearing on: on average for half of the pass, for all of it
    # in the first and half of it in the second chunk, and for all of it.
    shares = [share / all_memory for share in (small, usual, emulated)]
    assert shares == pytest.approx([0.5, 0.75, 1.0], abs=0.12 if widest > 1 else 0.05)


@pytest.mark.parametrize(
    ("accelerator", "mode"), [("kvm", "dirty-bitmap"), ("tcg", "page-sampling")]
)
async def test_the_adapter_counts_in_the_mode_that_the_accelerator_supports(
    accelerator: str, mode: str
) -> None:
    vm = Vm("paced", COUNTED, accelerator=accelerator)
    async with private_folder() as folder, paced(folder, vm, QUARTER) as guest:
        for window in (0.2, 0.8):
            rate, used = await guest.counts(window)
            assert used == mode
            # Of the sample of 8192 pages, 250 or more are seen to change; a busy machine lets the
            # guest fall behind its pace and catch up.
            assert rate == pytest.approx(QUARTER.rate, rel=0.2 if mode == "dirty-bitmap" else 0.4)
        _, used = await guest.counts(1.5)
        assert used == "page-sampling"


async def test_emulated_guests_cannot_be_counted_by_logging() -> None:
    vm = Vm("paced", COUNTED, accelerator="tcg")
    async with private_folder() as folder, paced(folder, vm, QUARTER) as guest:
        monitor = guest.machine.process.monitor
        question = {"calc-time": 500, "calc-time-unit": "millisecond", "mode": "dirty-bitmap"}
        await monitor.execute("calc-dirty-rate", question)
        while (answer := await monitor.execute("query-dirty-rate"))["status"] != "measured":
            pass  # every question waits for its answer
        assert answer["dirty-rate"] == 0


async def test_a_survey_that_may_not_read_memory_finds_the_curve_by_logging() -> None:
    vm = Vm("paced", COUNTED, accelerator="kvm")
    async with private_folder() as folder, paced(folder, vm, QUARTER) as guest:
        process = guest.machine.process
        unreadable = Unreadable(process.monitor, process.pid, COUNTED)
        generator = np.random.default_rng(1)
        found = await survey_guest(unreadable, EFFORTS[Depth.QUICK], (), generator)
    assert found.notes[0].startswith("Memory cannot be read. The hypervisor counted")
    for window in (0.1, 0.2, 0.4):
        wanted = sequential(QUARTER.pages, QUARTER.rate).distinct(window)
        assert found.memory.dirty.distinct(window) == pytest.approx(wanted, rel=0.25)

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from whimbrel.errors import LabError
from whimbrel.lab.counters import Counters, Sample, numa_cores, process_cpu
from whimbrel.lab.watch import ProcessWatch
from whimbrel.model.threads import ThreadClass

BUSY_THREAD = dedent("""
    import sys, threading, time

    def work():
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as name:
            name.write("mig/src/send_0")
        while not ended.is_set():
            pass

    ended = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    sys.stdin.readline()
    ended.set()
    thread.join()
    print("ended", flush=True)
    sys.stdin.readline()
""")


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A process with one busy thread, which ends at the first line; it itself at the next."""
    words = [sys.executable, "-c", BUSY_THREAD]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_file_stays_open() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() <= before + 2  # the event loop's own come and go


def end_thread(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ended\n"


async def until(counters: Counters, wanted: Callable[[Sample], bool]) -> Sample:
    """Wait for a sample that is as wanted."""
    seen = 0
    while True:
        for sample in counters.samples[seen:]:
            if wanted(sample):
                return sample
        seen = len(counters.samples)
        await asyncio.sleep(0.01)


def test_cpu_time_of_threads_that_ended_is_not_lost(busy: subprocess.Popen[str]) -> None:
    watch = ProcessWatch(busy.pid)
    try:
        while (before := watch.read()) and before.cpu.by_class[ThreadClass.CHANNEL] < 0.1:
            pass
        end_thread(busy)
        after = watch.read()
        assert before
        assert after
        assert after.cpu.by_class[ThreadClass.CHANNEL] >= before.cpu.by_class[ThreadClass.CHANNEL]
        assert after.cpu.total >= before.cpu.total >= 0.1
    finally:
        watch.close()


def test_cpu_time_of_the_threads_is_never_more_than_that_of_the_process(
    busy: subprocess.Popen[str],
) -> None:
    watch = ProcessWatch(busy.pid)
    try:
        for _ in range(200):
            sample = watch.read()
            assert sample
            assert sum(sample.cpu.by_class.values()) <= sample.cpu.total + 1e-9
    finally:
        watch.close()


def test_the_total_counts_threads_that_nobody_saw(busy: subprocess.Popen[str]) -> None:
    while process_cpu(busy.pid).by_class[ThreadClass.CHANNEL] < 0.1:
        pass
    end_thread(busy)
    # Python joins a thread a moment before the kernel has ended it
    while (cpu := process_cpu(busy.pid)).by_class[ThreadClass.CHANNEL]:
        pass
    assert cpu.total >= 0.1


def test_a_process_that_is_gone_cannot_be_watched_and_reads_as_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        watch = ProcessWatch(child.pid)
        assert watch.read()
        child.kill()
    assert watch.read() is None
    watch.close()
    with pytest.raises(LabError, match="gone"):
        ProcessWatch(child.pid)
    with pytest.raises(LabError, match="gone"):
        process_cpu(child.pid)


async def test_samples_come_in_order_and_one_more_when_left() -> None:
    async with Counters(period=0.01) as counters:
        await until(counters, lambda _: len(counters.samples) >= 3)
        before = len(counters.samples)
    assert len(counters.samples) == before + 1
    times = [sample.time for sample in counters.samples]
    assert times == sorted(set(times))
    for sample in counters.samples:
        assert len(sample.nodes) == len(numa_cores())
        assert all(0 <= share <= 1 for share in (*sample.cores, *sample.nodes))


async def test_a_busy_thread_is_seen_on_the_cores_and_in_its_process(
    busy: subprocess.Popen[str],
) -> None:
    async with Counters(period=0.05) as counters:
        counters.watch_process("source", busy.pid)

        def seen(sample: Sample) -> bool:
            return sample.processes["source"].cpu.by_class[ThreadClass.CHANNEL] > 0.2

        sample = await asyncio.wait_for(until(counters, seen), 30)
        assert sample.processes["source"].resident > 1 << 20
        assert max(max(sample.cores) for sample in counters.samples) > 0.3


async def test_a_process_that_vanishes_is_left_out_and_sampling_goes_on() -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    async with Counters(period=0.01) as counters:
        counters.watch_process("source", child.pid)
        await until(counters, lambda sample: "source" in sample.processes)
        child.kill()
        await child.wait()
        await until(counters, lambda sample: "source" not in sample.processes)
        before = len(counters.samples)
        await until(counters, lambda _: len(counters.samples) > before)


async def test_a_label_may_be_given_to_the_next_process_or_forgotten() -> None:
    async with Counters(period=0.01) as counters:
        counters.watch_process("source", os.getpid())
        counters.watch_process("source", os.getppid())
        counters.forget("source")
        counters.forget("source")
        counters.forget("never known")
    assert not counters.samples[-1].processes


async def test_a_process_that_cannot_be_watched_leaves_the_label_as_it_was() -> None:
    child = await asyncio.create_subprocess_exec("true")
    await child.wait()
    async with Counters(period=0.01) as counters:
        counters.watch_process("source", os.getpid())
        with pytest.raises(LabError):
            counters.watch_process("source", child.pid)
    assert "source" in counters.samples[-1].processes


async def test_a_sampler_that_fails_tells_when_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ValueError("new kernel, new file")

    counters = await Counters(period=0.001).__aenter__()
    monkeypatch.setattr("whimbrel.lab.counters.parse_cores", fail)
    await asyncio.wait({counters._task})
    with pytest.raises(ValueError, match="new kernel"):
        await counters.__aexit__(None, None, None)


def test_every_core_belongs_to_a_numa_node() -> None:
    cores = [core for node in numa_cores() for core in node]
    assert sorted(cores) == sorted(set(cores))
    assert set(os.sched_getaffinity(0)) <= set(cores)


def test_numa_nodes_are_read_by_number_and_without_any_there_is_one(tmp_path: Path) -> None:
    assert len(numa_cores(tmp_path)) == 1
    for number, cores in ((10, "4-5"), (2, "0-3"), (3, "")):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "cpulist").write_text(f"{cores}\n")
    assert numa_cores(tmp_path) == ((0, 1, 2, 3), (), (4, 5))

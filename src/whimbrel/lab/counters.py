"""The machine's counters, sampled while a migration runs: cores, interfaces, processes."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from whimbrel.lab.hosts import LabHost
from whimbrel.lab.namespaces import in_namespace
from whimbrel.lab.proc import CoreTime, busy_share, parse_cores, parse_list, parse_net_dev
from whimbrel.lab.watch import CpuTimes, OpenFile, ProcessSample, ProcessWatch, process_cpu

__all__ = [
    "Counters",
    "CpuTimes",
    "ProcessSample",
    "Sample",
    "interface_bytes",
    "numa_cores",
    "process_cpu",
]

PERIOD = 0.1
"""Seconds from one sample to the next."""
_NUMA = Path("/sys/devices/system/node")
_OWN_NETWORK = "/proc/thread-self/net/dev"


@dataclass(frozen=True)
class Sample:
    """The counters at one moment.

    Attributes:
        time: When, on the monotonic clock, seconds.
        cores: Busy share of each core since the sample before, 0 to 1, by number. Time that
            the machine's own hypervisor gave to others counts as busy.
        nodes: The mean over the cores of each NUMA node, in the order of `numa_cores`.
        interfaces: Bytes (received, sent) since the link was made, by host and interface.
        processes: What each watched process that still runs holds and has used, by label.
    """

    time: float
    cores: tuple[float, ...]
    nodes: tuple[float, ...]
    interfaces: Mapping[tuple[str, str], tuple[int, int]]
    processes: Mapping[str, ProcessSample]


class Counters:
    """Samples the counters from entering to leaving; a last sample is taken when left.

    Use it within `two_hosts`: the networks cannot end while it reads their interfaces.

    Attributes:
        samples: What was sampled so far, oldest first.
    """

    def __init__(self, hosts: Sequence[LabHost] = (), period: float = PERIOD) -> None:
        """Prepare to sample the interfaces of `hosts` every `period` seconds."""
        self.samples: list[Sample] = []
        self._hosts = tuple(hosts)
        self._period = period
        self._numa = numa_cores()
        self._watches: dict[str, ProcessWatch] = {}
        self._networks: dict[str, OpenFile] = {}
        self._before: dict[int, CoreTime] = {}

    async def __aenter__(self) -> Self:
        self._stat = OpenFile("/proc/stat")
        try:
            for host in self._hosts:
                self._networks[host.name] = _open_interfaces(host)
            self._before = parse_cores(self._stat.read())
            self._task = asyncio.create_task(self._run(), name="counters")
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        try:
            (ended,) = await asyncio.gather(self._task, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError) and isinstance(ended, BaseException):
                raise ended
            self.samples.append(self._take())
        finally:
            self._close()

    def watch_process(self, label: str, pid: int) -> None:
        """Sample a process from now on; the label may be given to another one later.

        Raises:
            LabError: There is no such process.
        """
        watch = ProcessWatch(pid)
        self.forget(label)
        self._watches[label] = watch

    def forget(self, label: str) -> None:
        """Sample a process no more; a label that is not known is no error."""
        watch = self._watches.pop(label, None)
        if watch is not None:
            watch.close()

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._period, time.monotonic())  # what was missed is not made up
            await asyncio.sleep(due - time.monotonic())
            self.samples.append(self._take())

    def _take(self) -> Sample:
        cores = parse_cores(self._stat.read())
        shares = {core: busy_share(self._before.get(core, now), now) for core, now in cores.items()}
        self._before = cores
        interfaces = {
            (host, interface): figures
            for host, file in self._networks.items()
            for interface, figures in parse_net_dev(file.read()).items()
        }
        readings = {label: watch.read() for label, watch in self._watches.items()}
        return Sample(
            time=time.monotonic(),
            cores=tuple(shares.values()),
            nodes=tuple(_mean([shares.get(core, 0.0) for core in node]) for node in self._numa),
            interfaces=interfaces,
            processes={label: read for label, read in readings.items() if read is not None},
        )

    def _close(self) -> None:
        for label in tuple(self._watches):
            self.forget(label)
        for file in (self._stat, *self._networks.values()):
            file.close()
        self._networks.clear()


def interface_bytes(host: LabHost) -> dict[str, tuple[int, int]]:
    """Return the bytes (received, sent) of each interface of a host, now.

    Raises:
        LabError: The host is gone.
    """
    file = _open_interfaces(host)
    try:
        return parse_net_dev(file.read())
    finally:
        file.close()


def numa_cores(folder: Path = _NUMA) -> tuple[tuple[int, ...], ...]:
    """Return the cores of each NUMA node, by number of the node; one node if none is told."""
    nodes = sorted(folder.glob("node[0-9]*"), key=lambda node: int(node.name[4:]))
    if nodes:
        return tuple(parse_list((node / "cpulist").read_text()) for node in nodes)
    return (tuple(parse_cores(Path("/proc/stat").read_text())),)


def _open_interfaces(host: LabHost) -> OpenFile:
    """Open a host's interface counters; they stay readable from outside its namespace."""
    return in_namespace(host.namespace, lambda: OpenFile(_OWN_NETWORK))


def _mean(shares: list[float]) -> float:
    return sum(shares) / len(shares) if shares else 0.0

"""Holds the threads with which a QEMU moves its guest to so many cores, on its host.

    names under /proc/PID/task/*/comm ──► threads of the move, as they appear
       all of them ─► the cores with the least other load, near the NIC
                   ─► a cgroup with a quota and little weight, where one can be made (2, else 1)
                   ─► else niceness

A move gets what guests leave: where no core is idle, its threads have a weight of 2 % of one
vCPU's, so that a vCPU that wants its core loses no more than that; where both ends of a move are
on one machine, either has half of it. vCPUs are left alone, and so is the main loop, except at a
destination whose guest is still coming: there it takes in a plain stream itself. Everything is
undone by `release_threads`, or by itself when the lease was not renewed.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLLOW_EVERY, SETTLED_EVERY, SETTLES = 0.02, 0.25, 1.0
"""Seconds from one look for new threads to the next, at first and when none came for `SETTLES`:
each look takes a core for a moment, and what a held thread starts is held from its birth."""

PERIOD = 20_000
"""Microseconds of a cgroup's quota period: short, so that nothing stands still for long."""

NICE = 18, 19
"""Niceness of threads that no cgroup holds, by how many ends of the move are on this machine: a
weight of 18 or 15 beside a vCPU's 1024, or 1.7 or 1.5 % of a core that both want, of each end
(sched_prio_to_weight, kernel/sched/core.c). Between sessions that the kernel
groups (sched_autogroup), and between cgroups, niceness counts for nothing."""

WEIGHTS = {"cgroup v2": ("cpu.weight", 2), "cgroup v1": ("cpu.shares", 20)}
"""What gives a cgroup 2 % of the weight of one with the defaults (100, 1024)."""

_MOVES = re.compile(r"mig/|live_mig|multifd|postcopy/|return path|fault-|bg_snap")
_VCPU = re.compile(r"CPU \d+/")


def moving_threads(names: dict[int, str], pid: int, vcpus: tuple[int, ...] = ()) -> set[int]:
    """Return the threads that work for a move.

    Where QEMU names its threads (debug-threads=on), by their names; else all that are neither
    the main loop nor one of `vcpus`, and none at all where those are not known either.
    """
    if named(names):
        return {thread for thread, name in names.items() if _MOVES.match(name)}
    return {thread for thread in names if thread != pid and thread not in vcpus} if vcpus else set()


def named(names: dict[int, str]) -> bool:
    """Tell whether a QEMU names its threads."""
    return any(_VCPU.match(name) for name in names.values())


def best_cores(
    count: int,
    busy: dict[int, float],
    allowed: set[int],
    near: set[int],
    siblings: dict[int, set[int]] | None = None,
) -> tuple[int, ...]:
    """Return `count` of the allowed cores: those near the NIC first, then the least busy.

    A core counts as busy as all the hardware threads that share its units (`siblings`, by core,
    itself among them): an idle one beside a vCPU's slows that vCPU.
    """

    def load(core: int) -> float:
        sharing = (siblings or {}).get(core, {core}) | {core}
        return sum(busy.get(each, 0.0) for each in sharing)

    order = sorted(
        allowed, key=lambda core: (core not in near, load(core), busy.get(core, 0.0), core)
    )
    return tuple(sorted(order[: max(1, count)]))


class Quota:
    """A cgroup that holds threads to so many cores' time; OSError where it cannot be made."""

    def __init__(
        self, pid: int, cores: float, root: Path = Path("/sys/fs/cgroup"), *, ends: int = 1
    ) -> None:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        places = dict(line.split(":", 2)[1:] for line in lines)
        self._lent, self._ends = False, ends
        quota = max(1000, round(cores * PERIOD))
        cpu = next((names for names in places if "cpu" in names.split(",")), None)
        if cpu is None:
            self.means = "cgroup v2"
            self._parent = root / places[""].lstrip("/")
            self._threads = "cgroup.threads"
            self._make_threaded(pid, f"{quota} {PERIOD}")
        else:
            self.means = "cgroup v1"
            self._parent = root / cpu / places[cpu].lstrip("/")
            self._threads = "tasks"
            limits = (("cpu.cfs_period_us", f"{PERIOD}"), ("cpu.cfs_quota_us", f"{quota}"))
            self._make(pid, (*limits, self._weight()))

    def _weight(self) -> tuple[str, str]:
        name, weight = WEIGHTS[self.means]
        return name, f"{weight // self._ends}"

    def _sweep(self) -> None:
        """Remove what was left here for processes that have ended."""
        for folder in self._parent.glob("whimbrel-*"):
            if not Path(f"/proc/{folder.name.rpartition('-')[2]}").exists():
                with suppress(OSError):
                    folder.rmdir()

    def _make(self, pid: int, values: tuple[tuple[str, str], ...]) -> None:
        self._sweep()
        self._folder = self._parent / f"whimbrel-{pid}"
        self._folder.mkdir(exist_ok=True)
        try:
            for name, value in values:
                (self._folder / name).write_text(value)
        except OSError:
            self.remove()
            raise

    def _make_threaded(self, pid: int, limit: str) -> None:
        if "cpu" not in (self._parent / "cgroup.controllers").read_text().split():
            raise OSError(f"{self._parent} is not given the CPU controller")
        self._make(pid, (("cgroup.type", "threaded"),))
        try:
            control = self._parent / "cgroup.subtree_control"
            if "cpu" not in control.read_text().split():
                control.write_text("+cpu")
                self._lent = True
            (self._folder / "cpu.max").write_text(limit)
            name, weight = self._weight()
            (self._folder / name).write_text(weight)
        except OSError:
            self.remove()
            raise

    def take(self, thread: int) -> None:
        """Hold a thread."""
        (self._folder / self._threads).write_text(f"{thread}")

    def remove(self) -> None:
        """Give all threads back and remove the cgroup; harmless when it has gone."""
        with suppress(OSError):
            for thread in (self._folder / self._threads).read_text().split():
                with suppress(OSError):
                    (self._parent / self._threads).write_text(thread)
        with suppress(OSError):
            self._folder.rmdir()
        if self._lent:
            with suppress(OSError):
                (self._parent / "cgroup.subtree_control").write_text("-cpu")


class Confinement:
    """One process whose moving threads are held to so many cores."""

    def __init__(
        self,
        pid: int,
        cores: float,
        vcpus: tuple[int, ...] = (),
        interface: str = "",
        *,
        ends: int = 1,
        arriving: bool = False,
    ) -> None:
        self._pid = pid
        self.arriving = arriving
        self._vcpus = vcpus
        self._started = _started(pid)
        allowed = os.sched_getaffinity(pid)
        self._usual = allowed, os.getpriority(os.PRIO_PROCESS, pid)
        count = min(math.ceil(cores), len(allowed))
        self.cores = best_cores(count, _busy(), allowed, _near(interface), _siblings())
        self._quota: Quota | None = None
        with suppress(OSError, KeyError):
            self._quota = Quota(pid, cores, ends=ends)
        self.nice = 0 if self._quota else NICE[ends - 1]
        self._before: dict[int, tuple[set[int], int]] = {}
        self._lock = threading.Lock()
        self.until = math.inf
        self._over = threading.Event()

    @property
    def means(self) -> str:
        """What holds them."""
        return self._quota.means if self._quota else "affinity"

    @property
    def threads(self) -> int:
        """How many have been held so far."""
        return len(self._before)

    @property
    def over(self) -> bool:
        """Whether all was undone."""
        return self._over.is_set()

    def look(self) -> bool:
        """Hold what has appeared; tell whether the process is still there."""
        with suppress(OSError):
            if _started(self._pid) == self._started:
                with self._lock:
                    if not self._over.is_set():
                        names = _names(self._pid)
                        moving = moving_threads(names, self._pid, self._vcpus)
                        for thread in sorted(moving | ({self._pid} if self.arriving else set())):
                            self._hold(thread)
                return True
        return False

    def follow(self) -> None:
        """Look again and again until released, or the lease is over, or the process gone."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        known, last, pause = self.threads, time.monotonic(), FOLLOW_EVERY
        while not self._over.wait(pause):
            now = time.monotonic()
            if now > self.until or not self.look():
                break
            if self.threads > known:
                known, last = self.threads, now
            pause = FOLLOW_EVERY if now < last + SETTLES else SETTLED_EVERY
        self.release()

    def _hold(self, thread: int) -> None:
        if thread in self._before:
            return
        with suppress(OSError):
            cores, nice = os.sched_getaffinity(thread), os.getpriority(os.PRIO_PROCESS, thread)
            if cores == set(self.cores):  # started by one that is held, whose ways it has
                cores, nice = self._usual
            self._before[thread] = (cores, nice)
            os.sched_setaffinity(thread, self.cores)
            if self.nice:
                os.setpriority(os.PRIO_PROCESS, thread, min(19, nice + self.nice))
            if self._quota:
                self._quota.take(thread)

    def release(self) -> None:
        """Undo everything; harmless when that is done."""
        with self._lock:
            if self._over.is_set():  # the next one may hold them by now
                return
            self._over.set()
            if self._quota:
                self._quota.remove()
            if self.arriving:
                self._let_go_what_it_started()
            for thread, (cores, nice) in self._before.items():
                with suppress(OSError):  # most of them ended with the move
                    if Path(f"/proc/{self._pid}/task/{thread}").exists():
                        os.sched_setaffinity(thread, cores)
                        os.setpriority(os.PRIO_PROCESS, thread, nice)

    def _let_go_what_it_started(self) -> None:
        """Let threads that are not the move's, but were started by a main loop that was held."""
        cores, nice = self._usual
        with suppress(OSError):  # the process has gone
            for thread in _names(self._pid).keys() - self._before.keys():
                with suppress(OSError):
                    if os.sched_getaffinity(thread) == set(self.cores):
                        os.sched_setaffinity(thread, cores)
                        os.setpriority(os.PRIO_PROCESS, thread, nice)


_CONFINED: dict[int, Confinement] = {}
_LOCK = threading.Lock()


def confine(
    pid: int,
    cores: float,
    lease: float,
    vcpus: tuple[int, ...] = (),
    interface: str = "",
    *,
    ends: int = 1,
    arriving: bool = False,
) -> dict[str, Any]:
    """Hold a QEMU's moving threads, also those still to come, to so many cores.

    Args:
        pid: The process.
        cores: How many cores' time they may use together, above 0.
        lease: Seconds after which all is undone unless this is asked again.
        vcpus: The threads of its vCPUs, for a QEMU that does not name its threads.
        interface: The NIC of the move: cores near it are taken first.
        ends: How many ends of the move are on this machine, 1 or 2.
        arriving: The guest is still on its way to this process, whose main loop has nothing else
            to do; asked without it afterwards, that is let go.

    Returns:
        `means` (how they are held), `cores` (which), `nice`, `threads` held so far, and `known`:
        whether the moving threads can be told from the others at all.
    """
    with _LOCK:
        held = _CONFINED.get(pid)
        if held is not None and held.arriving != arriving:
            held.release()
        if held is None or held.over or not held.look():
            held = Confinement(pid, cores, tuple(vcpus), interface, ends=ends, arriving=arriving)
            _CONFINED[pid] = held
            held.until = time.monotonic() + lease
            held.look()
            threading.Thread(target=held.follow, daemon=True).start()
        held.until = time.monotonic() + lease
    return {
        "means": held.means,
        "cores": list(held.cores),
        "nice": held.nice,
        "threads": held.threads,
        "known": bool(vcpus) or named(_names(pid)),
    }


def release_threads(pid: int) -> int:
    """Undo `confine`, and return how many threads had been held; 0 when there were none."""
    with _LOCK:
        held = _CONFINED.pop(pid, None)
    if held is None:
        return 0
    held.release()
    return held.threads


def _started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _names(pid: int) -> dict[int, str]:
    names = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            names[int(folder.name)] = (folder / "comm").read_text().rstrip("\n")
    return names


def _ticks() -> dict[int, tuple[int, int]]:
    """Return the idle and all ticks of each core since boot."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if re.fullmatch(r"cpu\d+", words[0] if words else ""):
            ticks = [int(word) for word in words[1:9]]
            found[int(words[0][3:])] = (ticks[3] + ticks[4], sum(ticks))
    return found


def _busy() -> dict[int, float]:
    """Return the busy share of each core, from a tenth of a second."""
    before = _ticks()
    time.sleep(0.1)
    after = _ticks()
    both = before.keys() & after.keys()
    spans = {core: after[core][1] - before[core][1] for core in both}
    return {
        core: 1 - (after[core][0] - before[core][0]) / spans[core] if spans[core] else 0.0
        for core in both
    }


def _siblings() -> dict[int, set[int]]:
    """Return by core the hardware threads that share its units; empty where nobody tells."""
    found = {}
    for folder in Path("/sys/devices/system/cpu").glob("cpu[0-9]*"):
        with suppress(OSError, ValueError):
            listed = (folder / "topology" / "thread_siblings_list").read_text()
            found[int(folder.name[3:])] = _cores_in(listed)
    return found


def _cores_in(listed: str) -> set[int]:
    """Read a kernel list such as "0-3,8"."""
    cores: set[int] = set()
    for part in filter(None, listed.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def _near(interface: str) -> set[int]:
    """Return the cores of the NUMA node that an interface hangs on; empty: none is nearer."""
    if "/" in interface or not interface:
        return set()
    with suppress(OSError, ValueError):
        node = int(Path(f"/sys/class/net/{interface}/device/numa_node").read_text())
        return _cores_in(Path(f"/sys/devices/system/node/node{node}/cpulist").read_text())
    return set()


QUESTIONS = {"confine": confine, "release_threads": release_threads}

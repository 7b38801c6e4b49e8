"""What the kernel writes under /proc and /sys, read into values. Pure: text in, values out.

Source of every field: proc(5).
"""

import os
from dataclasses import dataclass

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds in one clock tick, the unit of every CPU time under /proc."""


@dataclass(frozen=True)
class Stat:
    """One process or thread (/proc/PID/stat, /proc/PID/task/TID/stat).

    Attributes:
        name: Its name, at most 15 characters.
        state: One letter: R runs, S sleeps, Z is a zombie, ...
        cpu: Seconds of CPU it has used, in user and kernel mode. Of a process: with all its
            threads, the ended ones too.
        started: Its start, in clock ticks since boot.
    """

    name: str
    state: str
    cpu: float
    started: int


def parse_stat(text: str) -> Stat:
    """Read a stat line; the name stands in parentheses and may itself hold any character."""
    head, _, rest = text.rpartition(")")
    fields = rest.split()  # fields[0] is field 3 of proc(5)
    ticks = int(fields[11]) + int(fields[12])
    return Stat(head.partition("(")[2], fields[0], ticks * TICK, int(fields[19]))


@dataclass(frozen=True)
class CoreTime:
    """What one core has done since boot, in clock ticks.

    Attributes:
        busy: All but idle and waiting for disks. Time stolen by the machine's own
            hypervisor counts as busy: nobody here could have used it.
        total: All of it.
    """

    busy: int
    total: int


def parse_cores(text: str) -> dict[int, CoreTime]:
    """Read /proc/stat as one `CoreTime` per core that is online."""
    cores = {}
    for line in text.splitlines()[1:]:  # the first line is the sum of all cores
        if not line.startswith("cpu"):
            break
        name, *fields = line.split()
        # user nice system idle iowait irq softirq steal; guest time is within user already
        ticks = [int(field) for field in fields[:8]]
        total = sum(ticks)
        cores[int(name[3:])] = CoreTime(total - ticks[3] - ticks[4], total)
    return cores


def busy_share(before: CoreTime, after: CoreTime) -> float:
    """Return the busy share, 0 to 1, between two readings; 0 when no tick passed."""
    total = after.total - before.total
    # idle and iowait may run backwards by a tick (proc(5)), so the share is kept in bounds
    return min(1.0, max(0.0, (after.busy - before.busy) / total)) if total > 0 else 0.0


def parse_net_dev(text: str) -> dict[str, tuple[int, int]]:
    """Read /proc/net/dev as bytes (received, sent) per interface; loopback is left out."""
    interfaces = {}
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        fields = figures.split()
        interfaces[name.strip()] = (int(fields[0]), int(fields[8]))
    interfaces.pop("lo", None)
    return interfaces


def parse_statm(text: str, page: int) -> int:
    """Read /proc/PID/statm as resident bytes; `page` is the kernel's page size in bytes."""
    return int(text.split()[1]) * page


def parse_list(text: str) -> tuple[int, ...]:
    """Read a kernel list such as "0-3,8,10-11"; an empty list is empty text."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)

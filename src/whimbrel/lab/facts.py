"""What the lab's figures were measured on."""

import os
import platform
import re
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from whimbrel.model.scenario import MachineFacts


def machine_facts(hypervisor: str, accelerator: str, command: str) -> MachineFacts:
    """Return this machine's facts.

    Args:
        hypervisor: Name and version, as the hypervisor itself says; empty where not yet known.
        accelerator: Which one runs the guests, and why; empty where not yet known.
        command: The command line that reproduces the figures.
    """
    return MachineFacts(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        numa_nodes=_numa_nodes(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        hypervisor=hypervisor,
        accelerator=accelerator,
        whimbrel=version("whimbrel"),
        distribution=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=command,
    )


def _cpu() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _numa_nodes() -> int:
    nodes = Path("/sys/devices/system/node")
    return max(1, len(list(nodes.glob("node[0-9]*")))) if nodes.is_dir() else 1

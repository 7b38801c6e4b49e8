"""What a preflight asks of a host itself: who it is, its memory, VMs, files and settings.

Nothing here changes anything on the host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

_CLOCK_FLAGS = (
    "constant_tsc",
    "nonstop_tsc",
    "tsc_scale",
    "tsc_scaling",
)  # the last two: AMD, Intel
_OTHERS = 0o077
_LARGEST_BOOT_FILE = 1 << 29
_CAP_IPC_LOCK, _CAP_SYS_RESOURCE = 14, 24
"""Who has the first pins without limit, who has the second raises limits (capabilities(7));
linux/capability.h."""

_HUGE_PAGES = Path("/sys/kernel/mm/hugepages")


def preflight_host(folder: str, files: list[str]) -> dict[str, Any]:
    """Return the facts of this host.

    Args:
        folder: The private folder of the host's VMs.
        files: Paths of files (kernels, firmware) of which content is to be told.
    """
    return {
        "clock": time.time(),
        **_identity(folder),
        **_processor(),
        "huge_pages": _huge_pages(),
        "uid": os.geteuid(),
        "memlock": _memlock(),
        "kvm": os.access("/dev/kvm", os.R_OK | os.W_OK),
        "rdma": _names(Path("/sys/class/infiniband")),
        "mptcp": _text("/proc/sys/net/mptcp/enabled") == "1",
        "mptcp_subflows": _subflows(),
        "vms": _vms(Path(folder, "vms")),
        "marks": _marks(Path(folder, "moves")),
        "files": {path: _content(Path(path)) for path in files},
    }


def _identity(folder: str) -> dict[str, Any]:
    place = Path(folder).resolve()
    identity, private = str(place), True
    with contextlib.suppress(OSError):
        found = place.stat()
        identity = f"{found.st_dev}:{found.st_ino}"
        private = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS
    nearest = next(each for each in (place, *place.parents) if each.is_dir())
    return {
        "machine_id": _text("/etc/machine-id"),
        "boot_id": _text("/proc/sys/kernel/random/boot_id"),
        "network": str(Path("/proc/self/ns/net").stat().st_ino),
        "folder": identity,
        "folder_private": private,
        "folder_writable": os.access(nearest, os.W_OK | os.X_OK),
    }


def _processor() -> dict[str, Any]:
    model, flags = "", set()
    for line in _text("/proc/cpuinfo").partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in {"flags", "vmx flags"}:
            flags |= set(value.split())
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": model,
        "clock_flags": [flag for flag in _CLOCK_FLAGS if flag in flags],
    }


def _huge_pages() -> dict[str, int]:
    """Return for each size in bytes how many pages are free and not promised."""
    found = {}
    for name in _names(_HUGE_PAGES):
        with contextlib.suppress(OSError, ValueError):
            size = int(name.split("-")[1][:-2]) * 1024  # hugepages-2048kB
            free = int(_text(str(_HUGE_PAGES / name / "free_hugepages")))
            found[str(size)] = free - int(_text(str(_HUGE_PAGES / name / "resv_hugepages")))
    return found


def _memlock() -> int | None:
    """Return how many bytes a VM may pin; None: as many as there are."""
    if _may("self", "CapEff", _CAP_IPC_LOCK):
        return None
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def preflight_pins(pid: int) -> dict[str, Any]:
    """Return how many bytes a process may pin, and what lifts that.

    "limit": none where there is no limit; "held": whether it is held to it; "may_be_raised":
    whether root may raise it, which in a container it may not (its bounding set).
    """
    limit: int | None = 0  # where nothing is told nothing is known to be allowed
    for line in _text(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max locked memory"):
            word = line.split()[3]
            limit = None if word == "unlimited" else int(word)
    return {
        "limit": limit,
        "held": not _may(str(pid), "CapEff", _CAP_IPC_LOCK),
        "may_be_raised": _may("self", "CapBnd", _CAP_SYS_RESOURCE),
    }


def _may(process: str, kind: str, capability: int) -> bool:
    """Tell whether one of a process's sets of capabilities holds one."""
    for line in _text(f"/proc/{process}/status").splitlines():
        key, _, value = line.partition(":")
        if key == kind:
            return bool(int(value, 16) >> capability & 1)
    return False


def _subflows() -> int | None:
    """Return how many subflows MPTCP may add to a connection; None where that is not told."""
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        words = subprocess.run(
            ["ip", "mptcp", "limits", "show"], capture_output=True, timeout=5, check=True
        ).stdout.split()
        return int(words[words.index(b"subflows") + 1])
    return None


def _vms(place: Path) -> list[dict[str, Any]]:
    """Return the VMs that have a folder here, with the pid of the process that holds each."""
    return [
        {"name": name, "pid": _living(_read(place / name / "vm.json"))} for name in _names(place)
    ]


def _marks(place: Path) -> dict[str, Any]:
    """Return the marks of moves that are under way, or were never closed, by the VM's name."""
    paths = sorted(place.glob("*.json"))
    return {path.stem: mark for path in paths if (mark := _read(path)) is not None}


def _living(written: dict[str, Any] | None) -> int | None:
    """Return the pid of the process that holds a VM; None when it has gone."""
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        pid = int((written or {})["pid"])
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in {b"Z", b"X"} and int(fields[19]) == (written or {})["start"]:
            return pid
    return None


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return None


def _content(path: Path) -> dict[str, Any] | None:
    """Return size and digest of a file; None where it cannot be read."""
    try:
        size = path.stat().st_size
        digest = hashlib.sha256()
        with path.open("rb") as file:
            left = min(size, _LARGEST_BOOT_FILE)
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
    except OSError:
        return None
    return {"size": size, "digest": digest.hexdigest()}


def _names(place: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in place.iterdir())
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


QUESTIONS = {"preflight_host": preflight_host, "preflight_pins": preflight_pins}

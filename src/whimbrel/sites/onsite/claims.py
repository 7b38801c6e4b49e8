"""Reservations of memory for moves that are to come to this host: FOLDER/claims/ID.json.

A claim counts as long as it has not expired and either the program that made it lives (it
ends with whimbrel's connection) or the VM that it was made for does. What that VM's process
already holds is not counted again, since it is missing from the free memory by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MEGABYTE = 1 << 20


def boot_id() -> str:
    """Return what this kernel was called when it booted."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return when a process began, in ticks since the boot; None when there is none alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def resident_bytes(pid: int) -> int:
    """Return the bytes of memory that a process holds, huge pages included; 0: it is gone."""
    found = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("VmRSS:", "HugetlbPages:")):
                found += int(line.split()[1]) * 1024
    return found


def vm_process(folder: str, vm: str) -> int | None:
    """Return the pid of a VM's living process; None where there is none."""
    try:
        written = json.loads(Path(folder, "vms", vm, "vm.json").read_text())
        pid = int(written["pid"])
        start = int(written["start"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if start == start_time(pid) else None


def outstanding(folder: str, claim: dict[str, Any], now: float) -> int:
    """Return the bytes of a claim that are still to be taken; 0 for one that counts no more."""
    owner = claim["owner"]
    pid = vm_process(folder, claim["vm"])
    same_boot = owner["boot"] == boot_id()
    if now >= claim["expires"] or not (_owned(owner) or (same_boot and pid is not None)):
        return 0
    return max(0, int(claim["bytes"]) - (resident_bytes(pid) if pid is not None else 0))


def _owned(owner: dict[str, Any]) -> bool:
    """Tell whether the program that made a claim lives."""
    return bool(owner["boot"] == boot_id() and start_time(owner["pid"]) == owner["start"])


def claims(folder: str) -> list[dict[str, Any]]:
    """Return the claims that count, each with the bytes it is still to take ("outstanding")."""
    found = []
    for path in sorted(Path(folder, "claims").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            claim = json.loads(path.read_text())
            left = outstanding(folder, claim, time.time())
            if left > 0:
                found.append({**claim, "id": path.stem, "outstanding": left})
    return found


def free_memory(page_size: int = 0) -> int:
    """Return the bytes that this host can still give: of huge pages, or (0) of its common ones."""
    if page_size:
        path = f"/sys/kernel/mm/hugepages/hugepages-{page_size // 1024}kB/"
        try:
            free, reserved = (_number(path + name) for name in ("free_hugepages", "resv_hugepages"))
        except OSError:
            return 0
        return max(0, free - reserved) * page_size
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    return min([available, *_left_in_groups()])


def memory_left(folder: str, vm: str, page_size: int) -> dict[str, Any]:
    """Return the "free" bytes, and those "claimed" for others than a VM, with their names."""
    others = [
        claim for claim in claims(folder) if claim["vm"] != vm and claim["page_size"] == page_size
    ]
    return {
        "free": free_memory(page_size),
        "claimed": sum(claim["outstanding"] for claim in others),
        "claimants": sorted({claim["vm"] for claim in others}),
    }


def _left_in_groups() -> Iterator[int]:
    """Yield what each control group above this process (version 2) still allows."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::")).strip("/")
        while group:
            place = f"/sys/fs/cgroup/{group}"
            with contextlib.suppress(OSError, ValueError):
                yield max(0, _number(place + "/memory.max") - _number(place + "/memory.current"))
            group = group.rpartition("/")[0]


def _number(path: str) -> int:
    return int(Path(path).read_text())


def claim_memory(
    *,
    folder: str,
    claim: str,
    vm: str,
    wanted: int,
    page_size: int,
    lasting: float,
) -> dict[str, int]:
    """Reserve memory for a VM that is to come; the same claim again prolongs and changes it.

    Args:
        folder: The host's private folder.
        claim: The claim's name, a plain word.
        vm: The VM's name.
        wanted: Bytes.
        page_size: Of huge pages of so many bytes; 0: of common ones.
        lasting: Seconds after which it counts no more, whatever happened.

    Raises:
        MemoryError: There is not so much that nobody else claimed.
    """
    for word in (claim, vm):
        if not _NAME.fullmatch(word):
            raise ValueError(f"{word!r} is no plain word")
    place = Path(folder, "claims")
    for private in (place.parent, place):
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(place):
        others = [each for each in claims(folder) if each["id"] != claim]
        taken = sum(each["outstanding"] for each in others if each["page_size"] == page_size)
        free = free_memory(page_size)
        mine = max(0, wanted - resident_bytes(vm_process(folder, vm) or 0))
        if mine > free - taken:
            raise MemoryError(_refusal(wanted, free, taken, others))
        pid = os.getpid()
        owner = {"pid": pid, "start": start_time(pid), "boot": boot_id()}
        written = {"vm": vm, "bytes": wanted, "page_size": page_size, "owner": owner}
        _write(place / f"{claim}.json", {**written, "expires": time.time() + lasting})
    return {"free": free, "claimed": taken}


def _refusal(wanted: int, free: int, taken: int, others: list[dict[str, Any]]) -> str:
    words = f"{wanted // _MEGABYTE} MiB are not free: {free // _MEGABYTE} MiB are"
    if taken:
        names = ", ".join(sorted({each["vm"] for each in others}))
        words += f", of which moves that come here ({names}) claim {taken // _MEGABYTE} MiB"
    return words


def release_memory(folder: str, claim: str) -> bool:
    """Give a claim up; False when there was none."""
    place = Path(folder, "claims")
    if not _NAME.fullmatch(claim) or not place.is_dir():
        return False
    with _locked(place):
        try:
            (place / f"{claim}.json").unlink()
        except FileNotFoundError:
            return False
        for path in place.glob("*.json"):
            _forget_if_void(folder, path)
    return True


def forget_claims(folder: str, vm: str) -> int:
    """Give up what moves of a VM claimed whose whimbrel is gone; return how many that were."""
    place = Path(folder, "claims")
    if not place.is_dir():
        return 0
    found = 0
    with _locked(place):
        for path in place.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                claim = json.loads(path.read_text())
                if claim["vm"] == vm and not _owned(claim["owner"]):
                    path.unlink()
                    found += 1
    return found


def _forget_if_void(folder: str, path: Path) -> None:
    """Remove a claim that counts no more, so that they do not pile up after crashes."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        claim = json.loads(path.read_text())
        held = vm_process(folder, claim["vm"]) is not None
        if not held and outstanding(folder, claim, time.time()) == 0:
            path.unlink()


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold the claims of this host alone: two moves must not count on the same memory."""
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, content: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


QUESTIONS = {
    "boot_id": boot_id,
    "claims": claims,
    "memory_left": memory_left,
    "claim_memory": claim_memory,
    "release_memory": release_memory,
    "forget_claims": forget_claims,
}

"""The VMs of this host at a glance, and a word to one of them.

QEMU is asked over the socket for onlookers, which conducts no move. A VM started by hand has one
socket only; where somebody holds it, QEMU answers nobody else, and its state is not known.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

ANSWERS_WITHIN = 2.0
"""Seconds that QEMU gets to answer an onlooker."""

_ONLOOKERS = "qmp-look"
_COMMANDS = {"system_powerdown", "quit"}


def vms_overview(folder: str, sockets: list[str]) -> list[dict[str, Any]]:
    """Return every VM here, in the order of their names, then those started by hand.

    Args:
        folder: FOLDER, with the VMs that whimbrel started.
        sockets: QMP sockets of VMs that were started by hand.

    Returns:
        For each: `place` (None: by hand), `record` (vm.json, or what QEMU tells of one by hand),
        `alive`, `status` (QEMU's word; None: it did not answer), `seconds` since it was started,
        `resident` bytes, and `moving`: whether the mark of a move is there.
    """
    found = [_vm(place) for place in sorted(Path(folder, "vms").glob("*")) if place.is_dir()]
    return [each for each in found if each] + [_by_hand(path) for path in sockets]


def vm_word(place: str, word: str) -> None:
    """Say "system_powerdown" or "quit" to a VM's QEMU; refused while a move's mark is there."""
    if word not in _COMMANDS:
        raise ValueError(f"{word} is none of {', '.join(sorted(_COMMANDS))}")
    if _moving(place):
        raise PermissionError("a move of this VM is under way, or was never closed")
    _ask(f"{place}/{_ONLOOKERS}", [word])


def _vm(place: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((place / "vm.json").read_text())
    except (OSError, ValueError):
        return None
    pid, start = record.get("pid"), record.get("start")
    since_boot = record.get("boot") in {None, _boot()}
    alive = since_boot and pid is not None and start is not None and _started(pid) == start
    status = _status(place / _ONLOOKERS) if alive else None
    return {
        "place": str(place),
        "record": record,
        "alive": alive,
        "status": status,
        "seconds": _age(start) if alive else None,
        "resident": _resident(pid) if alive else 0,
        "moving": _moving(str(place)),
    }


def _by_hand(path: str) -> dict[str, Any]:
    asked = ["query-status", "query-name", "query-memory-size-summary", "query-cpus-fast"]
    record: dict[str, Any] = {"socket": path}
    status = None
    with contextlib.suppress(OSError, ValueError, KeyError):
        state, name, memory, cpus, blocks = _ask(path, [*asked, "query-block"])
        status = state["status"]
        record["vm"] = {
            "name": name.get("name", "").partition(",")[0] or Path(path).parent.name,
            "memory": memory["base-memory"] + memory.get("plugged-memory", 0),
            "vcpus": len(cpus),
            "disks": [
                {"path": block["inserted"]["file"]} for block in blocks if block.get("inserted")
            ],
        }
    return {
        "place": None,
        "record": record,
        "alive": status is not None,
        "status": status,
        "seconds": None,
        "resident": 0,
        "moving": False,
    }


def _status(path: Path) -> str | None:
    try:
        [answer] = _ask(str(path), ["query-status"])
    except (OSError, ValueError, KeyError):
        return None
    return str(answer["status"])


def _ask(path: str, commands: list[str]) -> list[Any]:
    """Carry out QMP commands; raises `OSError` or `ValueError` where QEMU does not answer."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(ANSWERS_WITHIN)
        _connect(talk, path)
        with talk.makefile("rwb") as lines:
            lines.readline()  # its greeting
            return [_answer(lines, command) for command in ("qmp_capabilities", *commands)][1:]


def _connect(talk: socket.socket, path: str) -> None:
    """Connect, by way of the folder: a socket's own path may be longer than the 107 bytes."""
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        talk.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
    finally:
        os.close(folder)


def _answer(lines: Any, command: str) -> Any:
    lines.write(json.dumps({"execute": command}).encode() + b"\n")
    lines.flush()
    while line := lines.readline():
        message = json.loads(line)
        if "return" in message:
            return message["return"]
        if "error" in message:
            raise ValueError(message["error"].get("desc", "QEMU refused"))
    raise OSError("QEMU closed the connection")


def _moving(place: str) -> bool:
    home = Path(place)  # FOLDER/vms/NAME
    return Path(home.parent.parent, "moves", f"{home.name}.json").exists()


def _started(pid: int) -> int | None:
    """Return a living process's start time in ticks; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _age(start: int) -> float:
    """Return the seconds since a process was started (proc(5): ticks after the boot)."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK"))


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


QUESTIONS = {"vms_overview": vms_overview, "vm_word": vm_word}

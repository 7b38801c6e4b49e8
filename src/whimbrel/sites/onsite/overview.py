"""The VMs of this host at a glance, and a word to one of them.

QEMU is asked over the socket for onlookers, which conducts no move. A VM started by hand has one
socket only; where somebody holds it, QEMU answers nobody else, and its state is not known.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

ANSWERS_WITHIN = 2.0
"""Seconds that QEMU gets to answer an onlooker."""

_ONLOOKERS = "qmp-look"
_COMMANDS = {"system_powerdown", "quit"}


def vms_overview(folder: str, sockets: list[str]) -> dict[str, Any]:
    """Return every VM here, in the order of their names, then those started by hand.

    Args:
        folder: FOLDER, with the VMs that whimbrel started or has taken over.
        sockets: QMP sockets of VMs that were started by hand.

    Returns:
        `moves`, the names of VMs with the mark of a move, and `vms`. For each of these: `place`
        (None: by hand, and nothing is written of it here), `record` (vm.json, or what QEMU
        tells), `alive`, `status` (QEMU's word; None: it did not answer), `seconds` since it was
        started, `resident` bytes, and `moving`: whether there is a mark.
    """
    moves = [path.stem for path in sorted(Path(folder, "moves").glob("*.json"))]
    found = [_vm(place) for place in sorted(Path(folder, "vms").glob("*")) if place.is_dir()]
    vms = [each for each in found if each]
    written = {path for each in vms for path in each["record"].get("sockets", ())}
    vms += [_by_hand(path) for path in sockets if path not in written]
    for each in vms:
        each["moving"] = each["record"].get("vm", {}).get("name") in moves
    return {"vms": vms, "moves": moves}


def vm_word(place: str, word: str) -> None:
    """Say "system_powerdown" or "quit" to a VM's QEMU; refused while a move's mark is there."""
    if word not in _COMMANDS:
        raise ValueError(f"{word} is none of {', '.join(sorted(_COMMANDS))}")
    home = Path(place)
    if (home.parents[1] / "moves" / f"{home.name}.json").exists():
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
    asked = [*record.get("sockets", ()), str(place / _ONLOOKERS)][0]
    status = _status(asked) if alive else None
    return {"place": str(place), "record": record, "alive": alive, "status": status} | (
        _process(pid, start) if alive else _NO_PROCESS
    )


def _by_hand(path: str) -> dict[str, Any]:
    asked = ["query-status", "query-name", "query-memory-size-summary", "query-cpus-fast"]
    record: dict[str, Any] = {"sockets": [path]}
    found = {"place": None, "record": record, "alive": False, "status": None, **_NO_PROCESS}
    with contextlib.suppress(OSError, ValueError, KeyError):
        (state, name, memory, cpus, blocks), pid = _asked(path, [*asked, "query-block"])
        start = _started(pid)
        record |= {"pid": pid, "start": start}
        record["vm"] = {
            "name": _plain_name(name.get("name", "").partition(",")[0]) or f"pid-{pid}",
            "memory": memory["base-memory"] + memory.get("plugged-memory", 0),
            "vcpus": len(cpus),
            "disks": [
                {"path": block["inserted"]["file"]} for block in blocks if block.get("inserted")
            ],
        }
        found |= {"alive": True, "status": state["status"]}
        found |= _process(pid, start) if start is not None else {}
    return found


def _plain_name(text: str) -> str:
    """Return a text as a plain word that can name a VM, as a VM that is adopted is named."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")


_NO_PROCESS = {"seconds": None, "resident": 0}


def _process(pid: int, start: int) -> dict[str, Any]:
    return {"seconds": _age(start), "resident": _resident(pid)}


def _status(path: str) -> str | None:
    try:
        [answer] = _ask(path, ["query-status"])
    except (OSError, ValueError, KeyError):
        return None
    return str(answer["status"])


def _ask(path: str, commands: list[str]) -> list[Any]:
    """Carry out QMP commands; raises `OSError` or `ValueError` where QEMU does not answer."""
    return _asked(path, commands)[0]


def _asked(path: str, commands: list[str]) -> tuple[list[Any], int]:
    """Do the same, and return which process answered."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(ANSWERS_WITHIN)
        _connect(talk, path)
        peer = talk.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        with talk.makefile("rwb") as lines:
            lines.readline()  # its greeting
            answers = [_answer(lines, command) for command in ("qmp_capabilities", *commands)]
    return answers[1:], struct.unpack("3i", peer)[0]


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

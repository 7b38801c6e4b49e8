"""Questions to a VM's QEMU from those who only look on, beside whoever conducts it.

QEMU serves one client per socket: onlookers share `qmp-look`, each for a moment, in turn. What
could change anything is not asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WITHIN = 10.0
_ALLOWED = ("query-", "qom-get", "qom-list")


def machine_look(place: str, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Return QEMU's answers to questions, each a command's name and its arguments.

    Raises:
        PermissionError: One of them is no question.
        RuntimeError: QEMU refuses one, with its words.
        OSError: It does not answer, or is gone.
    """
    for command, _ in commands:
        if not command.startswith(_ALLOWED):
            raise PermissionError(f"{command} is not for those who only look on")
    with _in_turn(place), _connected(_socket(place)) as talk:
        json.loads(talk.readline())  # its greeting
        _ask(talk, "qmp_capabilities", {})
        return [_ask(talk, command, arguments) for command, arguments in commands]


@contextlib.contextmanager
def _in_turn(place: str) -> Iterator[None]:
    lock = os.open(Path(place, "look.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _socket(place: str) -> Path:
    """Return the socket for onlookers; a VM that was started by hand may have but one."""
    record = json.loads(Path(place, "vm.json").read_text())
    return Path(record["sockets"][-1] if record.get("sockets") else Path(place, "qmp-look"))


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[Any]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(_WITHIN)
            # A way around the limit of 107 bytes on a socket's path.
            talk.connect(f"/proc/self/fd/{folder}/{path.name}")
            with talk.makefile("rwb") as file:
                yield file
    finally:
        os.close(folder)


def _ask(talk: Any, command: str, arguments: dict[str, Any]) -> Any:
    talk.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    talk.flush()
    while line := talk.readline():
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']['desc']}")
    raise ConnectionError(f"QEMU went away during {command}")


QUESTIONS = {"machine_look": machine_look}

"""Marks of moves: on both hosts, so that two whimbrels never conduct one VM at once.

    FOLDER/moves.lock        held while marks are made, changed or removed
    FOLDER/moves/NAME.json   the move of one VM: whose it is, from where to where, how far

A mark outlives the VM's own folder, and the whimbrel that made it. Whether that one still lives
can be told only on the machine it runs on.
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
    from collections.abc import Iterator, Mapping


def mark_set(
    folder: str, name: str, mark: Mapping[str, Any], instead_of: str | None = None
) -> dict[str, Any] | None:
    """Mark a VM, unless it is marked already.

    Args:
        folder: FOLDER, made where it is missing.
        name: The VM's name.
        mark: What stands in the mark; `move` names the move.
        instead_of: A move whose mark may be taken over, or that of a recovery of it
            (`MOVE-…`), unless its holder lives and is another process.

    Returns:
        None when it is marked now; else the mark that is in the way, with `alive`: whether its
        holder lives; None where that cannot be told from here.
    """
    with _locked(folder):
        other = _read(_path(folder, name))
        if other is not None:
            alive = _lives(other)
            own = other.get("move") == mark["move"]
            succeeds = str(other.get("move")).partition("-")[0] == instead_of
            free = alive is not True or _same(other, mark)
            if not own and not (succeeds and free):
                return {**other, "alive": alive}
        _write(_path(folder, name), mark)
    return None


def mark_change(folder: str, name: str, move: str, mark: Mapping[str, Any]) -> None:
    """Let a move's mark say something else, unless what it says is newer (`count`).

    Raises:
        FileNotFoundError: The VM is not marked by this move any more.
    """
    with _locked(folder):
        before = _read(_path(folder, name))
        if before is None or before.get("move") != move:
            raise FileNotFoundError(f"the mark of this move of {name} is gone")
        if mark.get("count", 0) >= before.get("count", 0):
            _write(_path(folder, name), mark)


def mark_clear(folder: str, name: str, move: str) -> None:
    """Remove a move's mark; harmless where there is none, or another move's."""
    with _locked(folder):
        path = _path(folder, name)
        mark = _read(path)
        if mark is not None and mark.get("move") == move:
            path.unlink()


def mark_list(folder: str) -> list[dict[str, Any]]:
    """Return every mark, with `alive` as in `mark_set`."""
    found = (_read(path) for path in sorted(Path(folder, "moves").glob("*.json")))
    return [{**mark, "alive": _lives(mark.get("holder", {}))} for mark in found if mark is not None]


def _path(folder: str, name: str) -> Path:
    if "/" in name or name.startswith("."):
        raise ValueError(f"{name!r} is no name of a VM")
    return Path(folder, "moves", f"{name}.json")


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    Path(folder, "moves").mkdir(mode=0o700, exist_ok=True)
    lock = os.open(Path(folder, "moves.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if not isinstance(mark, dict):
        raise TypeError(f"{path} is no mark of a move")
    return mark


def _write(path: Path, mark: Mapping[str, Any]) -> None:
    unfinished = path.with_suffix(".new")
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(opened, "w") as file:
            json.dump(dict(mark), file)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # the disk is full: what the mark said before stays
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two marks are one process's."""
    both = (one.get("holder", {}), other.get("holder", {}))
    first, second = ([each.get(key) for key in ("boot", "pid", "start")] for each in both)
    return first == second


def _lives(mark: Mapping[str, Any]) -> bool | None:
    holder = mark.get("holder", {})
    if mark.get("left"):
        return False  # it lives, and has let go of the move
    if holder.get("boot") == Path("/proc/sys/kernel/random/boot_id").read_text().strip():
        return bool(_started(int(holder["pid"])) == holder.get("start"))
    # An earlier boot of this machine has ended for sure; another machine's has not.
    return False if holder.get("host") == socket.gethostname() else None


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


QUESTIONS = {
    "mark_set": mark_set,
    "mark_change": mark_change,
    "mark_clear": mark_clear,
    "mark_list": mark_list,
}

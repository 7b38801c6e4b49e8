"""VMs that outlive whimbrel: started in their own session, and found again by what they left.

    FOLDER/vms.lock           held while VMs are made or removed
    FOLDER/vms/NAME/vm.json   how it was built, its process with the start time, its role
    FOLDER/vms/NAME/stderr    what QEMU had to say

A process is named by its id and its start time (proc(5), field 22), which together are never
used again while the host is up; vm.json keeps the boot they belong to as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

STOPS_WITHIN = 20.0
"""Seconds for a killed process to end; one that waits for a dead share takes longer."""

LOOK_AGAIN = 0.002
"""Seconds; nobody tells when QEMU has made its socket."""

_OTHERS = 0o077
_children: dict[int, subprocess.Popen[bytes]] = {}

_BECOME = """\
import json, os, sys
place, words = sys.argv[1], sys.argv[2:]
os.umask(0o077)
with open(place + "/vm.json") as file:
    record = json.load(file)
with open("/proc/self/stat", "rb") as file:
    record["start"] = int(file.read().rpartition(b")")[2].split()[19])
record["pid"] = os.getpid()
with open(place + "/vm.json.new", "w") as file:
    json.dump(record, file)
os.replace(place + "/vm.json.new", place + "/vm.json")
try:
    os.execvp(words[0], words)
except OSError as error:
    sys.stderr.write(words[0] + ": " + error.strerror + "\\n")
    os._exit(127)
"""
"""Writes down which process it is, and then becomes QEMU: there is none that nobody knows of."""


def machine_start(
    folder: str,
    place: str,
    words: Sequence[str],
    record: Mapping[str, Any],
    taps: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Start a QEMU that holds a VM, and wait until it greets or has ended.

    Args:
        folder: FOLDER, made where it is missing.
        place: The VM's own folder below it; QEMU makes the socket `qmp` in it.
        words: The command.
        record: What vm.json keeps of it.
        taps: Names of taps to make, each with the bridge that it joins.

    Returns:
        pid and start; or code and output when it ended at once, and nothing of it is left.
    """
    home = Path(place)
    with _locked(folder):
        _make_place(Path(folder), home)
        try:
            _write(home, _complete(record, taps))
            for tap, bridge in taps:
                _make_tap(tap, bridge)
            child = _spawn(home, words)
        except BaseException:
            _remove(home)
            raise
        _children[child.pid] = child
    while child.poll() is None:
        if _greets(home):
            return {"pid": child.pid, "start": _read(home)["start"]}
        time.sleep(LOOK_AGAIN)
    output = Path(home, "stderr").read_text(errors="replace").strip()
    with _locked(folder):
        _remove(home)
    return {"code": child.returncode, "output": output}


def machine_adopt(folder: str, place: str, record: Mapping[str, Any]) -> None:
    """Write down a VM that somebody else started; `record` has its pid and start time."""
    home = Path(place)
    with _locked(folder):
        if not (home.is_dir() and _belongs(home, record["pid"], record["start"])):
            _make_place(Path(folder), home)
        _write(home, _complete(record, ()))


def machine_list(folder: str) -> list[dict[str, Any]]:
    """Return what vm.json says of each VM below `folder`, with `place` and whether it lives."""
    homes = sorted(Path(folder, "vms").glob("*"))
    found = (machine_find(str(home)) for home in homes)
    return [record for record in found if record is not None]


def machine_find(place: str) -> dict[str, Any] | None:
    """Return what vm.json says of one VM, with `place` and `alive`; None where there is none."""
    try:
        record = _read(Path(place))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return {**record, "place": place, "alive": _lives(record)}


def machine_note(folder: str, place: str, changes: Mapping[str, Any]) -> None:
    """Change fields of vm.json, all at once or not at all."""
    with _locked(folder):
        _write(Path(place), {**_read(Path(place)), **changes})


def machine_ends(pid: int, start: int, within_seconds: float) -> dict[str, Any]:
    """Wait for a process to end; return whether it has, and its exit code where that is known."""
    ended = _ended_within(pid, start, within_seconds)
    child = _children.get(pid)
    return {"ended": ended, "code": child.poll() if ended and child else None}


def machine_stop(folder: str, place: str, pid: int | None = None, start: int = 0) -> None:
    """End a VM's process if it lives, and remove its taps and its folder; harmless if gone.

    With `pid` and `start` it ends this process wherever it lives, and removes the folder only
    where it is this process's, and not one's that came after it under the same name.
    """
    home = Path(place)
    with _locked(folder):
        if pid is not None:
            _end(pid, start)
        if home.is_dir() and (pid is None or _belongs(home, pid, start)):
            _kill(home)
            _remove(home)


def machine_sweep(folder: str, older: float) -> None:
    """End what a killed whimbrel left of its probes, where `older` than so many seconds."""
    for home in Path(folder, "probes").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - home.stat().st_mtime > older:
                machine_stop(folder, str(home))


def _complete(record: Mapping[str, Any], taps: Sequence[Sequence[str]]) -> dict[str, Any]:
    known = {"taps": [list(tap) for tap in taps], "boot": _boot(), "began": time.time()}
    return {**record, **known}


def _greets(home: Path) -> bool:
    """Be QEMU's first client, which it waits for, until it greets; False while it cannot be."""
    folder = os.open(home, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            # A way around the limit of 107 bytes on a socket's path.
            talk.connect(f"/proc/self/fd/{folder}/qmp")
            with talk.makefile("rb") as said:
                return bool(said.readline())
    except (FileNotFoundError, ConnectionError):  # not made yet, not listening yet, or gone
        return False
    finally:
        os.close(folder)


def _spawn(home: Path, words: Sequence[str]) -> subprocess.Popen[bytes]:
    log = os.open(home / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BECOME, str(home), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the one lock of `folder`, which is made where it is missing."""
    above = Path(folder)
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = above.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of this user")
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        raise PermissionError(f"{folder} is open to other users; try: chmod 700 {folder}")
    lock = os.open(above / "vms.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_place(above: Path, home: Path) -> None:
    if above not in home.parents or ".." in home.parts:
        raise ValueError(f"{home} is not within {above}")
    known = machine_find(str(home))
    if known is not None and known["alive"]:
        raise FileExistsError(f"a VM {home.name} is here already (pid {known['pid']})")
    if home.is_dir():
        _remove(home)
    home.parent.mkdir(mode=0o700, exist_ok=True)
    home.mkdir(mode=0o700)


def _remove(home: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        for tap, _ in _read(home).get("taps", ()):
            _call(["ip", "link", "delete", "dev", tap])
    shutil.rmtree(home)


def _make_tap(tap: str, bridge: str) -> None:
    _call(["ip", "link", "delete", "dev", tap])  # one that was left behind, if any
    _run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
    _run(["ip", "link", "set", "dev", tap, "master", bridge, "up"])


def _run(words: Sequence[str]) -> None:
    done = _call(words)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(words)}: {said or f'exit code {done.returncode}'}")


def _call(words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, check=False)


def _read(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(home, "vm.json").read_text())
    return found


def _write(home: Path, record: Mapping[str, Any]) -> None:
    unfinished = home / "vm.json.new"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(record, file)
    unfinished.replace(home / "vm.json")


def _belongs(home: Path, pid: int, start: int) -> bool:
    try:
        record = _read(home)
    except FileNotFoundError:
        return True  # what is left of a removal that was broken off
    return (record.get("pid"), record.get("start")) == (pid, start)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _lives(record: Mapping[str, Any]) -> bool:
    pid = record.get("pid")
    return pid is not None and record["boot"] == _boot() and _started(pid) == record["start"]


def _started(pid: int) -> int | None:
    """Return a living process's start time; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def _kill(home: Path) -> None:
    try:
        record = _read(home)
    except FileNotFoundError:
        return
    if _lives(record):
        _end(record["pid"], record["start"])


def _end(pid: int, start: int) -> None:
    if _started(pid) != start:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not _ended_within(pid, start, STOPS_WITHIN):
        raise TimeoutError(f"process {pid} does not end, though it was killed")


def _ended_within(pid: int, start: int, within: float) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if _started(pid) == start:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            poll.poll(within * 1000)
    finally:
        os.close(process)
    child = _children.get(pid)
    if child is not None:
        child.poll()
    return _started(pid) != start


QUESTIONS = {
    "machine_start": machine_start,
    "machine_adopt": machine_adopt,
    "machine_list": machine_list,
    "machine_find": machine_find,
    "machine_note": machine_note,
    "machine_ends": machine_ends,
    "machine_stop": machine_stop,
    "machine_sweep": machine_sweep,
}

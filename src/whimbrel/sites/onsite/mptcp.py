"""Several NICs for one connection: what MPTCP is set to on this host, and setting it for a move.

    FOLDER/mptcp.json   what was set before, what was added since, and for whose moves

It is written before anything is changed, so that whoever comes next can take it back: the last
move to let go does, and so does anybody who finds that all who held it have died. One whose move
is still marked counts as alive, since its guest may be on its way.

A destination announces its further addresses each with a port of its own, on which the kernel
listens: QEMU listens on one address only, and stops once it has been called.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SWITCH = Path("/proc/sys/net/mptcp/enabled")
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def mptcp_facts() -> dict[str, Any]:
    """Return how MPTCP is set here; nothing is changed.

    `known`: whether the kernel has it and `ip` can tell of it; `enabled`; `subflows` that may be
    added to a connection; `accepted` addresses that may be taken up from the other host;
    `announced`: the addresses told to others with a port of their own.
    """
    nothing = {"known": False, "enabled": False, "subflows": 0, "accepted": 0, "announced": []}
    try:
        subflows, accepted = _limits()
        announced = [
            each["address"] for each in _endpoints() if each.get("signal") and each.get("port")
        ]
        enabled = _SWITCH.read_text().strip() == "1"
    except (OSError, ValueError, subprocess.SubprocessError):
        return nothing
    return {
        "known": True,
        "enabled": enabled,
        "subflows": subflows,
        "accepted": accepted,
        "announced": announced,
    }


def mptcp_prepare(
    folder: str, vm: str, paths: int, announce: Sequence[str] = (), port: int = 9099
) -> list[str]:
    """Let MPTCP spread connections over further NICs until `mptcp_release`.

    Args:
        folder: FOLDER, made where it is missing.
        vm: For whose move.
        paths: How many further NICs there are.
        announce: This host's addresses on them, where it is the destination.
        port: The kernel's own on each of them.

    Returns:
        The commands that were carried out; none where all was set already.

    Raises:
        RuntimeError: The kernel or `ip` refused. All is as before.
    """
    with _held(folder) as path:
        record = _alive(folder, _read(path))
        if record is None:
            record = {"boot": _boot(), "before": _before(), "added": [], "holders": []}
        record["holders"] = [each for each in record["holders"] if each["vm"] != vm]
        record["holders"].append({"vm": vm, "pid": os.getpid(), "start": _started(os.getpid())})
        try:
            return _prepared(path, record, paths, announce, port)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            record["holders"].pop()
            _settle(path, record)
            raise RuntimeError(_words(error)) from error


def mptcp_release(folder: str, vm: str = "") -> list[str]:
    """Give it up for a VM's move, and for all that have died; harmless where there is nothing.

    Returns:
        The commands that took back what was set; none where others still hold it.
    """
    if not Path(folder, "mptcp.json").exists():
        return []
    with _held(folder) as path:
        found = _read(path)
        record = _alive(folder, found)
        if record is None:
            path.unlink(missing_ok=True)
            return [] if found is None else _undone(found)
        record["holders"] = [each for each in record["holders"] if each["vm"] != vm]
        return _settle(path, record)


def _prepared(
    path: Path, record: dict[str, Any], paths: int, announce: Sequence[str], port: int
) -> list[str]:
    _write(path, record)
    done = []
    if _SWITCH.read_text().strip() != "1":
        _SWITCH.write_text("1")
        done.append("sysctl -w net.mptcp.enabled=1")
    subflows, accepted = _limits()
    if subflows < paths or accepted < paths:
        done.append(_set_limits(max(subflows, paths), max(accepted, paths)))
    known = {each["address"] for each in _endpoints()}
    for address in announce:
        if address not in known:
            record["added"].append(address)
            _write(path, record)
            done.append(_ip("endpoint", "add", address, "port", str(port), "signal"))
    return done


def _settle(path: Path, record: dict[str, Any]) -> list[str]:
    """Keep what somebody still holds; take back what nobody does."""
    if record["holders"]:
        _write(path, record)
        return []
    done = _undone(record)
    path.unlink(missing_ok=True)
    return done


def _undone(record: dict[str, Any]) -> list[str]:
    if record.get("boot") != _boot():
        return []  # a boot forgets all of it
    done: list[str] = []
    before = record["before"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        ours = [each["id"] for each in _endpoints() if each["address"] in record["added"]]
        done.extend(_ip("endpoint", "delete", "id", str(each)) for each in ours)
        if _limits() != (before["subflows"], before["accepted"]):
            done.append(_set_limits(before["subflows"], before["accepted"]))
        if before["enabled"] != "1":
            _SWITCH.write_text(before["enabled"])
            done.append(f"sysctl -w net.mptcp.enabled={before['enabled']}")
    return done


def _alive(folder: str, record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a record with those who still hold it; None where nobody does."""
    if record is None or record.get("boot") != _boot():
        return None
    holders = [
        each
        for each in record["holders"]
        if _started(each["pid"]) == each["start"] or _marked(folder, each["vm"])
    ]
    return {**record, "holders": holders} if holders else None


def _marked(folder: str, vm: str) -> bool:
    return "/" not in vm and Path(folder, "moves", f"{vm}.json").exists()


def _before() -> dict[str, Any]:
    subflows, accepted = _limits()
    enabled = _SWITCH.read_text().strip()
    return {"enabled": enabled, "subflows": subflows, "accepted": accepted}


def _limits() -> tuple[int, int]:
    words = _told("limits", "show").split()
    return (
        int(words[words.index("subflows") + 1]),
        int(words[words.index("add_addr_accepted") + 1]),
    )


def _set_limits(subflows: int, accepted: int) -> str:
    return _ip("limits", "set", "subflow", str(subflows), "add_addr_accepted", str(accepted))


def _endpoints() -> list[dict[str, Any]]:
    found = json.loads(_told("endpoint", "show", options=("-j",)) or "[]")
    return [each for each in found if "address" in each]


def _ip(*words: str) -> str:
    _told(*words)
    return f"ip mptcp {' '.join(words)}"


def _told(*words: str, options: Sequence[str] = ()) -> str:
    return subprocess.run(
        ["ip", *options, "mptcp", *words],
        capture_output=True,
        timeout=10,
        check=True,
        text=True,
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_PATH}"},
    ).stdout


def _words(error: Exception) -> str:
    told = getattr(error, "stderr", "") or ""
    return str(told).strip().rpartition("\n")[2] or str(error)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[19]


@contextlib.contextmanager
def _held(folder: str) -> Iterator[Path]:
    """Hold the record alone."""
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(Path(folder, "mptcp.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(folder, "mptcp.json")
    finally:
        os.close(lock)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, record: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


QUESTIONS = {
    "mptcp_facts": mptcp_facts,
    "mptcp_prepare": mptcp_prepare,
    "mptcp_release": mptcp_release,
}

"""This process as a holder of moves, and whether another one on this machine still lives."""

import getpass
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

from whimbrel.model.holder import Holder

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def myself(since: float | None = None) -> Holder:
    """Return this process; `since` is now where None."""
    pid = os.getpid()
    return Holder(
        user=_user(),
        host=socket.gethostname(),
        pid=pid,
        start=_started(pid) or 0,
        boot=_boot(),
        since=time.time() if since is None else since,
    )


def lives(holder: Holder) -> bool | None:
    """Tell whether a holder still lives; None when that cannot be told from this machine."""
    if holder.boot == _boot():
        return _started(holder.pid) == holder.start
    # Another boot of this machine has ended for sure; another machine's has not.
    return False if holder.host == socket.gethostname() else None


def same_process(one: Holder, other: Holder) -> bool:
    """Tell whether two holders are one process."""
    return (one.boot, one.pid, one.start) == (other.boot, other.pid, other.start)


def of_process(pid: int) -> Holder:
    """Return another process of this machine as a holder, as of now."""
    return replace(myself(), pid=pid, start=_started(pid) or 0)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a process of a user without an entry in the password file
        return str(os.getuid())


def _boot() -> str:
    return _BOOT.read_text().strip()


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])

"""Connections of another process on this host: cut from outside, when it cannot do so itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from pathlib import Path

_PIDFD_GETFD = 438  # the same number on every architecture but alpha
_LOCAL, _REMOTE, _STATE, _INODE = 1, 2, 3, 9  # columns of /proc/net/tcp, proc(5)
_LISTENS = "0A"


def cut_connections(pid: int, port: int) -> int:
    """Shut every TCP connection of a process that has a port at either end; return how many.

    It goes on to listen where it listens, and sees the others end. Needs the right to trace it:
    root, or its parent.
    """
    wanted = {f"socket:[{inode}]" for inode in _inodes(pid, port)}
    found = [int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir() if _link(fd) in wanted]
    handle = os.pidfd_open(pid)
    try:
        for number in found:
            _shut(handle, number)
    finally:
        os.close(handle)
    return len(found)


def _inodes(pid: int, port: int) -> set[str]:
    inodes = set()
    for family in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
                words = line.split()
                ports = {int(words[end].rpartition(":")[2], 16) for end in (_LOCAL, _REMOTE)}
                if port in ports and words[_STATE] != _LISTENS:
                    inodes.add(words[_INODE])
    return inodes


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def _shut(handle: int, number: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    taken = library.syscall(_PIDFD_GETFD, handle, number, 0)
    if taken < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot reach the connection: {os.strerror(error)}")
    with socket.socket(fileno=taken) as connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # an error says that it is shut already


QUESTIONS = {"cut_connections": cut_connections}

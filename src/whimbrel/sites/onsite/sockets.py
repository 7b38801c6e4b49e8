"""Connections of another process on this host: cut from outside, or given less patience.

QEMU does neither by itself: on a connection whose far end is gone it waits as long as TCP
tries, a quarter of an hour (tcp(7), tcp_retries2), and its guest may stand still meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIDFD_GETFD = 438  # the same number on every architecture but alpha
_LOCAL, _REMOTE, _STATE, _INODE = 1, 2, 3, 9  # columns of /proc/net/tcp, proc(5)
_LISTENS = "0A"
_USER_TIMEOUT = 18  # TCP_USER_TIMEOUT, linux/tcp.h


def cut_connections(pid: int, port: int) -> int:
    """Shut every TCP connection of a process that has a port at either end; return how many.

    It goes on to listen where it listens, and sees the others end. Needs the right to trace it:
    root, or its parent.
    """
    return _each(pid, port, _shut)


def limit_silence(pid: int, port: int, seconds: float) -> int:
    """Let every such connection end that stays without an answer for so long; return how many.

    Connections that it makes later are not among them. Needs the same right.
    """

    def limit(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, round(seconds * 1000))

    return _each(pid, port, limit)


def _each(pid: int, port: int, work: Callable[[socket.socket], None]) -> int:
    """Do something to each connection of a process that has a port at either end."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(pid, port)}
    found = [int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir() if _link(fd) in wanted]
    handle = os.pidfd_open(pid)
    try:
        for number in found:
            with socket.socket(fileno=_taken(handle, number)) as connection:
                work(connection)
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


def _taken(handle: int, number: int) -> int:
    """Return a descriptor of our own for one of another process."""
    library = ctypes.CDLL(None, use_errno=True)
    taken = int(library.syscall(_PIDFD_GETFD, handle, number, 0))
    if taken < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot reach the connection: {os.strerror(error)}")
    return taken


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # an error says that it is shut already
        connection.shutdown(socket.SHUT_RDWR)


QUESTIONS = {"cut_connections": cut_connections, "limit_silence": limit_silence}

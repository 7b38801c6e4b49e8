"""Connections of another process on this host: cut from outside, or given less patience.

QEMU does neither by itself: on a connection whose far end is gone it waits as long as TCP
tries, a quarter of an hour (tcp(7), tcp_retries2), and its guest may stand still meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIDFD_GETFD = 438  # the same number on every architecture but alpha
_LOCAL, _REMOTE, _STATE, _INODE = 1, 2, 3, 9  # columns of /proc/net/tcp, proc(5)
_LISTENS = "0A"
_USER_TIMEOUT = 18  # TCP_USER_TIMEOUT, linux/tcp.h


def cut_connections(pid: int, port: int) -> int:
    """Shut every TCP connection of a process that has a port at either end; return how many.

    It goes on to listen where it listens, and sees the others end. Needs the right to trace it:
    root, or its parent.
    """
    return _each(_inodes(pid, port), pid, _shut)


def limit_silence(pid: int, port: int, seconds: float, host: str = "") -> int:
    """Let every such connection end that stays without an answer for so long; return how many.

    Connections that it makes later are not among them. Needs the same right. Port 0, where it is
    not known: all connections to `host`.
    """

    def limit(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, round(seconds * 1000))

    return _each(_inodes(pid, port) if port else _inodes_to(pid, host), pid, limit)


def _each(inodes: set[str], pid: int, work: Callable[[socket.socket], None]) -> int:
    """Do something to each connection of a process that is one of these."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
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
    """Return the connections where a process is that have a port at either end."""
    return {
        words[_INODE]
        for words in _connections(pid)
        if port in {int(words[end].rpartition(":")[2], 16) for end in (_LOCAL, _REMOTE)}
    }


def _inodes_to(pid: int, host: str) -> set[str]:
    """Return those whose far end is on a host."""
    far = {ipaddress.ip_address(found[4][0]) for found in socket.getaddrinfo(host, None)}
    return {words[_INODE] for words in _connections(pid) if _address(words[_REMOTE]) in far}


def _connections(pid: int) -> Iterator[list[str]]:
    for family in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
                words = line.split()
                if words[_STATE] != _LISTENS:
                    yield words


def _address(end: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of an end as the kernel writes it: words of 32 bits, as they lie there."""
    raw = bytes.fromhex(end.rpartition(":")[0])
    if sys.byteorder == "little":
        raw = b"".join(raw[each : each + 4][::-1] for each in range(0, len(raw), 4))
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


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

"""What a preflight asks of a host's network: bridges, and the way between two hosts.

    destination  preflight_listen ──► a port, for one connection and at most some seconds
    source       preflight_connect ─► connects there and says a token
    destination  preflight_heard ───► whether that very token came

Nothing else changes, and nothing is left listening.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import hmac
import ipaddress
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

_GIFFLAGS, _GIFADDR, _GIFNETMASK, _GIFMTU = 0x8913, 0x8915, 0x891B, 0x8921
_GIFHWADDR, _GIFINDEX, _ETHTOOL = 0x8927, 0x8933, 0x8946
_GET_DRIVER = 3
_UP = 1
_NAME_LIMIT = 15
_FORWARD_ENTRY = 16
_GLOBAL = "00"

_listening: dict[str, _Listening] = {}


class _Listening:
    """A socket that waits for one connection with the right token."""

    def __init__(self, address: str, port: int, token: str, patience: float) -> None:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        self._token = token.encode()
        self._ends = time.monotonic() + patience
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            # As QEMU does: what is left of an earlier connection does not keep the port.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((address, port))
            self._socket.listen(1)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        self.heard = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        with self._socket, contextlib.suppress(OSError):
            while not self.heard.is_set():
                self._socket.settimeout(max(0.01, self._ends - time.monotonic()))
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1.0)
                    said = connection.recv(len(self._token), socket.MSG_WAITALL)
                    if hmac.compare_digest(said, self._token):
                        self.heard.set()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it
        self._thread.join(2.0)


def preflight_listen(address: str, port: int, token: str, patience: float = 10.0) -> dict[str, Any]:
    """Listen for the one who knows the token, at most so many seconds.

    Returns:
        The port (the one asked for, or a free one for 0), or an "error" (as errno calls it)
        with its "words".
    """
    try:
        _listening[token] = _Listening(address, port, token, patience)
    except OSError as error:
        return _refusal(error)
    return {"port": _listening[token].port}


def preflight_connect(address: str, port: int, token: str, patience: float = 2.0) -> dict[str, Any]:
    """Connect and say the token.

    Returns:
        The "seconds" that the connection took and the address it came "from"; or an "error".
    """
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=patience) as connection:
            seconds = time.monotonic() - began
            connection.sendall(token.encode())
            return {"seconds": seconds, "from": connection.getsockname()[0]}
    except OSError as error:
        return _refusal(error)


def preflight_heard(token: str, patience: float = 1.0) -> bool:
    """Tell whether the token came within some seconds, and listen no more."""
    waiting = _listening.pop(token, None)
    if waiting is None:
        return False
    heard = waiting.heard.wait(patience)
    waiting.close()
    return heard


def _refusal(error: OSError) -> dict[str, Any]:
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    if isinstance(error, (TimeoutError, socket.timeout)):
        name = "ETIMEDOUT"
    return {"error": name, "words": str(error)}


def preflight_bridges(names: list[str]) -> dict[str, Any]:
    """Return the facts of network interfaces by name; None for what there is none of."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return {name: _bridge(control.fileno(), name) for name in names}


def _bridge(control: int, name: str) -> dict[str, Any] | None:
    if not 0 < len(name) <= _NAME_LIMIT:
        return None
    try:
        index = struct.unpack_from("i", _ask(control, _GIFINDEX, name), 16)[0]
        flags = struct.unpack_from("h", _ask(control, _GIFFLAGS, name), 16)[0]
        mtu = struct.unpack_from("i", _ask(control, _GIFMTU, name), 16)[0]
        own = _ask(control, _GIFHWADDR, name)[18:24].hex(":")
    except OSError:
        return None
    return {
        "driver": _driver(control, name),
        "up": bool(flags & _UP),
        "mtu": mtu,
        "networks": _networks(control, name),
        "stations": sorted({own, *_neighbours(name), *_forwarded(name, index)}),
    }


def _ask(control: int, request: int, name: str) -> bytes:
    return fcntl.ioctl(control, request, struct.pack("16s24x", name.encode()))


def _driver(control: int, name: str) -> str:
    with contextlib.suppress(OSError):
        asked = array.array("B", struct.pack("I192x", _GET_DRIVER))
        fcntl.ioctl(control, _ETHTOOL, struct.pack("16sP", name.encode(), asked.buffer_info()[0]))
        return asked.tobytes()[4:36].rstrip(b"\0").decode(errors="replace")
    return ""


def _networks(control: int, name: str) -> list[str]:
    """Return the networks of an interface's addresses, without link-local ones."""
    found = []
    with contextlib.suppress(OSError):
        address = socket.inet_ntoa(_ask(control, _GIFADDR, name)[20:24])
        mask = socket.inet_ntoa(_ask(control, _GIFNETMASK, name)[20:24])
        found.append(str(ipaddress.ip_network(f"{address}/{mask}", strict=False)))
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, _, length, scope, _, interface = line.split()
            if interface == name and scope == _GLOBAL:
                network = ipaddress.ip_network((bytes.fromhex(digits), int(length, 16)), False)
                found.append(str(network))
    return found


def _neighbours(name: str) -> list[str]:
    """Return the hardware addresses that this host has spoken to over an interface."""
    rows = [line.split() for line in Path("/proc/net/arp").read_text().splitlines()[1:]]
    return [row[3] for row in rows if row[-1] == name and row[3] != "00:00:00:00:00:00"]


def _forwarded(name: str, index: int) -> list[str]:
    """Return the hardware addresses that a bridge has seen."""
    place = Path("/sys/class/net", name)
    with contextlib.suppress(OSError, ValueError):
        # /sys may show another network namespace than this program's own.
        if int((place / "ifindex").read_text()) == index:
            table = (place / "brforward").read_bytes()
            starts = range(0, len(table) - _FORWARD_ENTRY + 1, _FORWARD_ENTRY)
            return [table[start : start + 6].hex(":") for start in starts]
    return []


QUESTIONS = {
    "preflight_listen": preflight_listen,
    "preflight_connect": preflight_connect,
    "preflight_heard": preflight_heard,
    "preflight_bridges": preflight_bridges,
}

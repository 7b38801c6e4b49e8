"""What a host is and has: who it is, its cores and memory, QEMU, and its network interfaces.

Bytes and seconds throughout. Interfaces are those of this program's own network namespace, as
the kernel's rtnetlink(7) tells them: /sys/class/net may show another one.
"""

from __future__ import annotations

import array
import fcntl
import os
import platform
import re
import resource
import shutil
import socket
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/libexec"
_KVM_VERSION, _KVM_API = 0xAE00, 12  # KVM_GET_API_VERSION, linux/kvm.h

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_GET_LINK, _GET_ADDRESS, _DONE, _ERROR = 18, 22, 3, 2
_HEADER, _ATTRIBUTE_HEADER = 16, 4  # bytes
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NAME, _MTU, _MASTER, _OPERSTATE, _LINK_INFO, _MAC, _KIND = 3, 4, 10, 16, 18, 1, 1
_ADDRESS, _LOCAL = 1, 2
_STATES = ("unknown", "not present", "down", "lower layer down", "testing", "dormant", "up")

_ETHTOOL, _GET_SETTINGS = 0x8946, 1  # SIOCETHTOOL, ETHTOOL_GSET
_NO_SPEED = {0, 0xFFFF, 0xFFFF_FFFF}
"""What drivers say that do not know."""


def facts(qemu: str = "qemu-system-x86_64") -> dict[str, Any]:
    """Return what a move or its preflight may want to know of this host.

    Args:
        qemu: Name or path of the QEMU binary to look for.
    """
    memory = sizes(Path("/proc/meminfo").read_text())
    found = interfaces()
    return {
        "hostname": socket.gethostname(),
        "machine_id": _line("/etc/machine-id"),
        "boot_id": _line("/proc/sys/kernel/random/boot_id"),
        "network": Path("/proc/self/ns/net").stat().st_ino,
        "clock": time.time(),
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "python": platform.python_version(),
        "uid": os.getuid(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory.get("MemTotal", 0),
        "spare_memory": memory.get("MemAvailable", 0),
        "huge_pages": {
            "size": memory.get("Hugepagesize", 0),
            "total": memory.get("HugePages_Total", 0),
            "free": memory.get("HugePages_Free", 0),
        },
        "nodes": nodes(),
        "qemu": _qemu(qemu),
        "kvm": _kvm(),
        "interfaces": found,
        "bridges": sorted(name for name, one in found.items() if one["kind"] == "bridge"),
        "mptcp": _line("/proc/sys/net/mptcp/enabled") == "1",
        "rdma": _names("/sys/class/infiniband"),
        "memlock": _limit(resource.RLIMIT_MEMLOCK),
    }


def nodes() -> list[dict[str, Any]]:
    """Return each NUMA node's number, online cores, and memory in all and free."""
    found = []
    for folder in Path("/sys/devices/system/node").glob("node[0-9]*"):
        figures = sizes((folder / "meminfo").read_text())
        found.append(
            {
                "node": int(folder.name[4:]),
                "cores": listed((folder / "cpulist").read_text().strip()),
                "memory": figures.get("MemTotal", 0),
                "free": figures.get("MemFree", 0),
            }
        )
    return sorted(found, key=lambda node: int(node["node"]))


def interfaces() -> dict[str, dict[str, Any]]:
    """Return this network's interfaces but loopback, by name.

    Each with index, state ("up" is in use), mtu, mac, kind ("veth", "bridge", "bond"; empty
    for hardware), master (the bridge or bond it is in; None), addresses with their prefix
    lengths ("10.0.0.1/24"), rate (bytes per second it says it carries; None: it says nothing),
    and the bytes it has received and sent.
    """
    carried = counted(Path("/proc/thread-self/net/dev").read_text())
    found: dict[str, dict[str, Any]] = {}
    names = {}
    for index, told in _links():
        name = told[_NAME].rstrip(b"\0").decode()
        names[index] = name
        kind = dict(_attributes(told.get(_LINK_INFO, b""))).get(_KIND, b"")
        received, sent = carried.get(name, (0, 0))
        found[name] = {
            "index": index,
            "state": _STATES[told[_OPERSTATE][0]] if _OPERSTATE in told else "unknown",
            "mtu": _number(told.get(_MTU)),
            "mac": told.get(_MAC, b"").hex(":"),
            "kind": kind.rstrip(b"\0").decode(),
            "master": _number(told.get(_MASTER)),
            "addresses": [],
            "rate": rate(name),
            "received": received,
            "sent": sent,
        }
    for one in found.values():
        one["master"] = names.get(one["master"])
    for index, address in _addresses():
        found[names[index]]["addresses"].append(address)
    found.pop("lo", None)
    return found


def counted(text: str) -> dict[str, tuple[int, int]]:
    """Read /proc/net/dev as the bytes (received, sent) of each interface."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        fields = figures.split()
        found[name.strip()] = (int(fields[0]), int(fields[8]))
    return found


def sizes(text: str) -> dict[str, int]:
    """Read lines such as "Node 0 MemFree: 12 kB" as bytes, those without a unit as they stand."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words:
            found[name.split()[-1]] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found


def listed(text: str) -> list[int]:
    """Read a kernel list such as "0-3,8"."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def rate(interface: str) -> float | None:
    """Return the bytes per second that an interface says it carries; None: it says nothing."""
    command = array.array("B", _GET_SETTINGS.to_bytes(4, "little") + bytes(40))
    request = struct.pack("16sP", interface.encode(), command.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _ETHTOOL, request)
    except OSError:
        return None
    # ethtool_cmd's speed and speed_hi, linux/ethtool.h
    low, high = (struct.unpack_from("=H", command, place)[0] for place in (12, 28))
    speed = int(low | high << 16)
    return None if speed in _NO_SPEED else speed * 125_000.0


def _links() -> Iterator[tuple[int, dict[int, bytes]]]:
    for message in _dump(_GET_LINK):
        (index,) = struct.unpack_from("=i", message, 4)  # struct ifinfomsg
        yield index, dict(_attributes(message[16:]))


def _addresses() -> Iterator[tuple[int, str]]:
    for message in _dump(_GET_ADDRESS):
        family, prefix, _, _, index = struct.unpack_from("=BBBBi", message)  # struct ifaddrmsg
        told = dict(_attributes(message[8:]))
        raw = told.get(_LOCAL, told.get(_ADDRESS))
        if raw is not None and family in {socket.AF_INET, socket.AF_INET6}:
            yield index, f"{socket.inet_ntop(family, raw)}/{prefix}"


def _dump(question: int) -> Iterator[bytes]:
    """Ask the kernel for all of something; yield the bodies of its messages."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(10.0)
        kernel.sendall(struct.pack("=IHHII", 32, question, _DUMP, 1, 0) + bytes(16))
        while True:
            part = kernel.recv(1 << 20)
            while len(part) >= _HEADER:
                length, kind = struct.unpack_from("=IH", part)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", part, _HEADER)[0]
                    raise OSError(code, f"the kernel does not tell of its network: {code}")
                yield part[_HEADER:length]
                part = part[(length + 3) & ~3 :]


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    while len(content) >= _ATTRIBUTE_HEADER:
        length, kind = struct.unpack_from("=HH", content)
        if length < _ATTRIBUTE_HEADER:
            return
        yield kind & 0x3FFF, content[_ATTRIBUTE_HEADER:length]
        content = content[(length + 3) & ~3 :]


def _number(raw: bytes | None) -> int | None:
    return int(struct.unpack("=I", raw)[0]) if raw is not None else None


def _qemu(name: str) -> dict[str, str] | None:
    binary = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if binary is None:
        return None
    try:
        told = subprocess.run(
            [binary, "--version"], capture_output=True, timeout=20, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"version (\d+(?:\.\d+)+)", told.stdout)
    return {"binary": binary, "version": version[1]} if version else None


def _kvm() -> bool:
    """Tell whether /dev/kvm opens and answers; that it runs a guest is not said."""
    with suppress(OSError):
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        try:
            return fcntl.ioctl(device, _KVM_VERSION, 0) == _KVM_API
        finally:
            os.close(device)
    return False


def _line(path: str) -> str | None:
    with suppress(OSError):
        return Path(path).read_text().strip() or None
    return None


def _names(folder: str) -> list[str]:
    with suppress(OSError):
        return sorted(entry.name for entry in Path(folder).iterdir())
    return []


def _limit(which: int) -> int | None:
    soft = resource.getrlimit(which)[0]
    return None if soft == resource.RLIM_INFINITY else soft


QUESTIONS = {"facts": facts, "interfaces": interfaces}

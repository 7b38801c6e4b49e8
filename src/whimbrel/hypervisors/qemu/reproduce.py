"""A QEMU that somebody started by hand: whether another host can build the same, and how.

Its words are kept one by one. What names a place that belongs to one process (a UNIX socket, a
log) is put into the VM's folder at the destination; what cannot be had there a second time is a
reason against it. QEMU itself judges the rest when the destination is built, and the guest is
untouched if it refuses.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whimbrel.hypervisors.qemu.command_line import FOLDER_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_FLAGS = frozenset(
    {
        *("S", "snapshot", "nographic", "no-reboot", "no-shutdown", "enable-kvm", "daemonize"),
        *("nodefaults", "no-user-config", "nouserconfig", "usb", "full-screen", "s", "preconfig"),
        *("only-migratable", "no-fd-bootchk", "no-acpi", "no-hpet", "win2k-hack", "singlestep"),
        *("enable-fips", "no-quit", "help", "h", "version", "portrait", "old-param", "semihosting"),
    }
)
"""Options of QEMU that take no value."""

_DROPPED = frozenset({"S", "incoming", "daemonize", "pidfile", "loadvm"})
"""What tells how it was to begin, which is for whimbrel to say at the destination."""

_REFUSED = {
    "add-fd": "it was handed open files",
    "readconfig": "part of its description lies in a file (-readconfig)",
    "snapshot": "what it writes is thrown away at its end (-snapshot)",
    "preconfig": "it was built by QMP commands (-preconfig)",
    "runas": "it runs as another user (-runas)",
    "run-with": "it runs as another user or elsewhere (-run-with)",
    "chroot": "it sees another file system (-chroot)",
    "fsdev": "it shares a folder of its host (-fsdev)",
    "virtfs": "it shares a folder of its host (-virtfs)",
    "tpmdev": "the state of its TPM lies on its host (-tpmdev)",
}

_TIED = re.compile(
    r"vfio-|usb-host|usb-redir|vhost-user|vhost-vdpa|vhost-vsock|ivshmem|virtio-9p|scsi-generic"
)
_WIRED = frozenset({"socket", "stream", "dgram", "vde", "vhost-user", "vhost-vdpa", "l2tpv3"})
_TALKING = frozenset({"serial", "parallel", "monitor", "qmp", "qmp-pretty", "debugcon", "gdb"})
_FILES = frozenset({"kernel", "initrd", "dtb", "bios", "pflash", "mtdblock", "sd"})
_IMAGES = frozenset({"hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb"})
_UNIX = re.compile(r"^(?P<before>(?:mon:)?unix:)(?P<path>(?:[^,]|,,)*)(?P<after>.*)$")
_FILE = re.compile(r"^(?P<before>(?:mon:)?file:)(?P<path>.*)$")
_SERVER = re.compile(r",server(=on)?(,|$)")
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*:")


@dataclass(frozen=True)
class Reproduction:
    """How to build a VM again.

    Attributes:
        words: QEMU's command line, for `Vm.words`.
        reasons: What is in the way; with any, `words` will not do.
    """

    words: tuple[str, ...]
    reasons: tuple[str, ...]


def reproduce(words: Sequence[str], machine: str) -> Reproduction:
    """Judge a command line.

    Args:
        words: As the process shows them, its program first.
        machine: The versioned machine type that it turned out to be.
    """
    scribe = _Scribe(machine)
    program, *rest = words
    if "/" in program and not program.startswith("/"):
        scribe.refuse(f"its program {program} is a relative path")
    for option, value in options(rest):
        scribe.take(option, value)
    if not scribe.typed:
        scribe.words += ["-machine", machine]
    return Reproduction((program, *scribe.words), tuple(dict.fromkeys(scribe.reasons)))


def options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Split a command line into options and their values; a lone value is a disk's image."""
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("-") or word == "-":
            yield "hda", word
            continue
        option = word.removeprefix("-").removeprefix("-")
        takes = option not in _FLAGS and bool(remaining)
        yield option, remaining.pop(0) if takes else None


def named_devices(words: Sequence[str]) -> set[str]:
    """Return the ids of the devices that a command line plugs."""
    found = set()
    for option, value in options(words[1:]):
        if option == "device" and value:
            name = (
                json.loads(value).get("id") if value.startswith("{") else _fields(value).get("id")
            )
            found |= {str(name)} if name else set()
    return found


class _Scribe:
    """Writes the new command line, and down what is in the way."""

    def __init__(self, machine: str) -> None:
        self.words: list[str] = []
        self.reasons: list[str] = []
        self.typed = False
        self._machine = machine
        self._places = 0

    def refuse(self, reason: str) -> None:
        self.reasons.append(reason)

    def take(self, option: str, value: str | None) -> None:
        if option in _DROPPED:
            return
        if option in _REFUSED:
            self.refuse(_REFUSED[option])
            return
        self.words.append(f"-{option}")
        if value is None:
            return
        if value.startswith("{"):
            self._look_into(json.loads(value))
            self.words.append(value)
            return
        rewrite = self._ways().get(option, self._plain)
        self.words.append(rewrite(option, value))

    def _ways(self) -> dict[str, Callable[[str, str], str]]:
        ways: dict[str, Callable[[str, str], str]] = {
            "machine": self._typed,
            "M": self._typed,
            "chardev": self._chardev,
            "drive": self._drive,
            "blockdev": self._drive,
            "netdev": self._net,
            "nic": self._net,
            "device": self._device,
            "object": self._object,
            "D": lambda _, path: self._placed(path),
        }
        ways |= dict.fromkeys(_TALKING, self._talking)
        return ways | dict.fromkeys(_FILES | _IMAGES, self._file)

    def _plain(self, option: str, value: str) -> str:
        self._no_descriptors(option, value)
        return value

    def _typed(self, _: str, value: str) -> str:
        kind, comma, more = value.partition(",")
        if "=" in kind and not kind.startswith("type="):
            return value  # properties alone; the type stands elsewhere, or is QEMU's own choice
        self.typed = True
        return f"{self._machine}{comma}{more}"

    def _talking(self, option: str, value: str) -> str:
        if place := _UNIX.match(value):
            if not _SERVER.search(place["after"]):
                self.refuse(f"its {option} connects to somebody at {place['path']}")
            return f"{place['before']}{self._placed(place['path'])}{place['after']}"
        if place := _FILE.match(value):
            return f"{place['before']}{self._placed(place['path'])}"
        if value.removeprefix("mon:").startswith("pipe:"):
            self.refuse(f"its {option} is a pipe of its host")
        if value.startswith("/dev/"):
            self.refuse(f"its {option} is the device {value} of its host")
        return value

    def _chardev(self, _: str, value: str) -> str:
        backend = value.partition(",")[0]
        fields = _fields(value)
        name = fields.get("id", backend)
        self._no_descriptors("chardev", value)
        if backend in {"pipe", "serial", "parallel", "parport", "tty"}:
            self.refuse(f"its character device {name} is a {backend} of its host")
        if backend == "socket" and "path" in fields and fields.get("server", "off") != "on":
            self.refuse(f"its character device {name} connects to somebody at {fields['path']}")
        for key in ("path", "logfile"):
            if key in fields:
                self._no_relative(f"character device {name}", fields[key])
                value = _with(value, key, self._placed(fields[key]))
        return value

    def _drive(self, option: str, value: str) -> str:
        fields = _fields(value)
        self._no_descriptors(option, value)
        for key in ("file", "filename", "file.filename"):
            if key in fields:
                self._no_relative("disk", fields[key])
        return value

    def _file(self, option: str, value: str) -> str:
        self._no_relative(option, value)
        return value

    def _net(self, option: str, value: str) -> str:
        kind = value.partition(",")[0]
        fields = _fields(value)
        self._no_descriptors(option, value)
        name = fields.get("id", kind)
        if kind in _WIRED:
            self.refuse(f"its network {name} is wired to another program of its host")
        if kind == "tap" and fields.get("script") == "no":
            self.refuse(f"the tap of its network {name} was made by hand")
        return value

    def _device(self, _: str, value: str) -> str:
        self._no_tied(value)
        return value

    def _object(self, option: str, value: str) -> str:
        fields = _fields(value)
        self._no_descriptors(option, value)
        if value.startswith("secret") and "data" in fields:
            self.refuse("a secret stands in its command line")
        for key in ("mem-path", "file", "dir"):
            if key in fields:
                self._no_relative(f"object {fields.get('id', '')}".strip(), fields[key])
        return value

    def _look_into(self, value: Any, key: str = "") -> None:
        """Go through what was said in JSON."""
        if isinstance(value, dict):
            for inner, each in value.items():
                self._look_into(each, inner)
        elif isinstance(value, list):
            for each in value:
                self._look_into(each, key)
        elif key == "fd":
            self.refuse("it was handed open files")
        elif key == "filename":
            self._no_relative("disk", str(value))
        elif key == "driver":
            self._no_tied(str(value))

    def _no_tied(self, value: str) -> None:
        if _TIED.match(value):
            self.refuse(f"its device {value.partition(',')[0]} belongs to its host")

    def _no_descriptors(self, option: str, value: str) -> None:
        fields = _fields(value)
        if {"fd", "fds", "vhostfd", "vhostfds"} & fields.keys() or "/dev/fdset/" in value:
            self.refuse(f"its -{option} was handed open files")

    def _no_relative(self, what: str, path: str) -> None:
        if not path.startswith("/") and not _ADDRESS.match(path):
            self.refuse(f"its {what} has the relative path {path}")

    def _placed(self, path: str) -> str:
        self._places += 1
        return f"{FOLDER_MARK}/own{self._places}-{path.rpartition('/')[2]}"


def _fields(value: str) -> dict[str, str]:
    """Read key=value,… with ",," for a comma; "server" alone is server=on."""
    found = {}
    for part in re.split(r"(?<!,),(?!,)", value):
        key, equals, text = part.partition("=")
        found[key] = text.replace(",,", ",") if equals else "on"
    return found


def _with(value: str, key: str, text: str) -> str:
    return re.sub(rf"(^|,){key}=(?:[^,]|,,)*", lambda found: f"{found[1]}{key}={text}", value)

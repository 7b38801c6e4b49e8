"""Where an image lies: libvirt's <source> on one side, a path or an address on the other.

    file, block      ◄──► /srv/vms/root.raw, /dev/vg/root
    network          ◄──► nfs://server/export/root.raw, iscsi://server/iqn.2026-01.org.example:db/1
    volume           ───► whichever of these the pool has (`found`): its pool alone knows

A folder shown as a disk (vvfat) and an NVMe device of the host are no places: nothing can be
copied to or from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PORTS = {"iscsi": "3260"}
"""The port of each protocol, which libvirt writes down and people leave out."""

_WRITTEN = re.compile(r"(nfs|iscsi)://(?:([^/@?]*)@)?(\[[^]/]+\]|[^/:?@]+)(?::(\d+))?/([^?]+)")
_UNIT = re.compile(r"unit:\d+:\d+:(\d+)")
_ISCSI = {"iscsi", "iscsi-direct"}


@dataclass(frozen=True)
class Volume:
    """A volume as a disk names it.

    Attributes:
        pool: The pool's name.
        name: Its name within the pool.
    """

    pool: str
    name: str


@dataclass(frozen=True)
class VolumeSeen:
    """What a host's libvirt says of a volume.

    Attributes:
        active: Whether its pool is active.
        kind: The pool's type ("dir", "netfs", "iscsi" …).
        path: Where the volume lies; empty: the pool has no such volume.
        block: Whether it is a device, and no file.
        server: Where an iSCSI pool is served, and its target: host, port, name; else empty.
    """

    active: bool
    kind: str = "dir"
    path: str = ""
    block: bool = False
    server: tuple[str, str, str] = ("", "", "")


def place_of(made: Tree.Element) -> str:
    """Return where a disk, a copy, or what one rests on has its image; empty: nowhere."""
    source = made.find("source")
    if source is None:
        return ""
    if made.get("type") == "network":
        return _address(source)
    if made.get("type") == "volume":
        return f"volume://{source.get('pool', '')}/{source.get('volume', '')}"
    return source.get("file") or source.get("dev") or ""


def put(made: Tree.Element, place: str) -> None:
    """Let an image lie at a path or an address.

    Raises:
        Unsupported: It is an address that libvirt cannot be told of.
    """
    for old in made.findall("source"):
        made.remove(old)
    if place.startswith("/"):
        block = place.startswith("/dev/")
        made.set("type", "block" if block else "file")
        Tree.SubElement(made, "source", {"dev" if block else "file": place})
        return
    written = _WRITTEN.fullmatch(place)
    if written is None or written[2] is not None:
        raise Unsupported(
            f"libvirt cannot be told of {place}.",
            "Give a path, nfs://SERVER/FILE or iscsi://SERVER/TARGET/UNIT; a user or password "
            "is no part of it.",
        )
    protocol, host, port, name = (written[group] for group in (1, 3, 4, 5))
    if protocol == "nfs" and port:
        raise Unsupported(f"libvirt cannot be told of the port in {place}.", "Leave it out.")
    name = f"/{name}" if protocol == "nfs" else name
    _serve(made, protocol, (host.strip("[]"), port or "", name))


def volumes_of(root: Tree.Element) -> Iterator[tuple[Tree.Element, Volume]]:
    """Yield each disk that is a volume of a pool."""
    for made in root.findall("devices/disk[@type='volume']"):
        source = made.find("source")
        if source is not None:
            yield made, Volume(source.get("pool", ""), source.get("volume", ""))


def found(root: Tree.Element, seen: Mapping[Volume, VolumeSeen]) -> None:
    """Let each disk that is a volume be the file, device or unit behind it, where that is seen."""
    for made, volume in list(volumes_of(root)):
        known = seen.get(volume)
        if known is None or not known.path:
            continue
        source = made.find("source")
        direct = known.kind == "iscsi-direct" or (
            source is not None and source.get("mode") == "direct"
        )
        unit = _UNIT.fullmatch(volume.name)
        for old in made.findall("source"):
            made.remove(old)
        if direct and known.kind in _ISCSI and unit is not None:
            host, port, target = known.server
            _serve(made, "iscsi", (host, port, f"{target}/{unit[1]}"))
        else:
            made.set("type", "block" if known.block else "file")
            Tree.SubElement(made, "source", {"dev" if known.block else "file": known.path})


def _address(source: Tree.Element) -> str:
    """Return an address that QEMU opens by itself, as people write it."""
    protocol, host = source.get("protocol", ""), source.find("host")
    name, port = ("", "") if host is None else (host.get("name", ""), host.get("port", ""))
    at = f"[{name}]" if ":" in name else name
    if port and port != PORTS.get(protocol):
        at += f":{port}"
    return f"{protocol}://{at}/{source.get('name', '').lstrip('/')}"


def _serve(made: Tree.Element, protocol: str, server: tuple[str, str, str]) -> None:
    host, port, name = server
    made.set("type", "network")
    source = Tree.SubElement(made, "source", protocol=protocol, name=name)
    Tree.SubElement(source, "host", {"name": host} | ({"port": port} if port else {}))

"""Disks as QEMU's words: what opens the file, what reads its format, what the guest sees.

    vda-file   the protocol: a file, a block device, or a share that QEMU opens itself
    vda        the format on it: raw or qcow2
    disk-vda   the guest's device

Names follow the disk's, so that a disk is found again in any QEMU that whimbrel built. An
incoming QEMU opens its images inactive: it writes nothing, and takes no lock that the source's
would contradict, until the guest runs there (block.c, BDRV_O_INACTIVE).
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Disk

FORMATS = ("raw", "qcow2")

_CACHES: dict[str, tuple[bool, bool, bool]] = {
    # O_DIRECT, flushes ignored, the guest's write cache (qemu-system(1), cache=)
    "none": (True, False, True),
    "directsync": (True, False, False),
    "writeback": (False, False, True),
    "writethrough": (False, False, False),
    "unsafe": (False, True, True),
}

ISCSI_PORT = 3260


def format_node(disk: Disk) -> str:
    """Return the name of the block node that the guest's device reads."""
    return disk.name


def file_node(disk: Disk) -> str:
    """Return the name of the block node that holds the image's bytes."""
    return f"{disk.name}-file"


def disk_device(disk: Disk) -> str:
    """Return the id of the guest's device (in /machine/peripheral)."""
    return f"disk-{disk.name}"


def disk_words(disk: Disk, place: int) -> list[str]:
    """Return the words that plug a disk; `place` is its place in the order of booting, from 1.

    Raises:
        ConfigError: Its path, format or cache mode means nothing to QEMU.
    """
    words: list[str] = []
    for options in block_nodes(disk):
        words += ["-blockdev", json.dumps(options)]
    cached = "on" if _CACHES[disk.cache][2] else "off"
    device = f"virtio-blk-pci,id={disk_device(disk)},drive={format_node(disk)}"
    return [*words, "-device", f"{device},bootindex={place},write-cache={cached}"]


def block_nodes(disk: Disk) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the disk's two block nodes as blockdev-add takes them, the file's first.

    Raises:
        ConfigError: Its path, format or cache mode means nothing to QEMU.
    """
    if disk.format not in FORMATS:
        raise ConfigError(f'Disk {disk.name} has the format "{disk.format}".', "Use raw or qcow2.")
    if disk.cache not in _CACHES:
        raise ConfigError(
            f'Disk {disk.name} has the cache mode "{disk.cache}".',
            f"Use one of {', '.join(_CACHES)}.",
        )
    direct, careless, _ = _CACHES[disk.cache]
    shared = {
        "cache": {"direct": direct, "no-flush": careless},
        "read-only": disk.read_only,
        # A node that turned read-only by itself would refuse the guest's first write.
        "auto-read-only": False,
        "discard": "unmap",
    }
    file = protocol_options(disk) | shared
    return (
        {**file, "node-name": file_node(disk)},
        {
            "driver": disk.format,
            "node-name": format_node(disk),
            "file": file_node(disk),
            **shared,
        },
    )


def protocol_options(disk: Disk) -> dict[str, Any]:
    """Return what opens the disk's path: QEMU's driver and where it looks.

    Raises:
        ConfigError: The path is neither absolute nor an address that QEMU opens.
    """
    path = disk.path
    if path.startswith("/dev/") and not path.startswith("/dev/shm/"):  # noqa: S108 - only compared
        return {"driver": "host_device", "filename": path}
    if path.startswith("/"):
        return {"driver": "file", "filename": path}
    place = urlsplit(path)
    ways = {"nfs": _nfs, "iscsi": _iscsi}
    if place.scheme not in ways or not place.hostname:
        raise ConfigError(
            f'Disk {disk.name} lies at "{path}", which is no place that QEMU opens.',
            "Give an absolute path, nfs://server/export/file or iscsi://server/name/lun.",
        )
    if place.username is not None or place.password is not None:
        raise ConfigError(
            f"Disk {disk.name} has a user or a password in its address.",
            "Every user of the host could read it there; let the server trust the hosts instead.",
        )
    return ways[place.scheme](disk, place)


def _nfs(_: Disk, place: SplitResult) -> dict[str, Any]:
    found: dict[str, Any] = {
        "driver": "nfs",
        "server": {"type": "inet", "host": place.hostname},
        "path": unquote(place.path),
    }
    asked = parse_qs(place.query)
    return found | _numbers(asked, {"uid": "user", "gid": "group"})


def _numbers(asked: Mapping[str, list[str]], names: Mapping[str, str]) -> dict[str, int]:
    unknown = sorted(asked.keys() - names.keys())
    if unknown:
        raise ConfigError(f"An nfs:// address takes no {unknown[0]}.", "It takes uid and gid.")
    try:
        return {names[name]: int(values[-1]) for name, values in asked.items()}
    except ValueError as error:
        raise ConfigError("uid and gid of an nfs:// address are numbers.") from error


def _iscsi(disk: Disk, place: SplitResult) -> dict[str, Any]:
    name, _, unit = unquote(place.path).strip("/").rpartition("/")
    if not name or not unit.isdigit():
        raise ConfigError(
            f"Disk {disk.name}: {disk.path} has no name and unit.",
            "Write iscsi://server/iqn.2026-01.example:store/1.",
        )
    host = f"[{place.hostname}]" if ":" in (place.hostname or "") else place.hostname
    portal = f"{host}:{place.port or ISCSI_PORT}"
    return {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": portal,
        # QEMU's word for an iSCSI storage's name.
        "target": name,
        "lun": int(unit),
    }

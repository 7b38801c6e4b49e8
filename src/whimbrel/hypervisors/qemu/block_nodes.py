"""Block nodes: how QEMU is told to open a disk's image, for -blockdev and blockdev-add alike.

Source: qapi/block-core.json of QEMU 10.0. A node is named after its disk; the file beneath has
no name of its own.
"""

import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Disk

ISCSI_PORT = 3260
_DIRECT = frozenset({"none", "directsync"})
_CACHES = frozenset({"none", "directsync", "writeback", "writethrough", "unsafe"})
_PASSWORD = re.compile(r"^[^/]+//[^/@]*[%:][^/@]*@")


def disk_node(disk: Disk) -> dict[str, Any]:
    """Return the block node of a VM's disk; unused blocks go back to where they came from."""
    return image_node(disk.name, disk.path, disk.format, cache=disk.cache, read_only=disk.read_only)


def image_node(
    name: str, path: str, image_format: str, *, cache: str = "none", read_only: bool = False
) -> dict[str, Any]:
    """Return a block node over the image at `path`.

    Args:
        name: The node's name, plain and shorter than 32 characters.
        path: An absolute path, a device, or an address (nfs://, iscsi://).
        image_format: "raw" or "qcow2".
        cache: QEMU's cache mode.
        read_only: Whether nothing may be written to it.

    Raises:
        ConfigError: The path or the cache mode is none that QEMU knows.
    """
    if cache not in _CACHES:
        raise ConfigError(
            f'Disk {name}: there is no cache mode "{cache}".', f"Use {', '.join(sorted(_CACHES))}."
        )
    common = {
        "cache": {"direct": cache in _DIRECT, "no-flush": cache == "unsafe"},
        "read-only": read_only,
        "discard": "unmap",
    }
    return {
        "driver": image_format,
        "node-name": name,
        **common,
        "file": {**file_layer(name, path), **common},
    }


def file_layer(name: str, path: str) -> dict[str, Any]:
    """Return the node that holds an image's bytes; `ConfigError` where the path is no place."""
    if path.startswith("/dev/"):
        return {"driver": "host_device", "filename": path}
    if path.startswith("/"):
        return {"driver": "file", "filename": path}
    scheme = urlsplit(path).scheme
    if _PASSWORD.match(path):
        raise ConfigError(
            f"Disk {name}: a password has no place in an address.",
            "Let the server admit the hosts by their addresses or initiator names.",
        )
    if scheme == "nfs":
        return _nfs(name, path)
    if scheme == "iscsi":
        return _iscsi(name, path)
    raise ConfigError(
        f'Disk {name}: "{path}" is neither an absolute path nor an address that QEMU opens.',
        "Use /path, /dev/device, nfs://host/export/path or iscsi://host/target/lun.",
    )


def _nfs(name: str, path: str) -> dict[str, Any]:
    place = urlsplit(path)
    if not place.hostname or len(place.path) < 2:  # noqa: PLR2004 - "/" alone is no file
        raise ConfigError(f'Disk {name}: "{path}" names no file.', "Use nfs://host/export/path.")
    layer: dict[str, Any] = {
        "driver": "nfs",
        "server": {"type": "inet", "host": place.hostname},
        "path": unquote(place.path),
    }
    given = parse_qs(place.query)
    for option, ours in (("uid", "user"), ("gid", "group")):
        if option in given:
            layer[ours] = int(given[option][0])
    return layer


def _iscsi(name: str, path: str) -> dict[str, Any]:
    place = urlsplit(path)
    words = place.path.strip("/").split("/")
    if not place.hostname or len(words) != 2 or not words[1].isdigit():  # noqa: PLR2004
        raise ConfigError(f'Disk {name}: "{path}" names no unit.', "Use iscsi://host/target/lun.")
    return {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{place.hostname}:{place.port or ISCSI_PORT}",
        "target": unquote(words[0]),
        "lun": int(words[1]),
    }

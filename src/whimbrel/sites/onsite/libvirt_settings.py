"""What a host's libvirt was told in its qemu.conf, as far as moves are concerned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

CONFIG, AUTHORITIES = "/etc/libvirt/qemu.conf", "/etc/pki"
DEVICES = "/sys/class/infiniband"

_LINE = re.compile(r"""^\s*([a-z0-9_]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|(-?\d+))\s*(?:\#.*)?$""")


def libvirt_settings(
    config: str = CONFIG, authorities: str = AUTHORITIES, devices: str = DEVICES
) -> dict[str, Any]:
    """Return what a move through this host's libvirt must respect.

    Returns:
        "first_port" and "last_port" of what its destinations may listen at (None: as libvirt
        comes, or its file cannot be read), "certificates" (the folder in which it looks for
        those of moves), "found" (names of the files there; None: that cannot be seen), "rdma"
        (whether there is an RDMA device).
    """
    told = _told(Path(config))
    folder = _certificates(told, Path(authorities))
    return {
        "first_port": _number(told, "migration_port_min"),
        "last_port": _number(told, "migration_port_max"),
        "certificates": str(folder),
        "found": _names(folder),
        "rdma": bool(_names(Path(devices))),
    }


def _told(config: Path) -> dict[str, str]:
    """Return its settings of one line each; lists, of which none matters here, are left out."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = (match for match in map(_LINE.match, lines) if match)
    return {match[1]: match[2] or match[3] or match[4] or "" for match in found}


def _certificates(told: dict[str, str], authorities: Path) -> Path:
    """Return the folder as libvirt chooses it (src/qemu/qemu_conf.c)."""
    if told.get("migrate_tls_x509_cert_dir"):
        return Path(told["migrate_tls_x509_cert_dir"])
    own = authorities / "libvirt-migrate"
    if own.exists():
        return own
    return Path(told.get("default_tls_x509_cert_dir") or authorities / "qemu")


def _number(told: dict[str, str], name: str) -> int | None:
    return int(told[name]) if told.get(name, "").isdigit() else None


def _names(folder: Path) -> list[str] | None:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError:
        return None


QUESTIONS = {"libvirt_settings": libvirt_settings}

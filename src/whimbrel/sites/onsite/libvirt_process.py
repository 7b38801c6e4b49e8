"""The QEMU process of a VM that libvirt runs, which libvirt itself names to nobody."""

from __future__ import annotations

from pathlib import Path

_STATE = "/run/libvirt/qemu"
"""Where libvirt's system daemon keeps the process ids of its VMs."""


def libvirt_pid(name: str, identity: str) -> int | None:
    """Return the process that holds the VM of a name and UUID; None where that cannot be seen."""
    try:
        pid = int(Path(_STATE, f"{name}.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if identity.encode() in words else None


QUESTIONS = {"libvirt_pid": libvirt_pid}

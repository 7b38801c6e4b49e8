"""Plain QEMU, reached over QMP."""

from whimbrel.hypervisors.qemu.host import QemuHost

__all__ = ["QemuHost"]

"""Plain QEMU, reached over QMP: in processes of whimbrel's own, or resident on hosts."""

from whimbrel.hypervisors.qemu.host import QemuHost
from whimbrel.hypervisors.qemu.resident import Resident, ResidentHost

__all__ = ["QemuHost", "Resident", "ResidentHost"]

"""Plain QEMU, reached over QMP: in processes of whimbrel's own, or resident on hosts."""

from whimbrel.hypervisors.qemu.host import QemuHost
from whimbrel.hypervisors.qemu.resident import ResidentHost
from whimbrel.hypervisors.qemu.resident_record import Resident

__all__ = ["QemuHost", "Resident", "ResidentHost"]

"""Hosts that libvirt runs, reached over libvirt's own remote transport."""

from whimbrel.hypervisors.libvirt.host import LibvirtHost
from whimbrel.hypervisors.libvirt.overview import host_seen

__all__ = ["LibvirtHost", "host_seen"]

"""Hosts that libvirt runs, reached over libvirt's own remote transport."""

from whimbrel.hypervisors.libvirt.host import LibvirtHost

__all__ = ["LibvirtHost"]

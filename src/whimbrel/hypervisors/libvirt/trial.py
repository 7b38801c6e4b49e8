"""A VM that never runs, by which libvirt is made to try an address."""

from xml.sax.saxutils import quoteattr


def trial_xml(name: str, address: str, port: int) -> str:
    """Return a VM that never runs, and whose one device listens at an address.

    It has ACPI: without it, an old libvirt (9.0) would give QEMU an option that QEMU 9 dropped.
    """
    place = f"mode='bind' host={quoteattr(address)} service='{port}'"
    return (
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>8</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64'>hvm</type></os><features><acpi/></features><devices>"
        f"<serial type='tcp'><source {place}/><protocol type='raw'/></serial>"
        "<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )

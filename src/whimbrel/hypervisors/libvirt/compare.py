"""Whether a host's libvirt and QEMU can give a guest the CPU that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.errors import CommandRefused, ProtocolError, Unsupported
from whimbrel.model.check import Check, failed, passed, warned

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.host import LibvirtHost
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine

NAME = "CPU"
_INCOMPATIBLE = 0  # virCPUCompareResult


async def cpu_check(machine: LibvirtMachine, there: LibvirtHost) -> Check:
    """Ask the destination's libvirt for the CPU of a guest, as it is now, features and all.

    Raises:
        HostError: The source or the destination cannot be asked.
    """
    xml = await (await machine.domain()).xml(movable=True)
    cpu, accelerator, kind = cpu_of(xml)
    if not cpu:
        return passed(NAME, f"{machine.vm.name} has the CPU that QEMU gives by default.")
    connection = await there.connection()
    try:
        answer = await connection.compare_cpu(cpu, accelerator, kind)
    except (CommandRefused, Unsupported) as error:
        remedy = "Compare by hand: virsh hypervisor-cpu-compare."
        return warned(NAME, f"{there.name} could not compare CPUs: {error.what}", remedy)
    if answer == _INCOMPATIBLE:
        return failed(
            NAME,
            f"{there.name} cannot give {machine.vm.name} the CPU that it has.",
            "Give the VM a CPU model that both hosts have, and start it again: "
            "virsh hypervisor-cpu-baseline.",
        )
    return passed(NAME, f"{there.name} has the CPU of {machine.vm.name}.")


def cpu_of(xml: str) -> tuple[str, str, str]:
    """Return a VM's CPU as XML (empty: none is named), its accelerator and machine type."""
    try:
        root = Tree.fromstring(xml)  # noqa: S314 - from the libvirt that we trust
    except Tree.ParseError as error:
        raise ProtocolError(f"libvirt's XML of a VM cannot be read: {error}") from error
    cpu, kind = root.find("cpu"), root.find("os/type")
    named = cpu is not None and cpu.find("model") is not None
    text = Tree.tostring(cpu, encoding="unicode") if cpu is not None and named else ""
    return text, root.get("type", "kvm"), "" if kind is None else kind.get("machine", "")

"""Hosts, VMs and settings as cells of a table and as JSON documents (docs/json.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from ipaddress import ip_address

from whimbrel.model.inventory import Capability, Host
from whimbrel.model.overview import HostSeen, VmSeen
from whimbrel.model.plain import plain
from whimbrel.model.units import format_link, format_size, format_time

HOSTS_SCHEMA = "whimbrel.hosts/1"
VMS_SCHEMA = "whimbrel.vms/1"

HOST_COLUMNS = ("Host", "QEMU", "Migration links", "Cores", "Free memory", "VMs")
VM_COLUMNS = ("VM", "Host", "State", "vCPUs", "Memory", "Up", "Disks")

_DAY, _HOUR = 86400, 3600
_INTERNAL = {"place", "socket", "started"}


def host_cells(seen: HostSeen, host: Host) -> tuple[str, ...]:
    """Return one host's row; an unreachable one has no figures."""
    if seen.unreachable:
        return (seen.name, "unreachable", _links(seen, host), "", "", "")
    free = f"{format_size(seen.free)} of {format_size(seen.memory)}"
    qemu = seen.qemu or "not installed"
    return (seen.name, qemu, _links(seen, host), str(seen.cores), free, str(len(seen.vms)))


def _links(seen: HostSeen, host: Host) -> str:
    texts = []
    for link in host.links:
        rate = "" if link.rate is None else f" {format_link(link.rate)}"
        known = link.address in seen.addresses or ip_address(link.address).is_loopback
        away = not (seen.unreachable or known)
        texts.append(f"{link.address}{rate}{' (not there)' if away else ''}")
    return ", ".join(texts) or "none"


def vm_cells(vm: VmSeen) -> tuple[str, ...]:
    """Return one VM's row."""
    state = f"{vm.state}, in a move" if vm.moving else vm.state.value
    return (
        vm.name,
        vm.host,
        f"{state}, by hand" if vm.by_hand else state,
        str(vm.vcpus or ""),
        format_size(vm.memory) if vm.memory else "",
        "" if vm.uptime is None else uptime_text(vm.uptime),
        ", ".join(vm.disks),
    )


def uptime_text(seconds: float) -> str:
    """Print for how long something has been up: "3 d 4 h", "2 h 5 min", "17 s"."""
    if seconds >= _DAY:
        return f"{int(seconds // _DAY)} d {int(seconds % _DAY // _HOUR)} h"
    if seconds >= _HOUR:
        return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // 60)} min"
    return format_time(float(int(seconds))) if seconds >= 1 else "0 s"


def capability_lines(lacking: Mapping[Capability, str]) -> list[str]:
    """Return what a host can do for a move, and why it cannot do the rest, for people."""
    present = ", ".join(each for each in Capability if each not in lacking)
    return [f"has {present or 'none'}", *(f"no {each}: {why}" for each, why in lacking.items())]


def host_document(
    seen: HostSeen, host: Host, lacking: Mapping[Capability, str] | None = None
) -> dict[str, object]:
    """Return one host as plain data: bytes, seconds, bytes per second."""
    told = {each.name: plain(getattr(seen, each.name)) for each in fields(seen)}
    told["vms"] = [vm_document(vm) for vm in seen.vms]
    told |= {"uri": host.uri, "links": plain(host.links)}
    if lacking is not None:
        told["capabilities"] = [each.value for each in Capability if each not in lacking]
        told["lacking"] = {each.value: why for each, why in lacking.items()}
    return told


def vm_document(vm: VmSeen) -> dict[str, object]:
    """Return one VM as plain data."""
    told = {each.name: plain(getattr(vm, each.name)) for each in fields(vm)}
    shown = {key: value for key, value in told.items() if key not in _INTERNAL}
    return {**shown, "by_hand": vm.by_hand}


def vms_document(hosts: Sequence[HostSeen]) -> dict[str, object]:
    """Return the document of `whimbrel vms --json`."""
    return {
        "schema": VMS_SCHEMA,
        "vms": [vm_document(vm) for host in hosts for vm in host.vms],
        "unreachable": {host.name: host.unreachable for host in hosts if host.unreachable},
    }

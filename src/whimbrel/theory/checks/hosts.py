"""Checks of two hosts: that they are two, and that the destination has room and a free name."""

from whimbrel.model.check import Check, failed, passed, warned
from whimbrel.model.inventory import Vm
from whimbrel.model.preflight import HostFacts, MemoryFacts
from whimbrel.model.units import MIB, format_size

OVERHEAD = 128 * MIB
"""Bytes that QEMU takes beside the guest's memory: its own code, device buffers, threads."""

OVERHEAD_SHARE = 1 / 256
"""And for each byte of the guest's: page tables (1/512), dirty bitmaps, and as much to spare."""

SCARCE = 0.05
"""Share of the guest's memory that should stay free at the destination beyond it."""

CLOCK_TOLERANCE = 0.5
"""Seconds by which two hosts' clocks may differ; a guest's clock may step by as much."""


def memory_needed(memory: int) -> int:
    """Return the bytes that a destination needs for a guest of so many bytes."""
    return memory + overhead(memory)


def overhead(memory: int) -> int:
    """Return the bytes that QEMU takes beside a guest's memory."""
    return OVERHEAD + int(memory * OVERHEAD_SHARE)


def different_hosts(source: HostFacts, destination: HostFacts) -> Check:
    """Fail where both names lead to one host: the guest would be moved onto itself."""
    name = "different hosts"
    same_kernel = source.boot_id == destination.boot_id
    if same_kernel and (source.network, source.folder) == (destination.network, destination.folder):
        return failed(
            name,
            f"{source.name} and {destination.name} are the same host with the same folder.",
            f"Give {destination.name} another address, or another folder, in whimbrel.toml.",
        )
    if same_kernel:
        return passed(name, "Two hosts on one machine: the kernel is the same, the place is not.")
    return passed(name, f"{source.name} and {destination.name} are two machines.")


def private_folder(destination: HostFacts, path: str) -> Check:
    """Fail where the VM's sockets would lie where others can reach them, or nowhere."""
    name = "folder"
    if not destination.folder_writable:
        return failed(
            name,
            f"User {destination.uid} may not write to {path} on {destination.name}.",
            f"install -d -m 700 -o {destination.uid} {path}   # on {destination.name}, as root",
        )
    if not destination.folder_private:
        return failed(
            name,
            f"Others than user {destination.uid} can look into {path} on {destination.name}.",
            f"chown {destination.uid} {path} && chmod 700 {path}   # on {destination.name}",
        )
    return passed(name, f"{path} on {destination.name} is private.")


def name_free(vm: Vm, destination: HostFacts) -> Check:
    """Fail where the destination holds a VM of that name already."""
    name = "name"
    for other in destination.vms:
        if other.name != vm.name:
            continue
        if other.pid is not None:
            return failed(
                name,
                f"{destination.name} holds a VM named {vm.name} already (pid {other.pid}).",
                f"whimbrel recover {vm.name}   # or end the other one: whimbrel down {vm.name}",
            )
        return warned(
            name,
            f"{destination.name} keeps the folder of an earlier VM named {vm.name}, now ended.",
            f"whimbrel recover {vm.name}",
        )
    return passed(name, f"No VM on {destination.name} is named {vm.name}.")


def other_moves(vm: Vm, source: HostFacts, destination: HostFacts, own: str = "") -> Check:
    """Fail where this VM is being moved, and warn of others that share hosts and links.

    The mark of the move `own` does not count: it is the one that asks.
    """
    name = "other moves"
    marked = {
        other: mark
        for host in (source, destination)
        for other, mark in host.marks.items()
        if not own or mark.move != own
    }
    if vm.name in marked:
        mark = marked[vm.name]
        return failed(
            name,
            f"{vm.name} is being moved already, from {mark.source} to {mark.destination}.",
            f"whimbrel watch {vm.name}   # if nobody moves it any more: whimbrel recover {vm.name}",
        )
    if marked:
        others = ", ".join(
            f"{other} (from {mark.source} to {mark.destination})"
            for other, mark in sorted(marked.items())
        )
        return warned(
            name,
            f"Others are being moved on these hosts, and share their links and cores: {others}.",
            f"whimbrel watch {min(marked)}   # and begin when it is over",
        )
    return passed(name, "Nothing else is being moved on these hosts.")


def clocks(source: HostFacts, destination: HostFacts) -> Check:
    """Warn where the guest's clock would step, since the hosts' clocks differ."""
    name = "clocks"
    apart = destination.clock_ahead - source.clock_ahead
    error = source.clock_error + destination.clock_error
    if abs(apart) <= CLOCK_TOLERANCE + error:
        return passed(name, f"Both clocks agree to {abs(apart) + error:.2f} s.")
    direction = "ahead of" if apart > 0 else "behind"
    return warned(
        name,
        f"{destination.name}'s clock is {abs(apart):.1f} s {direction} {source.name}'s; "
        "the guest's may step by as much.",
        "timedatectl set-ntp true   # on both hosts",
    )


def memory(vm: Vm, wanted: int, facts: MemoryFacts, destination: str) -> Check:
    """Fail where the destination has not so many bytes that nobody else reserved."""
    name = "memory"
    left = facts.free - facts.claimed - wanted
    need = f"{vm.name} needs {format_size(wanted)} on {destination}"
    if left < 0:
        claimed = (
            f", {format_size(facts.claimed)} of it reserved for {', '.join(facts.claimants)}"
            if facts.claimed
            else ""
        )
        return failed(
            name,
            f"{need}, where {format_size(facts.free)} are free{claimed}.",
            f"Free {format_size(-left)} there: whimbrel vms --on {destination}   "
            "# and end or move a VM",
        )
    if left < SCARCE * vm.memory:
        return warned(
            name,
            f"{need}; only {format_size(left)} will stay free.",
            f"whimbrel vms --on {destination}   # see what else could leave",
        )
    return passed(name, f"{need}; {format_size(left)} stay free beyond it.")


def huge_pages(vm: Vm, page: int, facts: MemoryFacts, destination: str) -> Check:
    """Fail where too few huge pages are free for a guest whose memory lies in such."""
    name = "huge pages"
    if page == 0:
        return passed(name, "The guest's memory does not lie in huge pages.")
    wanted = -(-vm.memory // page)
    free = max(0, facts.free - facts.claimed) // page
    if free >= wanted:
        return passed(name, f"{destination} has {free} free pages of {format_size(page)}.")
    path = f"/sys/kernel/mm/hugepages/hugepages-{page // 1024}kB/nr_hugepages"
    return failed(
        name,
        f"{vm.name} needs {wanted} pages of {format_size(page)}; {destination} has {free} free.",
        f"echo $(($(cat {path}) + {wanted - free})) > {path}   # on {destination}",
    )


def cores(vm: Vm, destination: HostFacts) -> Check:
    """Warn where the guest has more vCPUs than the destination has cores."""
    name = "cores"
    if vm.vcpus <= destination.cpus:
        return passed(name, f"{destination.name} has {destination.cpus} cores for {vm.vcpus}.")
    return warned(
        name,
        f"{vm.name} has {vm.vcpus} vCPUs, {destination.name} {destination.cpus} cores; "
        "vCPUs will wait for one another.",
        f"Choose a host with at least {vm.vcpus} cores.",
    )


def boot_files(vm: Vm, source: HostFacts, destination: HostFacts) -> Check:
    """Fail where a kernel or firmware is not the same there: its size is part of the state."""
    name = "boot files"
    wanted = [str(path) for path in (vm.kernel, vm.initrd, vm.firmware) if path is not None]
    for path in wanted:
        here, there = source.files.get(path), destination.files.get(path)
        if there is None:
            detail = f"{path} cannot be read on {destination.name}."
        elif here is not None and here != there:
            detail = f"{path} is another file on {destination.name} than on {source.name}."
        else:
            continue
        return failed(name, detail, f"scp {path} {destination.name}:{path}   # on {source.name}")
    if not wanted:
        return passed(name, f"{vm.name} boots from its disks with QEMU's own firmware.")
    return passed(name, f"{len(wanted)} files are the same on both hosts.")


def mptcp(source: HostFacts, destination: HostFacts) -> Check:
    """Fail where MPTCP is off, and warn where it may add no path."""
    name = "MPTCP"
    for host in (source, destination):
        if not host.mptcp:
            return failed(
                name,
                f"MPTCP is off on {host.name}.",
                f"sysctl net.mptcp.enabled=1   # on {host.name}",
            )
        if host.mptcp_subflows == 0:
            return warned(
                name,
                f"On {host.name} MPTCP may add no second path to a connection.",
                f"ip mptcp limits set subflow 4 add_addr_accepted 4   # on {host.name}",
            )
    return passed(name, "MPTCP is on at both hosts.")

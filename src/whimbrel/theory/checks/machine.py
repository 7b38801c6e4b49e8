"""Checks of a running VM: that its state can leave, and that the destination can take it."""

import fnmatch

from whimbrel.model.check import Check, failed, passed, warned
from whimbrel.model.inventory import Vm
from whimbrel.model.preflight import (
    HostFacts,
    HypervisorFacts,
    MachineFacts,
    PinFacts,
    Unknown,
)
from whimbrel.model.units import format_size

_IMMOVABLE = {
    # Kinds of devices (QEMU's names, as patterns), why they stay, and what to do instead.
    "vfio-*": "it is a device of the host itself",
    "usb-host": "it is a USB device of the host itself",
    "usb-redir": "its USB device is reached through a connection of this host",
    "ivshmem-*": "its memory is shared with programs on this host",
    "vhost-user-fs-*": "it is a folder of the host (virtiofs), and its daemon keeps state",
    "virtio-9p-*": "it is a folder of the host (9p)",
    "vhost-user-*": "a program on this host does its work, whose state is not moved",
    "vhost-vdpa-*": "it is a device of the host itself (vDPA)",
    "vhost-scsi*": "the host's kernel does its work, whose state is not moved",
    "tpm-*": "its TPM's state lies with this host",
    "pvrdma": "it is a device of the host itself",
}

_IMMOVABLE_OBJECTS = {
    "sev*-guest": "its memory is encrypted by this host's processor",
    "tdx-guest": "its memory is encrypted by this host's processor",
    "pr-manager-helper": "a program on this host keeps its SCSI reservations",
    "dbus-vmstate": "programs on this host keep a part of its state",
    "colo-compare": "COLO works on its packets",
}

_STATES = {
    "io-error": (
        "it was stopped when a disk could not be written",
        'Mend the disk, then: {{"execute": "cont"}} in the QMP of {vm}',
    ),
    "shutdown": ("it has been shut down", "whimbrel down {vm}"),
    "guest-panicked": ("its kernel panicked", "whimbrel console {vm}   # then restart it"),
    "internal-error": ("its hypervisor failed", "whimbrel down {vm}   # then start it again"),
    "inmigrate": ("it waits for its state from elsewhere", "whimbrel recover {vm}"),
    "postmigrate": ("its guest has left for another host", "whimbrel recover {vm}"),
    "finish-migrate": ("its guest is leaving for another host", "whimbrel watch {vm}"),
    "save-vm": ("it is being saved", "Wait until that is done."),
    "restore-vm": ("it is being restored", "Wait until that is done."),
    "colo": ("it is kept in step with another by COLO", "End that first."),
}

_UNDER_WAY = {
    "setup",
    "active",
    "cancelling",
    "device",
    "pre-switchover",
    "wait-unplug",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover",
    "postcopy-recover-setup",
}


def hypervisor_version(
    machine: MachineFacts, there: HypervisorFacts, source: str, destination: str
) -> Check:
    """Warn where the destination's QEMU is older: moving back in version is not promised."""
    name = "QEMU version"
    versions = f"{source} has {_number(machine.version)}, {destination} {_number(there.version)}"
    if there.version < machine.version:
        return warned(
            name,
            f"{versions}: an older QEMU may not understand the state of a newer one.",
            f"apt-get install --only-upgrade qemu-system-x86   # on {destination}",
        )
    if there.version == machine.version and there.package != machine.package:
        return passed(name, f"{versions}, built as {machine.package} and {there.package}.")
    return passed(name, f"{versions}.")


def machine_type(machine: MachineFacts, there: HypervisorFacts, vm: Vm, destination: str) -> Check:
    """Fail where the destination does not know the machine type, or not with so many vCPUs."""
    name = "machine type"
    if machine.machine_type not in there.machine_types:
        return failed(
            name,
            f"QEMU on {destination} does not know {machine.machine_type}.",
            f"apt-get install --only-upgrade qemu-system-x86   # on {destination}; or start "
            f"{vm.name} anew with a machine type that both know (qemu-system-x86_64 -M help)",
        )
    most = there.machine_types[machine.machine_type]
    if vm.vcpus > most:
        return failed(
            name,
            f"{machine.machine_type} on {destination} holds {most} vCPUs; the guest has "
            f"{vm.vcpus}.",
            f"Start {vm.name} anew with at most {most} vCPUs.",
        )
    return passed(name, f"{destination} knows {machine.machine_type}.")


def cpu_features(machine: MachineFacts, there: HypervisorFacts, destination: str) -> Check:
    """Fail where the guest sees a CPU feature that the destination cannot show it."""
    name = "CPU features"
    if machine.cpu_model not in there.cpu_models:
        return failed(
            name,
            f"QEMU on {destination} does not know the CPU model {machine.cpu_model}.",
            "Start the VM anew with a model that both know (qemu-system-x86_64 -cpu help).",
        )
    # "invtsc" is never counted as one that can be moved; the check of the TSC looks at it.
    missing = sorted(machine.cpu_features - there.cpu_features - {"invtsc"})
    if missing:
        without = ",".join(f"{feature}=off" for feature in missing)
        return failed(
            name,
            f"{destination} cannot show the guest {', '.join(missing)}.",
            f'cpu = "{machine.cpu_model},{without}"   # in the VM\'s file, then start it anew',
        )
    return passed(
        name, f"{destination} has all {len(machine.cpu_features)} that {machine.cpu_model} shows."
    )


def cpu_as_is(vm: Vm, machine: MachineFacts, source: HostFacts, destination: HostFacts) -> Check:
    """Warn where the guest sees its host's CPU as it is, and the destination has another."""
    name = "CPU model"
    as_is = vm.accelerator != "tcg" and machine.cpu_model in {"host", "max"}
    if as_is and source.cpu_model != destination.cpu_model:
        return warned(
            name,
            f"The guest sees {source.name}'s CPU as it is ({source.cpu_model}); "
            f"{destination.name} has another one ({destination.cpu_model}).",
            'cpu = "Westmere"   # or a later model that both have (qemu-system-x86_64 -cpu help), '
            "in the VM's file; then start it anew",
        )
    return passed(name, f"{machine.cpu_model} means the same on both hosts.")


def time_stamp_counter(
    vm: Vm, machine: MachineFacts, source: HostFacts, destination: HostFacts
) -> Check:
    """Look at the TSC, which a guest may use as its clock."""
    name = "TSC"
    if vm.accelerator == "tcg":
        return passed(name, "It is emulated, and the same everywhere.")
    if "invtsc" in machine.cpu_features and not machine.tsc_frequency:
        return failed(
            name,
            "The guest was promised a TSC that never changes (invtsc), at no stated frequency.",
            f'cpu = "{machine.cpu_model},invtsc=off"   # in the VM\'s file, then start it anew',
        )
    scales = bool({"tsc_scale", "tsc_scaling"} & destination.clock_flags)
    if scales or source.cpu_model == destination.cpu_model:
        why = "scales it" if scales else f"has the same CPU ({destination.cpu_model})"
        return passed(name, f"{destination.name} {why}.")
    return warned(
        name,
        f"{destination.name} has another CPU ({destination.cpu_model}) and cannot scale the TSC; "
        "its frequency may change under the guest.",
        "echo kvm-clock > /sys/devices/system/clocksource/clocksource0/current_clocksource"
        "   # in the guest",
    )


def movable_devices(machine: MachineFacts) -> Check:
    """Fail where a device belongs to the host, or keeps its state outside QEMU."""
    name = "devices"
    for device, kind in sorted(machine.devices.items()):
        for pattern, reason in _IMMOVABLE.items():
            if fnmatch.fnmatch(kind, pattern):
                return failed(
                    name,
                    f"{device} ({kind}) cannot be moved: {reason}.",
                    f'{{"execute": "device_del", "arguments": {{"id": "{device}"}}}}   '
                    "# through QMP, and plug it in again at the destination",
                )
    for label, kind in sorted(machine.objects.items()):
        for pattern, reason in _IMMOVABLE_OBJECTS.items():
            if fnmatch.fnmatch(kind, pattern):
                return failed(
                    name,
                    f"The VM cannot be moved with {label} ({kind}): {reason}.",
                    f"Start the VM anew without the object {label}, or move it shut down.",
                )
    if machine.tpm:
        return failed(
            name,
            f"A TPM ({', '.join(machine.tpm)}) keeps its state in a program on this host.",
            "Start the VM anew without its TPM, or move it while it is shut down.",
        )
    if machine.shared_memory:
        return failed(
            name,
            f"Other programs share the guest's memory ({', '.join(machine.shared_memory)}).",
            "End those programs and start the VM anew with memory of its own (share=off).",
        )
    return passed(name, f"All {len(machine.devices)} can be moved.")


def as_built(machine: MachineFacts) -> Check:
    """Fail where a destination that is built as the VM was started would have other devices."""
    name = "devices as started"
    if machine.plugged:
        return failed(
            name,
            f"{', '.join(machine.plugged)} came after the start; no destination would have it.",
            f'{{"execute": "device_del", "arguments": {{"id": "{machine.plugged[0]}"}}}}   '
            "# through QMP; plug it in again after the move",
        )
    if machine.unplugged:
        return failed(
            name,
            f"A {', '.join(machine.unplugged)} was taken out since the start.",
            "Plug it in again as it was, through QMP (device_add), or start the VM anew.",
        )
    return passed(name, "The VM has the devices that it was started with.")


def known_devices(machine: MachineFacts, there: HypervisorFacts, destination: str) -> Check:
    """Fail where the destination's QEMU has not every kind of device."""
    name = "device kinds"
    unknown = sorted(set(machine.devices.values()) - there.devices)
    if unknown:
        return failed(
            name,
            f"QEMU on {destination} has no {', '.join(unknown)}.",
            f"apt-get install qemu-system-x86 qemu-system-gui   # on {destination}, or start the "
            "VM anew without",
        )
    return passed(name, f"{destination} has every kind of device.")


def not_blocked(machine: MachineFacts) -> Check:
    """Fail where QEMU itself says that the VM cannot be moved."""
    name = "migration blockers"
    if machine.migration in _UNDER_WAY:
        return failed(
            name,
            f"A migration of this VM is under way (status {machine.migration}).",
            "whimbrel recover   # says what it is, and what to do",
        )
    if machine.blocked:
        return failed(
            name,
            f"QEMU refuses to move it: {'; '.join(machine.blocked)}.",
            "Remove what QEMU names from the VM, then plan again.",
        )
    return passed(name, "QEMU names nothing that would keep the VM here.")


def run_state(vm: Vm, machine: MachineFacts) -> Check:
    """Fail where there is no running guest to move; warn where it stands still."""
    name = "guest"
    if machine.state in _STATES:
        reason, remedy = _STATES[machine.state]
        return failed(name, f"{vm.name} does not run: {reason}.", remedy.format(vm=vm.name))
    if machine.state != "running":
        return warned(
            name,
            f"{vm.name} stands still ({machine.state}); after the move it will run.",
            'Let it run first: {"execute": "cont"} through QMP; or wait with the move.',
        )
    return passed(name, f"{vm.name} runs.")


def no_jobs(machine: MachineFacts) -> Check:
    """Fail where a backup, mirror or another job works on the VM's disks."""
    name = "block jobs"
    if machine.jobs:
        return failed(
            name,
            f"Something works on the disks: {', '.join(machine.jobs)}.",
            'Wait for it, or end it: {"execute": "job-cancel", "arguments": {"id": "NAME"}}',
        )
    return passed(name, "No backup, mirror or other job works on the disks.")


def no_bitmaps(machine: MachineFacts) -> Check:
    """Warn where the record of changes since the last backup would be left behind."""
    name = "backup"
    marked = [disk.name for disk in machine.disks if disk.bitmaps]
    if marked:
        return warned(
            name,
            f"The dirty bitmaps of {', '.join(marked)} are not moved.",
            "Let the next backup be a full one.",
        )
    return passed(name, "No disk keeps a record for incremental backups.")


def free_page_hints(vm: Vm, machine: MachineFacts, there: HypervisorFacts, host: str) -> Check:
    """Fail where the balloon would offer free page hints on one host only."""
    name = "free page hints"
    if machine.free_page_hints != vm.free_page_hints:
        here = "offers" if machine.free_page_hints else "does not offer"
        return failed(
            name,
            f"The running VM {here} free page hints; what is written of it says otherwise.",
            f"free_page_hints = {str(machine.free_page_hints).lower()}   # in the VM's file",
        )
    if vm.free_page_hints and not there.free_page_hints:
        return failed(
            name,
            f"QEMU on {host} has no free page hints, which the guest was offered.",
            f"apt-get install --only-upgrade qemu-system-x86   # on {host}",
        )
    return passed(name, "The same on both hosts.")


def accelerator(vm: Vm, there: HypervisorFacts | Unknown, destination: HostFacts) -> Check:
    """Fail where QEMU does not start at the destination with the guest's accelerator."""
    name = "accelerator"
    if isinstance(there, HypervisorFacts):
        return passed(name, f"QEMU starts with {vm.accelerator} on {destination.name}.")
    remedy = f"apt-get install qemu-system-x86   # on {destination.name}"
    if vm.accelerator == "kvm" and not destination.kvm:
        remedy = (
            f"modprobe kvm_intel || modprobe kvm_amd; ls -l /dev/kvm   # on {destination.name}; "
            "virtualisation may be off in its firmware"
        )
    return failed(
        name,
        f"QEMU does not start with {vm.accelerator} on {destination.name}: {there.reason}",
        remedy,
    )


def _number(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def zero_copy(vm: Vm, running: MachineFacts, pins: PinFacts, source: str) -> Check:
    """Fail where pages that are sent without copying them may not be pinned at the source.

    They are pinned while they are under way, and QEMU gives a move up when no more may be
    (ENOBUFS; io/channel-socket.c). How many that is nobody knows beforehand; libvirt raises the
    limit to all of the guest's memory, whether QEMU is held to it or not, or gives the move up.
    """
    name = "zero-copy"
    lifted = pins.may_be_raised if running.raises_limits else not pins.held
    if lifted or pins.limit is None or pins.limit >= vm.memory:
        return passed(name, f"Pages that are sent may be pinned on {source}.")
    said = f"On {source} the VM may pin {format_size(pins.limit)} of {format_size(vm.memory)}"
    if running.raises_limits:
        return failed(
            name,
            f"{said}, and root there may not allow it more (CAP_SYS_RESOURCE), which libvirt "
            "would do for the move.",
            "Leave --zero-copy out.",
        )
    return failed(
        name,
        f"{said}.",
        f"Leave --zero-copy out; or ulimit -l unlimited   # on {source}, before the VM starts",
    )

"""Network interfaces as QEMU's words: a tap on the host's bridge, or unplugged."""

import hashlib
from pathlib import PurePath

from whimbrel.model.inventory import Nic, Vm

NAME_BYTES = 15
"""Longest name of an interface (IFNAMSIZ less its end)."""


def tap_name(vm: Vm, nic: Nic, folder: PurePath) -> str:
    """Return the host's tap for one interface of the VM that lives in `folder`."""
    print_ = hashlib.sha256(f"{folder}\0{vm.name}\0{nic.name}".encode()).hexdigest()
    return f"wb{print_}"[:NAME_BYTES]


def mac_address(vm: Vm, nic: Nic) -> str:
    """Return the interface's address: the one it was given, or one that follows from its names.

    QEMU's own choice would be the same for every VM.
    """
    if nic.mac:
        return nic.mac
    found = hashlib.sha256(f"{vm.uuid}\0{vm.name}\0{nic.name}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in found[:3])


def nic_words(vm: Vm, nic: Nic, number: int, folder: PurePath) -> list[str]:
    """Return the words that plug one interface; `number` counts the VM's from 0."""
    # The tap is there already: QEMU may start no program, and needs no right to make one.
    net = (
        f"tap,id=net-{nic.name},ifname={tap_name(vm, nic, folder)},script=no,downscript=no"
        if nic.bridge
        else f"hubport,id=net-{nic.name},hubid={number}"
    )
    # No option ROM: its size is part of the state, and differs from one packaging to the next.
    device = f"{nic.model},id=nic-{nic.name},netdev=net-{nic.name},mac={mac_address(vm, nic)}"
    return ["-netdev", net, "-device", f"{device},romfile="]


def taps(vm: Vm, folder: PurePath) -> list[tuple[str, str]]:
    """Return the taps that the VM needs in `folder`, each with its bridge."""
    return [(tap_name(vm, nic, folder), nic.bridge) for nic in vm.nics if nic.bridge]

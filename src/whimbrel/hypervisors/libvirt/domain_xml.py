"""A VM as libvirt's domain XML, and back; both hosts are given the same guest ABI.

    domain_xml(vm)            ──► what libvirt starts
    described(xml)            ──► a Vm that tells what a running one is made of
    at_destination(xml, ...)  ──► the source's XML with what may differ there

What a guest can see (machine, CPU, devices, their addresses) comes from the source's live XML and
is never changed; libvirt refuses a destination whose ABI differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree  # noqa: ICN001 - no abbreviations

from whimbrel.errors import ProtocolError, Unsupported
from whimbrel.hypervisors.libvirt.disk_places import place_of
from whimbrel.hypervisors.libvirt.disk_xml import disk_name, lay, let_go_of_zeros
from whimbrel.model.inventory import Disk, Nic, Vm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from whimbrel.model.method import PreparedMemory

_KINDS = {"kvm": "kvm", "tcg": "qemu"}
UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "MB": 1000**2,
    "M": 1024**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "G": 1024**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "T": 1024**4,
    "TiB": 1024**4,
}
"""Bytes of each unit that libvirt writes."""


def domain_xml(vm: Vm, sockets: str | None = None) -> str:
    """Return the XML that makes `vm`.

    Args:
        vm: The VM.
        sockets: What the paths of its channels' sockets begin with; None: libvirt chooses.

    Raises:
        Unsupported: The VM is made of QEMU's own words, or of what libvirt has no word for.
    """
    if vm.words:
        raise Unsupported(f"VM {vm.name} was started by hand: libvirt cannot build it.")
    if vm.free_page_hints:
        raise Unsupported(f"VM {vm.name} has free page hints, which libvirt does not know.")
    root = Tree.Element("domain", type=_KINDS[vm.accelerator])
    _text(root, "name", vm.name)
    if vm.uuid:
        _text(root, "uuid", vm.uuid)
    _text(root, "memory", str(vm.memory), unit="b")
    _text(root, "vcpu", str(vm.vcpus))
    _boot(root, vm)
    features = Tree.SubElement(root, "features")
    Tree.SubElement(features, "acpi")
    _cpu(root, vm)
    devices = Tree.SubElement(root, "devices")
    for number, disk in enumerate(vm.disks):
        _disk(devices, disk, number)
    for nic in vm.nics:
        _nic(devices, nic)
    for name in vm.channels:
        _channel(devices, name, sockets)
    console = Tree.SubElement(devices, "serial", type="pty")
    Tree.SubElement(console, "target", port="0")
    Tree.SubElement(devices, "memballoon", model="virtio")
    return Tree.tostring(root, encoding="unicode")


def described(xml: str) -> Vm:
    """Return what a VM is made of, as far as a move must know; raises `ProtocolError`."""
    try:
        return _described(Tree.fromstring(xml))  # noqa: S314 - from the libvirt that we trust
    except (Tree.ParseError, KeyError, ValueError) as error:
        raise ProtocolError(f"libvirt's XML of a VM cannot be read: {error}") from error


def at_destination(
    xml: str,
    sockets: str | None,
    prepared: PreparedMemory | None,
    disks: Mapping[str, Disk] | None = None,
    *,
    sparse: bool = False,
) -> str:
    """Return a source's XML with what may differ at the destination.

    Args:
        xml: The source's live XML, made to be moved.
        sockets: What the paths of the channels' sockets begin with there; None: libvirt chooses.
        prepared: Touch memory beforehand; None: leave that as it is.
        disks: Disks that lie elsewhere there, by name.
        sparse: Whether zeros that are copied to these become holes there.
    """
    root = Tree.fromstring(xml)  # noqa: S314 - from the libvirt that we trust
    for channel in _channels(root):
        source = channel.find("source")
        if source is not None:
            source.attrib.pop("path", None)
            if sockets is not None:
                source.set("path", sockets + _target(channel))
    if prepared is not None:
        backing = root.find("memoryBacking")
        if backing is None:
            backing = Tree.SubElement(root, "memoryBacking")
        for old in backing.findall("allocation"):
            backing.remove(old)
        Tree.SubElement(backing, "allocation", mode="immediate", threads=str(prepared.threads))
    for made in root.findall("devices/disk"):
        if disks and disk_name(made) in disks:
            lay(made, disks[disk_name(made)])
            if sparse:
                let_go_of_zeros(made)
    return Tree.tostring(root, encoding="unicode")


def memory_limited(xml: str) -> bool:
    """Tell whether a VM's memory has a hard limit."""
    root = Tree.fromstring(xml)  # noqa: S314 - as above
    return root.find("memtune/hard_limit") is not None


def channel_paths(xml: str) -> dict[str, str]:
    """Return where the socket of each channel lies on the host, by the channel's name."""
    found = {}
    for channel in _channels(Tree.fromstring(xml)):  # noqa: S314 - as above
        source = channel.find("source")
        if source is not None and source.get("path"):
            found[_target(channel)] = source.attrib["path"]
    return found


def _channels(root: Tree.Element) -> list[Tree.Element]:
    return [each for each in root.findall("devices/channel") if each.get("type") == "unix"]


def _target(channel: Tree.Element) -> str:
    target = channel.find("target")
    return "" if target is None else target.get("name", "")


def _text(parent: Tree.Element, tag: str, text: str, **attributes: str) -> Tree.Element:
    made = Tree.SubElement(parent, tag, attributes)
    made.text = text
    return made


def _boot(root: Tree.Element, vm: Vm) -> None:
    boot = Tree.SubElement(root, "os")
    _text(boot, "type", "hvm", arch="x86_64", machine=vm.machine)
    if vm.firmware:
        _text(boot, "loader", str(vm.firmware), type="rom", readonly="yes")
    for tag, value in (("kernel", vm.kernel), ("initrd", vm.initrd), ("cmdline", vm.append)):
        if value:
            _text(boot, tag, str(value))


def _cpu(root: Tree.Element, vm: Vm) -> None:
    if vm.cpu is None and vm.accelerator == "kvm":
        Tree.SubElement(root, "cpu", mode="host-passthrough", migratable="on")
    elif vm.cpu is not None:
        model, *changes = vm.cpu.split(",")
        cpu = Tree.SubElement(root, "cpu", mode="custom", match="exact")
        _text(cpu, "model", model, fallback="forbid")
        for change in changes:
            on = change.startswith("+") or change.endswith("=on")
            name = change.lstrip("+-").partition("=")[0]
            Tree.SubElement(cpu, "feature", policy="require" if on else "disable", name=name)


def _disk(devices: Tree.Element, disk: Disk, number: int) -> None:
    made = Tree.SubElement(devices, "disk", device="disk")
    Tree.SubElement(made, "driver", name="qemu", type=disk.format, cache=disk.cache)
    let_go_of_zeros(made)
    lay(made, disk)
    Tree.SubElement(made, "target", dev=f"vd{chr(ord('a') + number)}", bus="virtio")
    if disk.read_only:
        Tree.SubElement(made, "readonly")
    # libvirt keeps aliases that begin with "ua-" as they are: the disk's name, there and back.
    Tree.SubElement(made, "alias", name=f"ua-{disk.name}")


def _nic(devices: Tree.Element, nic: Nic) -> None:
    if nic.bridge is None:
        made = Tree.SubElement(devices, "interface", type="ethernet")
    else:
        made = Tree.SubElement(devices, "interface", type="bridge")
        Tree.SubElement(made, "source", bridge=nic.bridge)
    if nic.mac:
        Tree.SubElement(made, "mac", address=nic.mac)
    models = {"virtio-net-pci": "virtio"}
    Tree.SubElement(made, "model", type=models.get(nic.model, nic.model))
    Tree.SubElement(made, "alias", name=f"ua-{nic.name}")


def _channel(devices: Tree.Element, name: str, sockets: str | None) -> None:
    made = Tree.SubElement(devices, "channel", type="unix")
    source = Tree.SubElement(made, "source", mode="bind")
    if sockets is not None:
        source.set("path", sockets + name)
    Tree.SubElement(made, "target", type="virtio", name=name)


def _described(root: Tree.Element) -> Vm:
    boot = root.find("os")
    kind = boot.find("type") if boot is not None else None
    if boot is None or kind is None:
        raise ValueError("it has no <os>")
    kernel, initrd, loader = (boot.findtext(each) for each in ("kernel", "initrd", "loader"))
    pages = root.find("memory")
    return Vm(
        name=root.findtext("name", ""),
        memory=0 if pages is None else int(pages.text or 0) * UNITS[pages.get("unit", "KiB")],
        vcpus=int(root.findtext("vcpu", "1")),
        accelerator="kvm" if root.get("type") == "kvm" else "tcg",
        kernel=Path(kernel) if kernel else None,
        initrd=Path(initrd) if initrd else None,
        append=boot.findtext("cmdline", ""),
        channels=tuple(map(_target, _channels(root))),
        machine=kind.get("machine", "q35"),
        cpu=root.findtext("cpu/model"),
        firmware=Path(loader) if loader else None,
        disks=tuple(map(_seen_disk, root.findall("devices/disk"))),
        nics=tuple(map(_seen_nic, root.findall("devices/interface"))),
        uuid=root.findtext("uuid", ""),
    )


def _seen_disk(made: Tree.Element) -> Disk:
    driver = made.find("driver")
    words = {} if driver is None else driver.attrib
    return Disk(
        name=disk_name(made),
        path=place_of(made),
        format=words.get("type", "raw"),
        cache=words.get("cache", "none"),
        read_only=made.find("readonly") is not None,
    )


def _seen_nic(made: Tree.Element) -> Nic:
    source, mac, model = (made.find(each) for each in ("source", "mac", "model"))
    kind = "" if model is None else model.get("type", "")
    return Nic(
        name=_alias(made, ""),
        bridge=None if source is None else source.get("bridge"),
        mac="" if mac is None else mac.get("address", ""),
        model={"virtio": "virtio-net-pci"}.get(kind, kind),
    )


def _alias(made: Tree.Element, otherwise: str) -> str:
    alias = made.find("alias")
    name = "" if alias is None else alias.get("name", "")
    return name.removeprefix("ua-") or otherwise

"""A VM as QEMU's command line; both hosts build the same, so that the state fits."""

from pathlib import Path

from whimbrel.model.inventory import Vm
from whimbrel.model.method import PreparedMemory

BINARY = "qemu-system-x86_64"

_ALWAYS = (
    # Nothing that is not asked for: every device has state that must be moved.
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    # A guest that breaks out of QEMU can start no program and gain no right.
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
)


def command_line(
    vm: Vm, folder: Path, memory: PreparedMemory | None = None, *, incoming: bool = False
) -> list[str]:
    """Return the words that start `vm`, with its sockets and console in `folder`.

    `incoming` builds it stopped, to be filled by a migration (`-incoming defer -S`).
    """
    words = [BINARY, "-name", f"guest={vm.name},debug-threads=on", *_ALWAYS]
    words += ["-machine", "q35,memory-backend=memory", "-accel", _accelerator(vm)]
    words += ["-smp", str(vm.vcpus), "-m", f"{vm.memory}B", "-object", _memory(vm, memory)]
    if vm.accelerator == "kvm":
        words += ["-cpu", "host,migratable=on"]
    words += monitor_words(folder) + _console(folder) + _boot(vm)
    words += _channels(vm, folder) + _balloon(vm)
    return words + (["-incoming", "defer", "-S"] if incoming else [])


def channel_socket(folder: Path, index: int) -> Path:
    """Return the UNIX socket of the VM's channel number `index`."""
    return folder / f"channel{index}"


def monitor_socket(folder: Path) -> Path:
    """Return the UNIX socket of QMP."""
    return folder / "qmp"


def _accelerator(vm: Vm) -> str:
    return "tcg,thread=multi" if vm.accelerator == "tcg" else vm.accelerator


def _memory(vm: Vm, memory: PreparedMemory | None) -> str:
    backend = f"memory-backend-ram,id=memory,size={vm.memory}"
    return f"{backend},prealloc=on,prealloc-threads={memory.threads}" if memory else backend


def monitor_words(folder: Path) -> list[str]:
    """Return the words that make QMP listen in `folder`."""
    socket = f"socket,id=qmp,path={_escaped(monitor_socket(folder))},server=on,wait=off"
    return ["-chardev", socket, "-mon", "chardev=qmp,mode=control"]


def _console(folder: Path) -> list[str]:
    return [
        "-chardev",
        f"file,id=console,path={_escaped(folder / 'console')}",
        "-serial",
        "chardev:console",
    ]


def _boot(vm: Vm) -> list[str]:
    words = ["-kernel", str(vm.kernel)] if vm.kernel else []
    words += ["-initrd", str(vm.initrd)] if vm.initrd else []
    return words + (["-append", vm.append] if vm.append else [])


def _channels(vm: Vm, folder: Path) -> list[str]:
    if not vm.channels:
        return []
    words = ["-device", "virtio-serial-pci"]
    for index, name in enumerate(vm.channels):
        path = _escaped(channel_socket(folder, index))
        words += ["-chardev", f"socket,id=channel{index},path={path},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev=channel{index},name={name}"]
    return words


def _balloon(vm: Vm) -> list[str]:
    if not vm.free_page_hints:
        return []
    device = "virtio-balloon-pci,free-page-hint=on,iothread=hints"
    return ["-object", "iothread,id=hints", "-device", device]


def _escaped(path: Path) -> str:
    # QemuOpts reads "," as the end of a value and ",," as a comma.
    return str(path).replace(",", ",,")

"""A VM as QEMU's command line; both hosts build the same, so that the state fits.

A VM of the lab dies with whimbrel and has one QMP socket. A resident VM outlives it and has more:
QEMU serves one client per socket, and keeps one whose machine was cut off for a long time.

    qmp, qmp-spare   for whoever conducts it; the spare for when the first is held by a lost client
    qmp-look         for questions of onlookers, each of whom stays a moment only
    terminal         the serial console, to type into; what it printed is kept in console
"""

from pathlib import Path, PurePath

from whimbrel.hypervisors.qemu.block_devices import disk_words
from whimbrel.hypervisors.qemu.network_devices import nic_words
from whimbrel.model.inventory import Vm
from whimbrel.model.method import PreparedMemory

BINARY = "qemu-system-x86_64"

CONDUCT = ("qmp", "qmp-spare")
"""Names of the sockets for conducting a resident VM, in the order to try them."""

LOOK = "qmp-look"
"""Name of the socket for onlookers' questions."""

TERMINAL = "terminal"
"""Name of the socket of a resident VM's serial console."""

FOLDER_MARK = "{folder}"
"""What stands for the folder of sockets in the words of an adopted VM."""

# Nothing that is not asked for: every device has state that must be moved.
_ALWAYS = ("-nodefaults", "-no-user-config", "-display", "none")

# A guest that breaks out of QEMU can start no program and gain no right.
_CONFINED = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny")


def command_line(
    vm: Vm,
    folder: PurePath,
    memory: PreparedMemory | None = None,
    *,
    incoming: bool = False,
    resident: bool = False,
) -> list[str]:
    """Return the words that start `vm`, with its sockets and console in `folder`.

    `incoming` builds it stopped, to be filled by a migration (`-incoming defer -S`); `resident`
    builds it to outlive whimbrel, and to start again when its guest reboots.
    """
    if vm.words:
        return _adopted(vm, folder) + (list(_INCOMING) if incoming else [])
    words = [BINARY, "-name", f"guest={vm.name},debug-threads=on", *_ALWAYS]
    words += [*([] if resident else ["-no-reboot"]), *_CONFINED]
    words += ["-machine", f"{vm.machine},memory-backend=memory", "-accel", _accelerator(vm)]
    words += ["-smp", str(vm.vcpus), "-m", f"{vm.memory}B", "-object", _memory(vm, memory)]
    words += _cpu(vm) + (_resident_sockets(folder) if resident else monitor_words(folder))
    words += _terminal(folder) if resident else _console(folder)
    words += _boot(vm) + _channels(vm, folder) + _balloon(vm) + _plugged(vm, folder)
    return words + (list(_INCOMING) if incoming else [])


_INCOMING = ("-incoming", "defer", "-S")


def channel_name(index: int) -> str:
    """Return the name of the socket of the VM's channel number `index`."""
    return f"channel{index}"


def channel_socket(folder: Path, index: int) -> Path:
    """Return the UNIX socket of the VM's channel number `index`."""
    return folder / channel_name(index)


def monitor_socket(folder: Path) -> Path:
    """Return the UNIX socket of QMP."""
    return folder / CONDUCT[0]


def _accelerator(vm: Vm) -> str:
    return "tcg,thread=multi" if vm.accelerator == "tcg" else vm.accelerator


def _memory(vm: Vm, memory: PreparedMemory | None) -> str:
    backend = f"memory-backend-ram,id=memory,size={vm.memory}"
    return f"{backend},prealloc=on,prealloc-threads={memory.threads}" if memory else backend


def monitor_words(folder: PurePath, name: str = CONDUCT[0], prefix: str = "") -> list[str]:
    """Return the words that make QMP listen in `folder`.

    QEMU waits for the first client of the first one before it goes on. Without that, a client that
    comes while QEMU hands the monitor over to its own thread now and then crashes it: both threads
    undo the same watch of the connection (char-socket.c; QEMU 10.0, once in some thousand starts).
    """
    path = _escaped(folder / name)
    wait = "on" if name == CONDUCT[0] else "off"
    socket = f"socket,id={prefix}{name},path={path},server=on,wait={wait}"
    return ["-chardev", socket, "-mon", f"chardev={prefix}{name},mode=control"]


def _resident_sockets(folder: PurePath, prefix: str = "") -> list[str]:
    return [word for name in (*CONDUCT, LOOK) for word in monitor_words(folder, name, prefix)]


def _adopted(vm: Vm, folder: PurePath) -> list[str]:
    here = _escaped(folder)
    words = [word.replace(FOLDER_MARK, here) for word in vm.words]
    return words + _resident_sockets(folder, "whimbrel-")


def _cpu(vm: Vm) -> list[str]:
    model = vm.cpu or ("host,migratable=on" if vm.accelerator == "kvm" else "")
    return ["-cpu", model] if model else []


def _terminal(folder: PurePath) -> list[str]:
    path, log = _escaped(folder / TERMINAL), _escaped(folder / "console")
    socket = f"socket,id=console,path={path},server=on,wait=off,logfile={log},logappend=on"
    return ["-chardev", socket, "-serial", "chardev:console"]


def _plugged(vm: Vm, folder: PurePath) -> list[str]:
    words = [word for place, disk in enumerate(vm.disks, 1) for word in disk_words(disk, place)]
    for number, nic in enumerate(vm.nics):
        words += nic_words(vm, nic, number, folder)
    return words


def _console(folder: PurePath) -> list[str]:
    return [
        "-chardev",
        f"file,id=console,path={_escaped(folder / 'console')}",
        "-serial",
        "chardev:console",
    ]


def _boot(vm: Vm) -> list[str]:
    words = ["-uuid", vm.uuid] if vm.uuid else []
    words += ["-bios", str(vm.firmware)] if vm.firmware else []
    words += ["-kernel", str(vm.kernel)] if vm.kernel else []
    words += ["-initrd", str(vm.initrd)] if vm.initrd else []
    return words + (["-append", vm.append] if vm.append else [])


def _channels(vm: Vm, folder: PurePath) -> list[str]:
    if not vm.channels:
        return []
    words = ["-device", "virtio-serial-pci"]
    for index, name in enumerate(vm.channels):
        path = _escaped(folder / channel_name(index))
        words += ["-chardev", f"socket,id=channel{index},path={path},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev=channel{index},name={name}"]
    return words


def _balloon(vm: Vm) -> list[str]:
    if not vm.free_page_hints:
        return []
    device = "virtio-balloon-pci,free-page-hint=on,iothread=hints"
    return ["-object", "iothread,id=hints", "-device", device]


def _escaped(path: PurePath) -> str:
    # QemuOpts reads "," as the end of a value and ",," as a comma.
    return str(path).replace(",", ",,")

"""What this QEMU on this host can do, asked of the real program: a setting counts when taken."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whimbrel.errors import CommandRefused
from whimbrel.hypervisors.qemu import encryption
from whimbrel.hypervisors.qemu.command_line import BINARY, monitor_words
from whimbrel.hypervisors.qemu.monitor import Monitor
from whimbrel.hypervisors.qemu.process import ChildProcess, Launcher, Process
from whimbrel.hypervisors.qemu.translate import MIGRATION_CAPABILITIES
from whimbrel.model.inventory import Capability
from whimbrel.model.method import Codec

INFINIBAND = Path("/sys/class/infiniband")


class Abilities:
    """What one QEMU can do, and why not what it cannot.

    Attributes:
        version: As QEMU prints it, e.g. "10.0.2 (Debian 1:10.0.2+ds-2)".
        lacking: For every capability that is missing, the reason in QEMU's words or ours.
    """

    def __init__(self, version: str, lacking: Mapping[Capability, str]) -> None:
        self.version = version
        self.lacking = dict(lacking)

    @property
    def present(self) -> frozenset[Capability]:
        """Every capability that is there."""
        return frozenset(Capability) - self.lacking.keys()


async def probe(name: str, folder: Path, launcher: Launcher) -> Abilities:
    """Start a QEMU without a machine, try every setting on it, and end it.

    It is started as a destination, since some settings are refused only there
    (post-copy without userfaultfd).
    """
    words = [BINARY, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-S", "-incoming", "defer", *monitor_words(folder)]
    process = await ChildProcess.start(name, words, folder, launcher)
    try:
        found = await _ask(process.monitor, launcher)
        return Abilities(found.version, found.lacking | await _tls(process))
    finally:
        await process.stop()


async def _ask(monitor: Monitor, launcher: Launcher) -> Abilities:
    version = (await monitor.execute("query-version"))["qemu"]
    package = (await monitor.execute("query-version"))["package"]
    number = f"{version['major']}.{version['minor']}.{version['micro']}"
    lacking: dict[Capability, str] = {}
    lacking |= await _switches(monitor)
    lacking |= await _settings(monitor)
    lacking |= await _properties(monitor)
    lacking |= _rdma()
    lacking |= await _mptcp(launcher)
    return Abilities(f"{number} {package}".strip(), lacking)


async def _switches(monitor: Monitor) -> dict[Capability, str]:
    lacking = {}
    for capability, name in MIGRATION_CAPABILITIES.items():
        change = [{"capability": name, "state": True}]
        if capability is Capability.POSTCOPY_PREEMPT:
            change.insert(0, {"capability": "postcopy-ram", "state": True})
        refusal = await _refusal(monitor, "migrate-set-capabilities", {"capabilities": change})
        if refusal:
            lacking[capability] = refusal
            continue
        for entry in change:
            entry["state"] = False
        await monitor.execute("migrate-set-capabilities", {"capabilities": change})
    return lacking


async def _settings(monitor: Monitor) -> dict[Capability, str]:
    tries: dict[Capability, dict[str, Any]] = {
        codec.capability: {"multifd-compression": codec.value} for codec in Codec
    }
    tries[Capability.SWITCHOVER_BANDWIDTH] = {"avail-switchover-bandwidth": 1 << 20}
    refusals = {
        capability: await _refusal(monitor, "migrate-set-parameters", arguments)
        for capability, arguments in tries.items()
    }
    return {capability: refusal for capability, refusal in refusals.items() if refusal}


async def _properties(monitor: Monitor) -> dict[Capability, str]:
    lacking = {}
    device = await _names(monitor, "device-list-properties", "virtio-balloon-pci")
    if not {"free-page-hint", "iothread"} <= device:
        lacking[Capability.FREE_PAGE_HINTS] = "this QEMU's virtio-balloon-pci has no free-page-hint"
    backend = await _names(monitor, "qom-list-properties", "memory-backend-ram")
    if not {"prealloc", "prealloc-threads"} <= backend:
        lacking[Capability.PREPARED_MEMORY] = "this QEMU's memory backend has no prealloc-threads"
    return lacking


async def _tls(process: Process) -> dict[Capability, str]:
    refusal = await encryption.refusal(process)
    if not refusal:
        return {}
    # Certificates need GnuTLS just as keys do, and no QEMU since 3.0 has the one without the other.
    return {Capability.TLS_PSK: refusal, Capability.TLS_X509: refusal}


async def _names(monitor: Monitor, command: str, typename: str) -> set[str]:
    try:
        return {entry["name"] for entry in await monitor.execute(command, {"typename": typename})}
    except CommandRefused:
        return set()


async def _refusal(monitor: Monitor, command: str, arguments: Mapping[str, Any]) -> str:
    try:
        await monitor.execute(command, arguments)
    except CommandRefused as error:
        return error.what
    return ""


def _rdma() -> dict[Capability, str]:
    if INFINIBAND.is_dir() and any(INFINIBAND.iterdir()):
        return {}
    return {Capability.RDMA: "no RDMA device on this host (/sys/class/infiniband is empty)"}


async def _mptcp(launcher: Launcher) -> dict[Capability, str]:
    # The switch belongs to a network namespace, hence read where QEMU would run.
    words = launcher(["cat", "/proc/sys/net/mptcp/enabled"])
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    if output.strip() == b"1":
        return {}
    return {Capability.MPTCP: "MPTCP is off on this host (sysctl net.mptcp.enabled)"}

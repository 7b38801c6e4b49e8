"""What this QEMU on this host can do, asked of the real program: a setting counts when taken."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from whimbrel.errors import CommandRefused, HostError
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
        machines: Every machine type it builds, with the versioned one that it stands for
            ("q35": "pc-q35-10.0"); versioned ones stand for themselves.
    """

    def __init__(
        self, version: str, lacking: Mapping[Capability, str], machines: Mapping[str, str]
    ) -> None:
        self.version = version
        self.lacking = dict(lacking)
        self.machines = dict(machines)

    @property
    def present(self) -> frozenset[Capability]:
        """Every capability that is there."""
        return frozenset(Capability) - self.lacking.keys()


async def probe(name: str, folder: Path, launcher: Launcher) -> Abilities:
    """Start a QEMU without a machine, try every setting on it, and end it.

    It is started as a destination, since some settings are refused only there
    (post-copy without userfaultfd).
    """

    async def attempt() -> Abilities:
        process = await ChildProcess.start(name, probe_words(folder), folder, launcher)
        try:
            return await ask(process, rdma=_rdma(), mptcp=await _mptcp(launcher))
        finally:
            await process.stop()

    return await at_second_try(attempt)


async def at_second_try(attempt: Callable[[], Awaitable[Abilities]]) -> Abilities:
    """Probe once more where the QEMU that was asked has failed: no guest is in it."""
    try:
        return await attempt()
    except HostError:
        return await attempt()


def probe_words(folder: PurePath) -> list[str]:
    """Return the words that start a QEMU for `ask`, with its QMP socket in `folder`."""
    words = [BINARY, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]
    return [*words, "-S", "-incoming", "defer", *monitor_words(folder)]


async def ask(process: Process, *, rdma: bool, mptcp: bool) -> Abilities:
    """Try every setting on a QEMU without a machine.

    Args:
        process: It, started with `probe_words`.
        rdma: Whether its host has an RDMA device.
        mptcp: Whether MPTCP is on where it runs.
    """
    monitor = process.monitor
    answer = await monitor.execute("query-version")
    version = answer["qemu"]
    number = f"{version['major']}.{version['minor']}.{version['micro']}"
    lacking: dict[Capability, str] = {}
    lacking |= await _switches(monitor)
    lacking |= await _settings(monitor)
    lacking |= await _properties(monitor)
    lacking |= await _tls(process)
    if not rdma:
        reason = "no RDMA device on this host (/sys/class/infiniband is empty)"
        lacking |= dict.fromkeys((Capability.RDMA, Capability.RDMA_PIN_ALL), reason)
    if not mptcp:
        lacking[Capability.MPTCP] = "MPTCP is off on this host (sysctl net.mptcp.enabled)"
    machines = await monitor.execute("query-machines")
    return Abilities(f"{number} {answer['package']}".strip(), lacking, _machines(machines))


def _machines(answer: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        called: entry["name"]
        for entry in answer
        for called in (entry["name"], entry.get("alias"))
        if called is not None
    }


_BESIDE = {Capability.POSTCOPY_PREEMPT: "postcopy-ram", Capability.ZERO_COPY: "multifd"}
"""What QEMU takes only together with something else (migration/options.c)."""


async def _switches(monitor: Monitor) -> dict[Capability, str]:
    lacking = {}
    for capability, name in MIGRATION_CAPABILITIES.items():
        change = [{"capability": name, "state": True}]
        if capability in _BESIDE:
            change.insert(0, {"capability": _BESIDE[capability], "state": True})
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


def _rdma() -> bool:
    return INFINIBAND.is_dir() and any(INFINIBAND.iterdir())


async def _mptcp(launcher: Launcher) -> bool:
    # The switch belongs to a network namespace, hence read where QEMU would run.
    words = launcher(["cat", "/proc/sys/net/mptcp/enabled"])
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return output.strip() == b"1"

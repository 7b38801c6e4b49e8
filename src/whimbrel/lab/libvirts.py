"""Lab hosts that are run by libvirt: a libvirtd of its own in each host's namespace.

It has a hostname, a UUID and folders of its own, by which libvirt tells hosts apart, and listens
on a private UNIX socket only: both daemons are led from this machine, while memory goes over the
lab's link. What its VMs leave behind ends with the host's namespace.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shlex
import shutil
import sys
import uuid
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whimbrel.errors import HostError, LabError
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.qemu.probe import Abilities
from whimbrel.lab.kernel import cache_folder, published
from whimbrel.lab.stage import Stage, equipped
from whimbrel.practice.move import move
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from whimbrel.lab.hosts import LabHost
    from whimbrel.lab.stage import End
    from whimbrel.model.inventory import Vm
    from whimbrel.model.migration import Decision, Event
    from whimbrel.model.scenario import Scenario
    from whimbrel.ports import Machine, Site
    from whimbrel.practice.move import Moved, Request, Watcher

PRIVATE = {
    "run": "/run/libvirt",
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}
"""Folders that each daemon has for itself, by the name under which they lie in its own."""

QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
"""

_REAPING = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""
"""What starts a daemon and buries its VMs: libvirt waits for that, and an init may take seconds."""

_READY_WITHIN = 30.0
FOUND = "cache/qemu/capabilities"
"""Where libvirt keeps what it found out about QEMU."""


def lacking() -> str:
    """Return why no libvirtd can be held here; empty where it can."""
    missing = [name for name in ("libvirtd", "virsh") if _program(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if importlib.util.find_spec("libvirt") is None:
        return "libvirt-python is not installed"
    return "" if os.getuid() == 0 else "a libvirtd of its own needs root"


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


class LabLibvirt(LibvirtHost):
    """A lab host's libvirt.

    Attributes:
        uri: libvirt's URI of it, from anywhere on this machine.
    """

    def __init__(self, name: str, folder: Path, site: Site) -> None:
        self.uri = f"qemu+unix:///system?socket={folder}/run/libvirt-sock"
        self._prefixes = f"{folder}/sockets"
        self._place = site
        super().__init__(name, self.uri, site, sockets=self._prefixes)

    async def abilities(self) -> Abilities:
        """See `stage.LabHypervisor`."""
        versions = await self.versions()
        told = f"{_dotted(versions.hypervisor)} (libvirt {_dotted(versions.daemon)})"
        return Abilities(told, await self.lacking(), {})

    def sockets(self, vm: Vm) -> str:
        """Return what the paths of a VM's sockets begin with on this host."""
        return f"{self._prefixes}/{vm.name}-"

    async def arriving(self, vm: Vm) -> LibvirtMachine:
        """Return the machine of a VM that somebody else brings here, as soon as it is built."""
        machine = LibvirtMachine(vm, await self.connection(), None, self._place)
        while True:
            with suppress(HostError):
                await machine.attach(self.sockets(vm))
                if all(machine.channel(name).exists() for name in vm.channels):
                    return machine
            await asyncio.sleep(0.02)  # no event tells that it is being built


class WhenBuilt:
    """A watcher that is told of a destination when its VM is there, for another that needs it.

    libvirt builds the destination's VM only when the move begins.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._expected: Machine | None = None

    def prepared(self, machine: Machine) -> None:
        """See `Watcher.prepared`."""
        self._expected = machine

    def happened(self, event: Event) -> None:
        """See `Watcher.happened`."""
        self._tell()
        self._watcher.happened(event)

    def decided(self, decision: Decision) -> None:
        """See `Watcher.decided`."""
        self._watcher.decided(decision)

    def arrived(self, machine: Machine) -> None:
        """See `Watcher.arrived`."""
        self._tell()
        self._watcher.arrived(machine)

    def _tell(self) -> None:
        machine = self._expected
        if machine is not None and machine.pid is not None:
            self._expected = None
            self._watcher.prepared(machine)


async def when_built(request: Request, watcher: Watcher, _stage: Stage, _end: End) -> Moved:
    """Let whimbrel carry a move out between hosts that libvirt runs."""
    return await move(request, WhenBuilt(watcher))


def _dotted(version: int) -> str:
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"


@asynccontextmanager
async def libvirt_stage(scenario: Scenario, folder: Path) -> AsyncIterator[Stage]:
    """Hold a stage whose hosts are run by libvirt; see `stage.stage`.

    Raises:
        LabError: The hosts cannot be made, or libvirtd does not start.
    """
    async with AsyncExitStack() as stack:
        yield await equipped(stack, scenario, lambda host: _held(host, folder / host.name))


@asynccontextmanager
async def _held(host: LabHost, folder: Path) -> AsyncIterator[LabLibvirt]:
    _prepare(folder)
    kept = await _known(folder)
    daemon = _Daemon(host, folder)
    try:
        pid = await daemon.start()
        if kept is not None:
            await _remember(folder, kept)

        def enter(words: Sequence[str]) -> list[str]:
            place = ["nsenter", f"--target={pid}", "--mount", "--uts", "--net", "--"]
            return [*place, *words]

        shell = LocalShell(host.name, enter)
        async with (
            OnSite(shell, str(folder / "site")) as site,
            LabLibvirt(host.name, folder, site) as hypervisor,
        ):
            yield hypervisor
    finally:
        await daemon.end()


@dataclass
class _Daemon:
    """One libvirtd."""

    host: LabHost
    folder: Path
    reaper: Process | None = None

    async def start(self) -> int:
        """Start it; returns its process when it answers, or raises `LabError`."""
        pid_file = self.folder / "libvirtd.pid"
        daemon = [str(_program("libvirtd")), "--pid-file", str(pid_file)]
        words = apart(self.folder, f"whimbrel-{self.host.name}", daemon)
        log = self.folder / "libvirtd.log"
        with log.open("ab") as output:
            self.reaper = await asyncio.create_subprocess_exec(
                *self.host.enter(words),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=output,
            )
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while self.reaper.returncode is None and not await answers(self.folder):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # nobody tells when it listens
            if self.reaper.returncode is None:
                return int(pid_file.read_text())
        except TimeoutError:
            pass
        raise LabError(f"libvirtd does not start: {log.read_text().strip()[-400:]}")

    async def end(self) -> None:
        """End it and its reaper; its VMs end with the namespace."""
        for file in (self.folder / "libvirtd.pid", *(self.folder / "run/qemu").glob("*.pid")):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), 9)
        if self.reaper is not None:
            with suppress(ProcessLookupError):
                self.reaper.kill()
            await asyncio.shield(self.reaper.wait())


def apart(
    folder: Path, hostname: str, daemon: Sequence[str], more: Mapping[str, str] | None = None
) -> list[str]:
    """Return the words that run a libvirtd with a hostname and folders of its own.

    It ends with what starts it, and its VMs are buried by what it is started by.

    Args:
        folder: In which its folders lie, by the names of `PRIVATE`.
        hostname: Its hostname.
        daemon: The program, and its words.
        more: Further folders, by the place at which it sees them.
    """
    own = {place: str(folder / name) for name, place in PRIVATE.items()}
    script = [shlex.join(["hostname", hostname]), "mount --make-rprivate /"]
    script += [f"mkdir -p {place}" for place in own]
    binds = {**own, **(more or {})}
    script += [shlex.join(["mount", "--bind", lies, place]) for place, lies in binds.items()]
    script.append(shlex.join(["exec", sys.executable, "-I", "-c", _REAPING, *daemon]))
    ending = ["setpriv", "--pdeathsig", "KILL", "--"]
    return [*ending, "unshare", "--mount", "--uts", "sh", "-euc", "\n".join(script)]


async def answers(folder: Path) -> bool:
    """Tell whether a libvirtd answers on the socket within its folder."""
    try:
        _, writer = await asyncio.open_unix_connection(folder / "run" / "libvirt-sock")
    except OSError:
        return False
    writer.close()
    return True


def known_abilities() -> Path:
    """Return where is kept what libvirt has found out about QEMU; it need not exist.

    libvirt takes many seconds to try QEMU's abilities. They hold as long as the programs stay.
    """
    programs = (_program("libvirtd"), _program("qemu-system-x86_64"))
    age = "-".join(str(Path(str(each)).stat().st_mtime_ns) for each in programs if each)
    return cache_folder() / "libvirt" / f"capabilities-{age}"


def _prepare(folder: Path) -> None:
    """Write what a daemon needs to be a host of its own."""
    for name in (*PRIVATE, "sockets"):
        (folder / name).mkdir(mode=0o700, parents=True)
    (folder / "etc" / "libvirtd.conf").write_text(
        f'host_uuid = "{uuid.uuid4()}"\n'
        f'unix_sock_dir = "{folder}/run"\n'
        'auth_unix_rw = "none"\n'
        'auth_unix_ro = "none"\n'
    )
    (folder / "etc" / "qemu.conf").write_text(QEMU_CONF)


async def _known(folder: Path) -> Path | None:
    """Give a daemon what another found out about QEMU; return where to keep it if nobody has."""
    kept = known_abilities()
    if not kept.exists():
        return kept
    await asyncio.to_thread(shutil.copytree, kept, folder / FOUND)
    return None


async def _remember(folder: Path, kept: Path) -> None:
    """Let a daemon find out, and keep that."""
    uri = f"qemu+unix:///system?socket={folder}/run/libvirt-sock"
    asked = await asyncio.create_subprocess_exec(
        "virsh", "--quiet", "--connect", uri, "capabilities", stdout=PIPE, stderr=DEVNULL
    )
    await asked.communicate()
    if (folder / FOUND).exists():
        with published(kept) as place:
            await asyncio.to_thread(shutil.copytree, folder / FOUND, place)

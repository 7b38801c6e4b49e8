"""Two hosts that are run by libvirt: namespaces of this machine, a libvirtd in each.

    async with two_libvirts(rate=125e6) as pair:
        pair.a.uri                  libvirt's URI of it, over its own UNIX socket
        pair.a.remote               the same for other hosts: by TCP, on the lab's network
        await pair.b.kill()         libvirtd dies at once; its VMs go on
        await pair.b.start()        and is there again
        await pair.b.configure('migration_port_min = 50000')    the same, with settings of its own

Each has a hostname, a host_uuid and folders of its own, by which libvirt tells hosts apart; all
else of this machine they share. It listens on its address within the lab and nowhere else. At
the end everything that lives in either namespace is killed, whatever the test did.
"""

import asyncio
import os
import select
import shutil
import signal
import subprocess
import tempfile
import uuid
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.kernel import published
from whimbrel.lab.libvirts import FOUND, PRIVATE, QEMU_CONF, answers, apart, known_abilities
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

LIBVIRTD = shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
DRIVER = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")


def lacking() -> str:
    """Return why no libvirtd can be run here; empty where it can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    if LIBVIRTD is None or not DRIVER.exists():
        return "libvirtd with its QEMU driver is not installed"
    try:
        import libvirt  # noqa: F401, PLC0415 - only asked whether it is there
    except ImportError:
        return "libvirt-python is not installed"
    return ""


needs_libvirt = pytest.mark.skipif(bool(lacking()), reason=lacking())

READY_WITHIN = 20.0

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
OF_PACKAGES = (f"{LIBRARIES}/libvirt", "/usr/share/libvirt")
"""Folders of libvirt's packages in which its daemon looks by their full paths."""


@dataclass
class Libvirt:
    """One of the two.

    Attributes:
        lab: Its namespace.
        folder: What it has for itself.
        packages: A folder with another libvirt's packages, unpacked, which it runs from its next
            start on; None: this machine's own.
    """

    lab: LabHost
    folder: Path
    packages: Path | None = None
    _daemon: int | None = None
    _reapers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name: a or b."""
        return self.lab.name

    @property
    def uri(self) -> str:
        """Libvirt's URI of it, over a socket of this machine."""
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"

    @property
    def whimbrels(self) -> str:
        """The same as people write it in whimbrel.toml."""
        return self.uri.replace("qemu", "libvirt", 1)

    @property
    def remote(self) -> str:
        """Libvirt's URI of it from within the lab's network."""
        return f"qemu+tcp://{self.lab.addresses[0]}/system"

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return the words that run a command where its daemon does, folders and all."""
        assert self._daemon is not None
        place = f"--target={self._daemon}"
        return ["nsenter", place, "--mount", "--uts", "--net", "--", *command]

    async def start(self) -> None:
        """Start the daemon; returns when it answers."""
        daemon, environment, more = str(LIBVIRTD), dict(os.environ), dict[str, str]()
        if self.packages is not None:
            more = {place: f"{self.packages}{place}" for place in OF_PACKAGES}
            daemon = f"{self.packages}/usr/sbin/libvirtd"
            environment["LD_LIBRARY_PATH"] = f"{self.packages}{LIBRARIES}"
        self._pid_file.unlink(missing_ok=True)
        words = [daemon, "--listen", "--pid-file", str(self._pid_file)]
        log = self.folder / "libvirtd.log"
        with log.open("ab") as output:
            # Not asyncio's: it outlives the event loop of the test that starts it.
            reaper = subprocess.Popen(  # noqa: ASYNC220
                self.lab.enter(apart(self.folder, f"host-{self.name}", words, more)),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=output,
                env=environment,
            )
        self._reapers.append(reaper)
        async with asyncio.timeout(READY_WITHIN):
            while not await answers(self.folder):
                assert reaper.poll() is None, log.read_text()
                await asyncio.sleep(0.05)  # nobody tells when it listens
        self._daemon = int(self._pid_file.read_text())

    async def configure(self, *lines: str) -> None:
        """Start the daemon anew with these lines in its qemu.conf, besides those it always has."""
        (self.folder / "etc" / "qemu.conf").write_text("\n".join((QEMU_CONF, *lines, "")))
        await self.kill()
        await self.start()

    async def kill(self) -> None:
        """End the daemon as a power cut would; VMs go on."""
        if self._daemon is not None:
            await asyncio.to_thread(_kill, self._daemon)
            self._daemon = None

    async def end(self) -> None:
        """End all that was started here; VMs end with their namespace."""
        await self.kill()
        for reaper in self._reapers:
            reaper.kill()
            await asyncio.to_thread(reaper.wait)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "libvirtd.pid"

    @asynccontextmanager
    async def opened(self, peer: str = "") -> AsyncIterator[LibvirtHost]:
        """Hold it as whimbrel's adapter does, with a site that stands where its daemon does."""
        sockets = self.folder / "sockets"
        async with (
            OnSite(LocalShell(self.name, self.enter), str(self.folder / "site")) as site,
            LibvirtHost(self.name, self.uri, site, peer=peer, sockets=str(sockets)) as host,
        ):
            yield host

    async def clear(self) -> None:
        """End every VM that is on it, and let libvirt forget it."""
        words = ["virsh", "--quiet", "--connect", self.uri]
        listed = await said([*words, "list", "--all", "--name"])
        for vm in listed.split():
            await said([*words, "destroy", vm])
            await said([*words, "undefine", vm])

    def pid(self, vm: str) -> int:
        """Return the QEMU process of a VM, as libvirt wrote it down."""
        return int((self.folder / "run" / "qemu" / f"{vm}.pid").read_text())

    @property
    def pids(self) -> set[int | None]:
        """The processes that hold it: the daemon, and those that bury its VMs."""
        return {self._daemon, *(each.pid for each in self._reapers)}

    def said(self) -> str:
        """Return what the daemon has written."""
        return (self.folder / "libvirtd.log").read_text()


@dataclass(frozen=True)
class Libvirts:
    """Both of them.

    Attributes:
        a: The first, on the lab's host a.
        b: The second.
        folder: A private folder for the test's own files, with a short path.
    """

    a: Libvirt
    b: Libvirt
    folder: Path


@asynccontextmanager
async def two_libvirts(rate: float | None = None, count: int = 1) -> AsyncIterator[Libvirts]:
    """Hold two libvirt hosts, joined by `count` links.

    Args:
        rate: Bytes per second of each link; None leaves it unshaped.
        count: How many links.
    """
    # A short path: UNIX sockets will lie in it.
    with (
        tempfile.TemporaryDirectory(prefix="lv-", dir="/tmp") as name,
        two_hosts(rate, count) as pair,
    ):
        folder = Path(name)
        a, b = (_prepared(folder, lab) for lab in pair)
        try:
            await _probed(a, b)
            await b.start()
            yield Libvirts(a, b, folder)
        finally:
            await asyncio.gather(a.end(), b.end())


@contextmanager
def held_libvirts(rate: float | None = None) -> Iterator[Libvirts]:
    """Hold the same over several tests, each of which has an event loop of its own."""
    loop = asyncio.new_event_loop()
    holding = two_libvirts(rate)
    try:
        libvirts = loop.run_until_complete(holding.__aenter__())
        try:
            yield libvirts
        finally:
            loop.run_until_complete(holding.__aexit__(None, None, None))
    finally:
        loop.close()


async def said(words: Sequence[str]) -> str:
    """Return what a command has written to its standard output, whatever its exit code."""
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=DEVNULL)
    output, _ = await process.communicate()
    return output.decode()


async def _probed(first: Libvirt, second: Libvirt) -> None:
    """Start the first, and let both know QEMU's abilities: libvirt takes many seconds to try them.

    What it found is kept beside the lab's other caches for as long as the programs are the same.
    """
    kept = known_abilities()
    if kept.exists():
        shutil.copytree(kept, first.folder / FOUND)
    await first.start()
    if not kept.exists():
        words = ["virsh", "--quiet", "--connect", first.uri, "capabilities"]
        assert await said(words), first.said()
        with published(kept) as place:
            shutil.copytree(first.folder / FOUND, place)
    shutil.copytree(kept, second.folder / FOUND)


def _kill(pid: int) -> None:
    """End a process and wait until it has; harmless when it has gone."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            assert select.select([handle], [], [], READY_WITHIN)[0]
        finally:
            os.close(handle)


def _prepared(folder: Path, lab: LabHost) -> Libvirt:
    """Write what a daemon needs to be another host than the first."""
    own = folder / lab.name
    for name in (*PRIVATE, "sockets"):
        (own / name).mkdir(mode=0o700, parents=True)
    socket = own / "run" / "libvirt-sock"
    (own / "etc" / "libvirtd.conf").write_text(
        f'host_uuid = "{uuid.uuid4()}"\n'
        f'unix_sock_dir = "{socket.parent}"\n'
        'auth_unix_rw = "none"\n'
        'auth_unix_ro = "none"\n'
        "listen_tls = 0\n"
        "listen_tcp = 1\n"
        'auth_tcp = "none"\n'
        f'listen_addr = "{lab.addresses[0]}"\n'
    )
    (own / "etc" / "qemu.conf").write_text(QEMU_CONF)
    return Libvirt(lab, own)

"""Two hosts that are reached over real SSH: namespaces of this machine, an sshd in each.

    async with far_hosts(rate=125e6) as far:
        shell = SshShell(...far.a.host...)      this process is on the control network meanwhile
        far.enter(["whimbrel", ...])            the same for a program started with other means
        far.cut_link(); far.restore_link()      the migration network; SSH goes on
        far.b.cut_control()                     SSH goes silent; migrations go on
        far.b.kill_sshd()                       SSH breaks at once; VMs go on

At the end everything that lives in either namespace is killed, whatever the test did.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from far.control import WIRE, control_address, control_network, switch
from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.namespaces import inhabitants
from whimbrel.lab.sshd import sshd_config
from whimbrel.model.inventory import Host, MigrationLink

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
PORT = 2222

needs_far_hosts = pytest.mark.skipif(
    os.getuid() != 0 or SSHD is None, reason="network namespaces need root, far hosts an sshd"
)


@dataclass
class FarHost:
    """One of the two.

    Attributes:
        host: As a person describes it in whimbrel.toml.
        lab: Its namespace.
    """

    host: Host
    lab: LabHost
    _config: Path
    _daemon: asyncio.subprocess.Process | None = None
    _said: list[str] = field(default_factory=list)
    _draining: asyncio.Task[None] | None = None

    async def start_sshd(self) -> None:
        """Let SSH in; returns when it listens."""
        alive_with_us = ["setpriv", "--pdeathsig", "KILL"]
        self._daemon = await asyncio.create_subprocess_exec(
            *self.lab.enter([*alive_with_us, str(SSHD), "-D", "-e", "-f", str(self._config)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        listening = asyncio.Event()
        self._draining = asyncio.create_task(self._drain(self._daemon, listening))
        async with asyncio.timeout(10.0):
            await listening.wait()
        assert self._daemon.returncode is None, "\n".join(self._said)

    def kill_sshd(self) -> None:
        """End the daemon and every session as a power cut would; VMs and all else go on."""
        for pid in inhabitants(self.lab.namespace):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    async def restart_sshd(self) -> None:
        """Kill it and start it again."""
        self.kill_sshd()
        await self.stopped()
        await self.start_sshd()

    async def stopped(self) -> None:
        """Wait until the killed daemon has ended."""
        if self._daemon is not None and self._draining is not None:
            await self._daemon.wait()
            await self._draining

    def cut_control(self) -> None:
        """Let SSH with this host go silent, with no word to either side."""
        switch(self.lab, WIRE, "down")

    def restore_control(self) -> None:
        """Mend that."""
        switch(self.lab, WIRE, "up")

    def said(self) -> str:
        """Return what sshd has written."""
        return "\n".join(self._said)

    async def _drain(self, daemon: asyncio.subprocess.Process, listening: asyncio.Event) -> None:
        assert daemon.stderr is not None
        while line := await daemon.stderr.readline():
            self._said.append(line.decode(errors="replace").strip())
            if "Server listening" in self._said[-1]:
                listening.set()
        listening.set()


@dataclass(frozen=True)
class FarHosts:
    """Both of them.

    Attributes:
        a: The first, on the lab's host a.
        b: The second.
        folder: A private folder for the test's own files, with a short path.
        control: The control network, for nsenter.
    """

    a: FarHost
    b: FarHost
    folder: Path
    control: str

    @property
    def hosts(self) -> tuple[Host, Host]:
        """The two as a person describes them."""
        return self.a.host, self.b.host

    def enter(self, words: Sequence[str]) -> list[str]:
        """Return the words that run a command on the control network, from anywhere."""
        return ["nsenter", f"--net={self.control}", "--", *words]

    def cut_link(self, link: int = 0) -> None:
        """Cut a migration link at b: what a sends vanishes, and b has no way to a."""
        switch(self.b.lab, self.b.lab.interfaces[link], "down")

    def restore_link(self, link: int = 0) -> None:
        """Mend that; connections that have not given up go on."""
        switch(self.b.lab, self.b.lab.interfaces[link], "up")


@asynccontextmanager
async def far_hosts(rate: float | None = None, count: int = 1) -> AsyncIterator[FarHosts]:
    """Hold two hosts behind SSH, joined by `count` migration links.

    The calling thread, its event loop's sockets and the processes it starts are on the control
    network meanwhile: they reach both hosts' sshd and nothing else.

    Args:
        rate: Bytes per second of each migration link; None leaves it unshaped.
        count: How many migration links.
    """
    # A short path: UNIX sockets will lie in it.
    with (
        tempfile.TemporaryDirectory(prefix="far-", dir="/tmp") as name,
        two_hosts(rate, count) as pair,
    ):
        folder = Path(name)
        with control_network(pair) as control:
            a, b = (_described(folder, lab, end) for end, lab in enumerate(pair, start=1))
            try:
                await asyncio.gather(a.start_sshd(), b.start_sshd())
                yield FarHosts(a, b, folder, control)
            finally:
                for far in (a, b):
                    far.kill_sshd()
                    await far.stopped()


def _described(folder: Path, lab: LabHost, end: int) -> FarHost:
    """Write a host's keys and sshd's configuration."""
    own = folder / f"ssh-{lab.name}"
    address = control_address(end)
    write_keys(own, address)
    host = Host(
        name=lab.name,
        uri=f"qemu+ssh://root@{address}:{PORT}",
        folder=str(folder / lab.name),
        links=tuple(MigrationLink(each, trusted=True) for each in lab.addresses),
        identity=own / "identity",
        known_hosts=own / "known_hosts",
    )
    return FarHost(host, lab, own / "sshd_config")


def write_keys(own: Path, address: str) -> None:
    """Write both sides' keys, and what lets an sshd listen at an address, into a new folder."""
    own.mkdir(mode=0o700)
    server, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    _private(own / "host_key", server.export_private_key())
    _private(own / "identity", client.export_private_key())
    _private(own / "authorized_keys", client.export_public_key())
    known = f"[{address}]:{PORT} ".encode() + server.export_public_key()
    _private(own / "known_hosts", known)
    config = sshd_config(f"{address}:{PORT}", own / "host_key", own / "authorized_keys")
    _private(own / "sshd_config", config.encode())
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd starts only with it


def _private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)

"""A move through ssh, as Proxmox makes it by default: a real sshd, a real `ssh -L`.

    source QEMU ──► 127.0.0.1:PORT ──► ssh ═══ link ═══► sshd ──► 127.0.0.1 ──► destination QEMU

The sshd is there before the move is asked for, as on any host; the tunnel is made as part of it.
Keys are made for one move and lie in a private folder until it is over.
"""

import asyncio
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from whimbrel.errors import HostError, LabError
from whimbrel.hypervisors.qemu.process import kill
from whimbrel.lab.hosts import LabHost
from whimbrel.model.by_hand import ByHand
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.ports import Hypervisor, Machine, Migration, Reception

_PORT, _SSH_PORT = 60000, 2222
_READY_WITHIN = 10.0
_LOOPBACK = "127.0.0.1"
_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")

CIPHERS = "aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com"
"""In the order of Proxmox (pve-cluster:src/PVE/Cluster/Setup.pm, setup_rootsshconfig)."""


def lacking() -> str:
    """Return why there can be no tunnel here; empty where there can."""
    missing = [name for name in ("ssh", "ssh-keygen", "sshd") if _program(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


@dataclass(frozen=True)
class Tunnels:
    """Makes tunnels from one host to a port of another.

    Attributes:
        here: Where they begin.
        there: Where they lead.
        folder: Holds the keys.
    """

    here: LabHost
    there: LabHost
    folder: Path

    async def open(self, port: int) -> Process:
        """Return an ssh through which `_PORT` of `here` leads to `port` of `there`.

        Raises:
            HostError: It does not come up.
        """
        words = ["ssh", "-N", "-F", "none", "-i", str(self.folder / "client"), "-e", "none"]
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "ExitOnForwardFailure": "yes",
            "Ciphers": CIPHERS,
            "PermitLocalCommand": "yes",
            "LocalCommand": "echo ready",
        }
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        words += ["-L", f"{_LOOPBACK}:{_PORT}:{_LOOPBACK}:{port}"]
        words += ["-p", str(_SSH_PORT), f"root@{self.there.addresses[0]}"]
        ssh = await asyncio.create_subprocess_exec(
            *self.here.enter([*_WITH_US, *words]), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        if b"ready" not in await _first_line(ssh):
            said = await ended(ssh)
            raise HostError(f"The ssh tunnel does not come up: {said or 'no word from ssh'}.")
        return ssh


@asynccontextmanager
async def tunnels(here: LabHost, there: LabHost) -> AsyncIterator[Tunnels]:
    """Hold an sshd on `there`; at the end it is gone, with the keys.

    Raises:
        LabError: It does not start.
    """
    with tempfile.TemporaryDirectory(prefix="whimbrel-ssh-") as name:
        folder = Path(name)
        await _write(folder, there.addresses[0])
        daemon = str(_program("sshd"))
        words = [daemon, "-D", "-e", "-f", str(folder / "sshd_config")]
        sshd = await asyncio.create_subprocess_exec(
            *there.enter([*_WITH_US, *words]), stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
        try:
            await _listens(sshd)
            yield Tunnels(here, there, folder)
        finally:
            await ended(sshd)


async def ended(process: Process) -> str:
    """End a process and return what it has written to standard error."""
    kill(process)
    _, said = await asyncio.shield(process.communicate())
    return (said or b"").decode(errors="replace").strip()


async def _write(folder: Path, address: str) -> None:
    for name in ("host", "client"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        made = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL)
        if await made.wait() != 0:
            raise LabError("ssh-keygen makes no key.")
    host = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[{address}]:{_SSH_PORT} {host}")
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's sshd starts only with it
    (folder / "sshd_config").write_text(
        f"ListenAddress {address}:{_SSH_PORT}\n"
        f"HostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nUseDNS no\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        "AllowAgentForwarding no\nX11Forwarding no\nPermitTTY no\n"
        f"PermitOpen {_LOOPBACK}:*\n"
    )


async def _listens(sshd: Process) -> None:
    assert sshd.stderr is not None  # noqa: S101 - piped above
    said = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_READY_WITHIN):
            while line := await sshd.stderr.readline():
                said += line
                if b"Server listening" in line:
                    return
    raise LabError(f"sshd does not start: {said.decode(errors='replace').strip()}")


async def _first_line(process: Process) -> bytes:
    assert process.stdout is not None  # noqa: S101 - piped above
    try:
        async with asyncio.timeout(_READY_WITHIN):
            return await process.stdout.readline()
    except TimeoutError:
        return b""


@dataclass(frozen=True)
class _Through:
    """A reception that is reached through a tunnel."""

    inner: Reception
    address: MigrationAddress

    @property
    def machine(self) -> Machine:
        """See `Reception.machine`."""
        return self.inner.machine

    async def run(self) -> None:
        """See `Reception.run`."""
        await self.inner.run()

    async def listen_again(self) -> MigrationAddress:
        """See `Reception.listen_again`."""
        raise HostError("A move through a tunnel is not taken up again.")


class TunnelledHost:
    """A destination that listens to itself only, and is reached through a tunnel.

    Used with `async with`: its tunnel ends with it.
    """

    def __init__(self, inner: Hypervisor, ways: Tunnels) -> None:
        self._inner, self._ways = inner, ways
        self._ssh: Process | None = None
        self.name = inner.name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ssh is not None:
            await ended(self._ssh)

    async def receive(self, vm: Vm, tuning: Tuning, address: MigrationAddress) -> Reception:
        """See `Hypervisor.receive`."""
        reception = await self._inner.receive(vm, tuning, replace(address, host=_LOOPBACK))
        try:
            self._ssh = await self._ways.open(reception.address.port)
        except BaseException:
            await reception.machine.stop()
            raise
        return _Through(reception, MigrationAddress(_LOOPBACK, _PORT))

    async def capabilities(self) -> frozenset[Capability]:
        """See `Hypervisor.capabilities`."""
        return await self._inner.capabilities()

    async def lacking(self) -> Mapping[Capability, str]:
        """See `Hypervisor.lacking`."""
        return await self._inner.lacking()

    async def start(self, vm: Vm) -> Machine:
        """See `Hypervisor.start`."""
        return await self._inner.start(vm)

    async def send(self, machine: Machine, tuning: Tuning, address: MigrationAddress) -> Migration:
        """See `Hypervisor.send`."""
        return await self._inner.send(machine, tuning, address)

    async def rejoin(self, machine: Machine) -> Migration:
        """See `Hypervisor.rejoin`."""
        return await self._inner.rejoin(machine)

    async def expecting(self, machine: Machine, address: MigrationAddress) -> Reception:
        """See `Hypervisor.expecting`."""
        return await self._inner.expecting(machine, address)

    async def seek(self, name: str) -> Machine | None:
        """See `Hypervisor.seek`."""
        return await self._inner.seek(name)

    def by_hand(self, name: str) -> ByHand:
        """See `Hypervisor.by_hand`."""
        return self._inner.by_hand(name)

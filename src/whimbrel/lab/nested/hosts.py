"""Nested hosts: QEMU machines with Debian's full kernel, reached over real SSH.

    async with nested_hosts("a", "b", wires=2) as nested:
        await nested["a"].run("modprobe", "rdma_rxe")

Each sees this machine's root, read only under an overlay in memory, so that every program is
simply there. `eth0` of each is SSH's, through a port of this machine's loopback; `eth1` and so on
are wires to the others: UNIX sockets, and nothing of it is on any network of this machine.
They are emulated: a nested host is some ten times slower than this machine.
"""

import asyncio
import hashlib
import os
import re
import shlex
import shutil
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from whimbrel.errors import LabError
from whimbrel.lab.nested.kernel import FILES, Boot, boot_files, full_kernel, program
from whimbrel.lab.owner import Owner
from whimbrel.lab.sshd import sshd_config
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.model.units import MIB
from whimbrel.ports import Finished
from whimbrel.sites.connect import shell
from whimbrel.sites.ssh import new_identity

BOOTS_WITHIN = 480.0
"""Seconds; four to six on a machine with nothing else to do."""

FIRST_PLUG = 4
"""PCI slot of eth0; the next ones follow, and the kernel names them in this order."""

CPU = "max,erms=off,fsrm=off"
"""All that TCG can emulate, but that strings of bytes are fast: a kernel that believes it clears
memory byte by byte. TCG looks at each store into a page that held code, and an inner QEMU leaves
its whole memory of translated code behind; of 8 bytes at once there are an eighth of the stores."""

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "/usr/sbin/sshd": "openssh-server",
    "depmod": "kmod",
    "ip": "iproute2",
}
"""What nested hosts are made with, and the Debian package that brings it."""

Told = Callable[[str], None]
"""Is told, in a sentence for people, what is being done now."""


@dataclass(frozen=True)
class Wire:
    """One NIC of a nested host.

    Attributes:
        path: The UNIX socket of the wire.
        listens: Whether this end waits for the other.
        address: With its prefix length.
    """

    path: Path
    listens: bool
    address: str

    def words(self, number: int) -> list[str]:
        """Return QEMU's words for the NIC."""
        end = f"server={'on' if self.listens else 'off'}"
        back = f"stream,id=wire{number},{end},addr.type=unix,addr.path={self.path}"
        if not self.listens:
            back += ",reconnect-ms=500"
        # A bond by LACP joins full-duplex NICs of one speed only, so each must say what it is.
        said = ",speed=1000,duplex=full"
        return ["-netdev", back, *_nic(f"wire{number}", number, self.address, said)]


@dataclass(frozen=True)
class Size:
    """How large a nested host is.

    Attributes:
        memory: Bytes.
        links: How many of its wires, the first ones, are migration links.
    """

    memory: int
    links: int


@dataclass
class NestedHost:
    """One of them.

    Attributes:
        host: As a person describes it in whimbrel.toml.
        wires: Its NICs but eth0.
    """

    host: Host
    wires: Sequence[Wire]
    _words: Sequence[str]
    _process: asyncio.subprocess.Process | None = None
    _said: list[str] = field(default_factory=list)
    _draining: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[str]:
        """The addresses of eth1 and so on."""
        return [wire.address.partition("/")[0] for wire in self.wires]

    async def start(self) -> None:
        """Boot it; returns when SSH answers.

        Raises:
            LabError: It ends instead, or takes too long.
        """
        self._process = await asyncio.create_subprocess_exec(
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            *self._words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        listening = asyncio.Event()
        self._draining = asyncio.create_task(self._drain(self._process, listening))
        try:
            async with asyncio.timeout(BOOTS_WITHIN):
                await listening.wait()
        except TimeoutError as error:
            raise LabError(
                f"The nested host {self.host.name} did not boot within {BOOTS_WITHIN:.0f} s: "
                f"{self.said()}",
                "See what else this machine does.",
            ) from error
        if "Server listening" not in self.said():
            raise LabError(f"The nested host {self.host.name} ended: {self.said()}")

    async def stop(self) -> None:
        """Pull its plug."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._draining is not None:
            await self._draining

    async def run(self, *words: str, given: bytes = b"", within: float = 120.0) -> str:
        """Run a command on it, which must succeed, and return what it printed.

        Raises:
            LabError: It failed; the message has its own words and the end of the console.
        """
        done = await self.tried(*words, given=given, within=within)
        if done.code != 0:
            errors = done.errors.decode(errors="replace")
            raise LabError(f"{self.host.name}: {shlex.join(words)}: {errors}{self.said()}")
        return done.output.decode()

    async def tried(self, *words: str, given: bytes = b"", within: float = 120.0) -> Finished:
        """Run a command on it, whatever its end."""
        way = shell(self.host)
        try:
            return await way.run(words, given=given, within=within)
        finally:
            await way.close()

    async def limit_pinning(self, kibibytes: int) -> None:
        """Let SSH in anew with this limit, without the capability that would lift it."""
        config = self.host.identity.with_suffix(".sshd") if self.host.identity else ""
        script = (
            f"kill $(cat /run/sshd.pid); ulimit -l {kibibytes}; "
            f"exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock /usr/sbin/sshd -f {config}"
        )
        words = ["setsid", "--fork", "sh", "-c", f"({script}) </dev/null >/dev/console 2>&1"]
        await self.run(*words)

    def said(self) -> str:
        """Return the end of what its console has seen."""
        return "\n".join(self._said[-30:])

    async def _drain(self, process: asyncio.subprocess.Process, listening: asyncio.Event) -> None:
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        while line := await process.stdout.readline():
            self._said.append(line.decode(errors="replace").strip())
            if "Server listening" in self._said[-1]:
                listening.set()
        listening.set()


@asynccontextmanager
async def nested_hosts(
    *names: str, wires: int = 1, memory: int = 1536 * MIB, told: Told = lambda _: None
) -> AsyncIterator[dict[str, NestedHost]]:
    """Hold so many nested hosts, each joined to each other one by so many wires.

    The wires between the first two hosts are their migration links. Wire number w of the
    hosts i and j has the network 10.(80 + w).(10 * i + j).0/24.

    Args:
        names: Of the hosts.
        wires: Between each two.
        memory: Bytes of each.
        told: Is told what takes long.

    Raises:
        LabError: A program or the right is missing, or a host does not boot.
    """
    _refuse_without_means()
    with _folder() as folder:
        kernel = await asyncio.to_thread(full_kernel, told)
        boot = await asyncio.to_thread(boot_files, kernel, folder)
        (folder / "init-second").write_bytes((FILES / "init-second").read_bytes())
        hosts = {
            each: _described(
                folder, boot, each, _wires(folder, len(names), end, wires), Size(memory, wires)
            )
            for end, each in enumerate(names, 1)
        }
        told(f"booting {len(names)} emulated hosts")
        async with AsyncExitStack() as stack:
            for host in hosts.values():
                stack.push_async_callback(host.stop)
            await _started(hosts)
            yield hosts


async def _started(hosts: Mapping[str, NestedHost]) -> None:
    """Boot all at once; when one fails, the others are not waited for."""
    starts = [asyncio.ensure_future(host.start()) for host in hosts.values()]
    try:
        await asyncio.gather(*starts)
    finally:
        for start in starts:
            start.cancel()
        await asyncio.wait(starts)


def _refuse_without_means() -> None:
    if os.geteuid() != 0:
        raise LabError("Nested hosts show their guests this machine's root.", "Run it as root.")
    lacking = {name: package for name, package in PROGRAMS.items() if not program(name)}
    if lacking:
        raise LabError(
            f"Nested hosts need what is not here: {', '.join(lacking)}.",
            f"apt-get install {' '.join(dict.fromkeys(lacking.values()))}",
        )


_OURS = "whimbrel-nested-"
_OWNED = re.compile(rf"{_OURS}(\d+)-(\d+)-\w+")


@contextmanager
def _folder() -> Iterator[Path]:
    """Hold a private folder which nested hosts see too: not under /run, which each has its own.

    What a killed whimbrel left there is removed first; its machines have died with it.
    """
    base = Path(tempfile.gettempdir())
    for left in base.glob(f"{_OURS}*"):
        match = _OWNED.fullmatch(left.name)
        mine = match is not None and left.lstat().st_uid == os.getuid()
        if match is not None and mine and not Owner(int(match[1]), int(match[2])).alive:
            shutil.rmtree(left, ignore_errors=True)
    prefix = f"{_OURS}{Owner.current().tag}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base) as name:
        yield Path(name)


def _wires(folder: Path, hosts: int, end: int, wires: int) -> list[Wire]:
    found = []
    for other in range(1, hosts + 1):
        low, high = sorted((end, other))
        for number in range(wires if other != end else 0):
            path = folder / f"wire-{low}-{high}-{number}"
            address = f"10.{80 + number}.{10 * low + high}.{end}/24"
            found.append(Wire(path, listens=end == low, address=address))
    return found


def _described(
    folder: Path, boot: Boot, name: str, wires: Sequence[Wire], size: Size
) -> NestedHost:
    """Write a host's keys, sshd's configuration and its file for init-second."""
    port = _free_port()
    (server, seen), (client, trusted) = new_identity(), new_identity()
    _private(folder / f"{name}.host_key", server)
    _private(folder / f"{name}.identity", client)
    _private(folder / f"{name}.authorized", trusted)
    known = f"[127.0.0.1]:{port} ".encode() + seen
    _private(folder / f"{name}.known", known)
    keys = folder / f"{name}.host_key", folder / f"{name}.authorized"
    config = sshd_config("10.0.2.15:22", *keys, pid_file="/run/sshd.pid")
    _private(folder / f"{name}.sshd", config.encode())
    told = {
        "machine_id": uuid.uuid4().hex,
        "modules": str(boot.kernel.modules),
        "addresses": " ".join(wire.address for wire in wires),
    }
    lines = [f"{key}={shlex.quote(value)}\n" for key, value in told.items()]
    (folder / f"{name}.sh").write_text("".join(lines))
    host = Host(
        name=name,
        uri=f"qemu+ssh://root@127.0.0.1:{port}",
        links=tuple(
            MigrationLink(w.address.partition("/")[0], trusted=True) for w in wires[: size.links]
        ),
        identity=folder / f"{name}.identity",
        known_hosts=folder / f"{name}.known",
    )
    return NestedHost(host, wires, _words(folder, boot, name, wires, (port, size.memory)))


def _words(
    folder: Path, boot: Boot, name: str, wires: Sequence[Wire], sized: tuple[int, int]
) -> list[str]:
    port, memory = sized
    # On a busy machine the kernel may not see its timer tick in time, and take it for broken.
    append = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check net.ifnames=0"
    append += f" nested={folder} name={name}"
    words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"]
    words += ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2"]
    words += ["-m", f"{memory // MIB}M", "-display", "none", "-serial", "stdio"]
    words += ["-kernel", str(boot.kernel.image), "-initrd", str(boot.initrd), "-append", append]
    tag = "mount_tag=host,security_model=none,readonly=on,multidevs=remap"
    words += ["-virtfs", f"local,path=/,{tag}"]
    ssh = f"user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    words += ["-netdev", ssh, *_nic("ssh", 0, name)]
    for number, wire in enumerate(wires, 1):
        words += wire.words(number)
    return words


def _nic(back: str, number: int, about: str, more: str = "") -> list[str]:
    mac = "52:54:00" + "".join(
        f":{byte:02x}" for byte in hashlib.sha256(about.encode()).digest()[:3]
    )
    slot = hex(FIRST_PLUG + number)
    return ["-device", f"virtio-net-pci,netdev={back},addr={slot},mac={mac}{more}"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)

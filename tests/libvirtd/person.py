"""Two hosts that libvirt runs and the real command, used as a person would: libvirt+ssh://.

    async with person(libvirts) as at:
        said = await at.whimbrel("plan", "writer", "--to", "b", "--json")
        await at.intact("writer", on="b")

An sshd stands beside each libvirtd, in all of its namespaces, so that both lead to the same
host; the command itself is run in the network of host a.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from far.hosts import PORT, SSHD, write_keys
from far.person import PATIENCE, Said
from libvirtd.daemons import Libvirt, Libvirts
from storage.guests import CONTROL
from whimbrel.lab.namespaces import inhabitants
from whimbrel.lab.redline import Redline
from whimbrel.practice.history import histories


@dataclass
class Person:
    """Somebody with a config, and a state folder of their own.

    Attributes:
        libvirts: The hosts.
        folder: The files of this test.
        environment: What commands run with.
        here: Whether they are run where host a's libvirt is, folders and all.
    """

    libvirts: Libvirts
    folder: Path
    environment: dict[str, str]
    here: bool = False
    running: list[Process] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """Where whimbrel.toml lies."""
        return self.folder / "whimbrel.toml"

    async def whimbrel(self, *words: str, within: float = PATIENCE) -> Said:
        """Run the command to its end."""
        process = await self.started(*words)
        async with asyncio.timeout(within):
            output, errors = await process.communicate()
        return Said(process.returncode or 0, output.decode(), errors.decode())

    async def started(self, *words: str) -> Process:
        """Start the command; it is killed at the end if it still runs."""
        given = [] if words[0] == "history" else ["--config", str(self.config)]
        enter = self.libvirts.a.enter if self.here else self.libvirts.a.lab.enter
        command = enter([sys.executable, "-m", "whimbrel", *words, *given])
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=self.environment
        )
        self.running.append(process)
        return process

    async def places(self, vm: str) -> list[str]:
        """Return the hosts on which the VM runs."""
        said = await self.whimbrel("vms", "--json")
        assert said.code == 0, said.errors
        seen = said.json["vms"]
        return [
            str(each["host"]) for each in seen if (each["name"], each["state"]) == (vm, "running")
        ]

    async def intact(self, vm: str, on: str) -> int:
        """Let the guest verify every page, and return how many it checked."""
        async with self.redline(vm, on) as guest:
            found = await guest.verify()
        assert found.intact, found
        return found.pages_checked

    @asynccontextmanager
    async def redline(self, vm: str, on: str) -> AsyncIterator[Redline]:
        """Talk to the guest's redliner, on the host where it is."""
        async with Redline.connect(self.host(on).folder / "sockets" / f"{vm}-{CONTROL}") as guest:
            await guest.ready()
            yield guest

    async def until_step(self, vm: str, step: str) -> None:
        """Wait until a move of the VM that is conducted now has announced a step."""
        folder = Path(self.environment["XDG_STATE_HOME"], "whimbrel", "journals")
        async with asyncio.timeout(PATIENCE):
            while True:
                now = [each for each in histories(vm, folder) if each.conducted]
                if any(entry.step.value == step for each in now for entry in each.entries):
                    return
                await asyncio.sleep(0.05)  # a journal announces nothing

    def host(self, name: str) -> Libvirt:
        """Return a host by its name."""
        return {each.name: each for each in (self.libvirts.a, self.libvirts.b)}[name]

    def keys(self, name: str) -> Path:
        """Return where the SSH keys of a host lie."""
        return self.folder / f"ssh-{name}"

    def write(self, *, peer: bool = False, here: bool = False, more: str = "") -> None:
        """Write whimbrel.toml.

        Args:
            peer: libvirt itself leads moves.
            here: The command is run on host a itself.
            more: Further TOML.
        """
        self.here = here
        lines: list[str] = []
        for libvirt in (self.libvirts.a, self.libvirts.b):
            local = here and libvirt is self.libvirts.a
            lines += [
                f"[hosts.{libvirt.name}]",
                *(['uri = "libvirt:///system"'] if local else self._over_ssh(libvirt)),
                f'folder = "{self.folder}/{libvirt.name}"',
                f'channel_folder = "{libvirt.folder}/sockets"',
                f'certificate_name = "{libvirt.name}.example"',
                f'peer = "{libvirt.remote}"' if peer else "",
                f"[[hosts.{libvirt.name}.links]]",
                f'address = "{libvirt.lab.addresses[0]}"',
                'rate = "1 Gbit/s"',
                "trusted = true",
            ]
        self.config.write_text("\n".join([*lines, more]))

    def _over_ssh(self, libvirt: Libvirt) -> list[str]:
        address, keys = libvirt.lab.addresses[0], self.keys(libvirt.name)
        return [
            f'uri = "libvirt+ssh://root@{address}:{PORT}/system"',
            f'identity = "{keys}/identity"',
            f'known_hosts = "{keys}/known_hosts"',
        ]


@dataclass
class Remote(Person):
    """Somebody who reaches hosts through libvirt alone.

    Attributes:
        scheme: Over what.
        query: What the URIs end with.
        rate: Whether the config names what the link carries.
    """

    scheme: str = "libvirt+tcp"
    query: str = ""
    rate: bool = True

    def write(self, *, peer: bool = False, here: bool = False, more: str = "") -> None:
        """See `Person.write`; `here`: a shell leads to host a, on which the command is run."""
        self.here = here
        lines: list[str] = []
        for libvirt in (self.libvirts.a, self.libvirts.b):
            address = libvirt.lab.addresses[0]
            local = here and libvirt is self.libvirts.a
            uri = f"{self.scheme}://{address}/system{self.query}"
            lines += [
                f"[hosts.{libvirt.name}]",
                f'uri = "{"libvirt:///system" if local else uri}"',
                f'folder = "{self.folder}/{libvirt.name}"',
                f'channel_folder = "{libvirt.folder}/sockets"',
                f'peer = "{libvirt.remote}"' if peer else "",
                f"[[hosts.{libvirt.name}.links]]",
                f'address = "{address}"',
                'rate = "1 Gbit/s"' if self.rate else "",
                "trusted = true",
            ]
        self.config.write_text("\n".join([*lines, more]))


@asynccontextmanager
async def person(libvirts: Libvirts, folder: Path) -> AsyncIterator[Person]:
    """Hold an sshd beside each libvirtd, and somebody who uses them from `folder`."""
    at = Person(libvirts, folder, _environment(folder))
    async with AsyncExitStack() as stack:
        for libvirt in (libvirts.a, libvirts.b):
            await stack.enter_async_context(_sshd(libvirt, at.keys(libvirt.name)))
        at.write()
        await stack.enter_async_context(_ending(at))
        yield at


@asynccontextmanager
async def remote(libvirts: Libvirts, folder: Path) -> AsyncIterator[Remote]:
    """Hold somebody to whose hosts no shell leads, with libvirt+tcp."""
    at = Remote(libvirts, folder, _environment(folder))
    at.write()
    async with _ending(at):
        yield at


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "160"}


@asynccontextmanager
async def _ending(at: Person) -> AsyncIterator[None]:
    """End with the block what was begun and still runs."""
    try:
        yield
    finally:
        for process in at.running:
            if process.returncode is None:
                process.kill()
                await process.communicate()  # with a full pipe, wait() would wait for ever


@asynccontextmanager
async def _sshd(libvirt: Libvirt, keys: Path) -> AsyncIterator[None]:
    write_keys(keys, libvirt.lab.addresses[0])
    words = [str(SSHD), "-D", "-e", "-f", str(keys / "sshd_config")]
    daemon = await asyncio.create_subprocess_exec(
        *libvirt.enter(["setpriv", "--pdeathsig", "KILL", *words]),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )
    assert daemon.stderr is not None
    said: list[bytes] = []
    try:
        async with asyncio.timeout(10.0):
            while b"Server listening" not in b"".join(said[-1:]):
                said.append(await daemon.stderr.readline())
                assert said[-1], b"".join(said).decode()
        draining = asyncio.create_task(daemon.stderr.read())  # it would wait for a full pipe
        try:
            yield
        finally:
            _kill_sessions(libvirt)
            await draining
    finally:
        if daemon.returncode is None:
            with suppress(ProcessLookupError):
                daemon.kill()
        await daemon.wait()


def _kill_sessions(libvirt: Libvirt) -> None:
    """End the daemon and every session of it; VMs are libvirt's and go on."""
    for pid in inhabitants(libvirt.lab.namespace):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                os.kill(pid, signal.SIGKILL)

"""Somebody who uses the real command on nested hosts: a whimbrel.toml, then words.

async with person(nested, "a", "b") as at:
    await at.up("db", on="a")
    said = await at.whimbrel("move", "db", "--to", "b", "--method", "rdma", "--json")
    await at.intact("db", on="b")
"""

import asyncio
import os
import shlex
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from far.person import Said
from nested.patient import sitecustomize as _  # noqa: F401 - more patience, for this process
from whimbrel.errors import ExitCode
from whimbrel.lab.image import APPEND, BEAT_PORT, CONTROL_PORT, Image, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.nested.hosts import NestedHost
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import Host
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB
from whimbrel.sites.connect import shell

PATIENCE = 900.0
"""Seconds that one command may take: emulated machines in emulated machines."""

TOO_SLOW = "did not answer within"
"""What whimbrel says of a host that has other things to do."""

PATIENT = Path(__file__).with_name("patient")
"""On PYTHONPATH it gives every whimbrel more patience; this process has it by importing it."""

CALM = "beat_ms=1000"
"""Words of guests' kernels: what beats 200 times a second does nothing else when it is so slow."""


@dataclass
class Person:
    """Somebody with a config and a state folder of their own.

    Attributes:
        hosts: The nested hosts, by name.
        config: whimbrel.toml.
        image: What guests boot.
        environment: What commands run with.
    """

    hosts: Mapping[str, NestedHost]
    config: Path
    image: Image
    environment: dict[str, str]
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def whimbrel(self, *words: str, within: float = PATIENCE) -> Said:
        """Run the command to its end; hosts that are only too slow to answer are asked again."""
        said = await self._ran(words, within)
        while said.code == ExitCode.HOST and TOO_SLOW in said.errors:
            said = await self._ran(words, within)
        return said

    async def done(self, *words: str, within: float = PATIENCE) -> Said:
        """Run the command, which must succeed."""
        said = await self.whimbrel(*words, within=within)
        assert said.code == 0, f"whimbrel {shlex.join(words)}: {said.errors}\n{said.output}"
        return said

    async def _ran(self, words: Sequence[str], within: float) -> Said:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "whimbrel", *words, "--config", str(self.config)],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env=self.environment,
        )
        self.running.append(process)
        async with asyncio.timeout(within):
            output, errors = await process.communicate()
        return Said(process.returncode or 0, output.decode(), errors.decode())

    async def up(
        self,
        name: str,
        *,
        on: str,
        memory: int = 128 * MIB,
        load: Load | None = None,
        more: str = "",
    ) -> None:
        """Boot a redline guest and let its memory be filled; see far/person.py."""
        file = self.config.parent / f"{name}.toml"
        file.write_text(
            f'name = "{name}"\nmemory = "{memory // MIB} MiB"\naccelerator = "tcg"\n'
            f'kernel = "{self.image.kernel}"\ninitrd = "{self.image.initrd}"\n'
            f'append = "{APPEND} {CALM}"\nchannels = ["{CONTROL_PORT}", "{BEAT_PORT}"]\n{more}\n'
        )
        await self.done("up", str(file), "--on", on, "--skip-unreachable")
        async with self.redline(name, on) as redline:
            if load is not None:
                await redline.fill(load)

    @asynccontextmanager
    async def redline(self, name: str, on: str) -> AsyncIterator[Redline]:
        """Talk to the guest's redliner once it is ready, on the host where it is."""
        host = self.hosts[on].host
        way = shell(host)
        try:
            socket = await way.socket(f"{host.folder}/vms/{name}/channel0")
            async with Redline.connect(socket, PATIENCE) as redline:
                await redline.ready()
                yield redline
        finally:
            await way.close()

    async def intact(self, name: str, on: str) -> int:
        """Let the guest verify every page, and return how many it checked."""
        async with self.redline(name, on) as redline:
            found = await redline.verify()
        assert found.intact, found
        return found.pages_checked

    async def places(self, name: str) -> list[str]:
        """Return the hosts on which the VM runs."""
        said = await self.done("vms", "--json")
        return [
            str(vm["host"])
            for vm in said.json["vms"]
            if vm["name"] == name and vm["state"] == "running"
        ]


@asynccontextmanager
async def person(
    hosts: Mapping[str, NestedHost], *names: str, folder: Path, policy: str = ""
) -> AsyncIterator[Person]:
    """Be somebody who knows the named hosts."""
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    config = folder / "whimbrel.toml"
    config.write_text("\n".join([*(_table(hosts[name].host) for name in names), policy]))
    paths = os.pathsep.join(filter(None, (str(PATIENT), os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "XDG_STATE_HOME": str(folder / "state"),
        "COLUMNS": "160",
    }
    at = Person(hosts, config, image, environment)
    try:
        yield at
    finally:
        for process in at.running:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _table(host: Host) -> str:
    lines = [f"[hosts.{host.name}]", f'uri = "{host.uri}"', f'folder = "{host.folder}"']
    lines += [f'identity = "{host.identity}"', f'known_hosts = "{host.known_hosts}"']
    for link in host.links:
        lines += [f"[[hosts.{host.name}.links]]", f'address = "{link.address}"', "trusted = true"]
    return "\n".join(lines)

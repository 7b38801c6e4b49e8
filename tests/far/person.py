"""Two far hosts and the real command, used as a person would: two TOML files, then words.

async with person(rate=125e6) as at:
    await at.up("db", fill=100 * MIB)
    said = await at.whimbrel("plan", "db", "--to", "b", "--json")
    await at.intact("db", on="b")
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from far.hosts import FarHosts, far_hosts
from whimbrel.lab.image import APPEND, BEAT_PORT, CONTROL_PORT, Image, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import Host
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB
from whimbrel.practice.history import histories

PATIENCE = 240.0


@dataclass(frozen=True)
class Said:
    """What a command said.

    Attributes:
        code: Its exit code.
        output: Its standard output.
        errors: Its standard error.
    """

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """The document that it printed."""
        return json.loads(self.output)


@dataclass
class Person:
    """Somebody with a config, a state folder of their own, and two hosts.

    Attributes:
        far: The hosts.
        config: whimbrel.toml.
        image: What guests boot.
        environment: What commands run with.
    """

    far: FarHosts
    config: Path
    image: Image
    environment: dict[str, str]
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def whimbrel(
        self, *words: str, within: float = PATIENCE, configured: bool = True
    ) -> Said:
        """Run the command to its end; `configured` hands it the config."""
        process = await self.started(*words, configured=configured)
        async with asyncio.timeout(within):
            output, errors = await process.communicate()
        return Said(process.returncode or 0, output.decode(), errors.decode())

    async def started(self, *words: str, configured: bool = True) -> asyncio.subprocess.Process:
        """Start the command on the control network; it is killed at the end if it still runs."""
        given = ["--config", str(self.config)] if configured else []
        command = [sys.executable, "-m", "whimbrel", *words, *given]
        process = await asyncio.create_subprocess_exec(
            *self.far.enter(command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env=self.environment,
        )
        self.running.append(process)
        return process

    async def up(
        self,
        name: str,
        *,
        memory: int = 192 * MIB,
        load: Load | None = None,
        on: str = "a",
        more: str = "",
    ) -> None:
        """Boot a redline guest on a host and let its memory be filled.

        Args:
            name: Its name.
            memory: Bytes.
            load: What its memory does; None: it is left alone.
            on: The host.
            more: Further TOML of its file.
        """
        file = self.config.parent / f"{name}.toml"
        file.write_text(
            f'name = "{name}"\nmemory = "{memory // MIB} MiB"\naccelerator = "tcg"\n'
            f'kernel = "{self.image.kernel}"\ninitrd = "{self.image.initrd}"\n'
            f'append = "{APPEND}"\nchannels = ["{CONTROL_PORT}", "{BEAT_PORT}"]\n{more}\n'
        )
        said = await self.whimbrel("up", str(file), "--on", on)
        assert said.code == 0, said.errors
        if load is not None:
            async with self.redline(name, on) as redline:
                await redline.fill(load)

    @asynccontextmanager
    async def redline(self, name: str, on: str) -> AsyncIterator[Redline]:
        """Talk to the guest's redliner, on the host where it is."""
        socket = Path(self.host(on).folder, "vms", name, "channel0")
        async with Redline.connect(socket) as redline:
            await redline.ready()
            yield redline

    async def intact(self, name: str, on: str) -> int:
        """Let the guest verify every page, and return how many it checked."""
        async with self.redline(name, on) as redline:
            found = await redline.verify()
        assert found.intact, found
        return found.pages_checked

    async def places(self, name: str) -> list[str]:
        """Return the hosts on which the VM runs."""
        said = await self.whimbrel("vms", "--json")
        assert said.code == 0, said.errors
        return [
            str(vm["host"])
            for vm in said.json["vms"]
            if vm["name"] == name and vm["state"] == "running"
        ]

    async def until_step(self, vm: str, step: str) -> None:
        """Wait until a move of the VM that is conducted now has announced a step."""
        folder = Path(self.environment["XDG_STATE_HOME"], "whimbrel", "journals")
        async with asyncio.timeout(PATIENCE):
            while True:
                now = [each for each in histories(vm, folder) if each.conducted]
                if any(entry.step.value == step for each in now for entry in each.entries):
                    return
                await asyncio.sleep(0.05)

    def host(self, name: str) -> Host:
        """Return a host as the config describes it."""
        [host] = [each for each in self.far.hosts if each.name == name]
        return host


@asynccontextmanager
async def person(
    rate: float | None = None,
    count: int = 1,
    policy: str = "",
    *,
    trusted: bool = True,
    told: bool = False,
) -> AsyncIterator[Person]:
    """Hold two hosts and somebody who uses them; `told` writes the links' rate down."""
    image = await asyncio.to_thread(lambda: build_image(find_kernel()))
    async with far_hosts(rate, count) as far:
        config = far.folder / "whimbrel.toml"
        known = f'rate = "{rate:.0f} B/s"' if told and rate else ""
        config.write_text("\n".join([*_tables(far.hosts, known, trusted=trusted), policy]))
        state = far.folder / "state"
        environment = {**os.environ, "XDG_STATE_HOME": str(state), "COLUMNS": "160"}
        at = Person(far, config, image, environment)
        try:
            yield at
        finally:
            for process in at.running:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def _tables(hosts: Sequence[Host], rate: str, *, trusted: bool) -> list[str]:
    lines = []
    for host in hosts:
        lines += [f"[hosts.{host.name}]", f'uri = "{host.uri}"', f'folder = "{host.folder}"']
        lines += [f'identity = "{host.identity}"', f'known_hosts = "{host.known_hosts}"']
        for link in host.links:
            lines += [f"[[hosts.{host.name}.links]]", f'address = "{link.address}"']
            lines += [f"trusted = {'true' if trusted else 'false'}", rate]
    return lines

"""The pages of docs/howto do what they say: their commands are run, as a person would type them.

What a page shows is taken from the page itself: its files (toml blocks) and its commands
(indented lines). Four things are changed, so that it fits two hosts on one machine:

    /srv/…                    lies in the test's own folder
    how hosts are reached     is the far hosts' (tests/far/hosts.py)
    accelerator               is TCG
    no --survey               becomes --survey none, for time

A line may end with `# exit code N`; else it must end well.
"""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from far.hosts import FarHosts, far_hosts, needs_far_hosts
from whimbrel.config import load
from whimbrel.errors import ExitCode
from whimbrel.lab.namespaces import inhabitants
from whimbrel.model.journal import Step
from whimbrel.practice.history import histories

PAGES = Path(__file__).resolve().parents[2] / "docs" / "howto"
PATIENCE = 120.0
MOVED = {ExitCode.DONE, ExitCode.GOAL_MISSED}
"""How a move ends that brings its guest over: on a busy machine it may have stood still longer."""

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]


def files_of(name: str) -> list[str]:
    """Return the TOML files that a page shows."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands_of(name: str) -> list[tuple[str, int]]:
    """Return the commands that a page shows, each with the exit code that it promises."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for line in re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE):
        command, _, promised = line.partition("    # exit code ")
        found.append((command, int(promised or 0)))
    return found


MOVE_HOSTS, MOVE_VM = files_of("move")


@dataclass
class Desk:
    """Where a person sits: a folder with two files in it, and a way to both hosts."""

    far: FarHosts
    at: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.at / "state"), "COLUMNS": "160"}

    def placed(self, text: str) -> str:
        """Return a page's text with its paths in the test's folder."""
        return text.replace("/srv/", f"{self.at}/srv/")

    def write_hosts(self, shown: str) -> None:
        """Write whimbrel.toml as a page shows it, with the far hosts' addresses."""
        said = tomllib.loads(self.placed(shown))
        lines: list[str] = []
        for host in self.far.hosts:
            keys = said["hosts"][host.name]
            [link] = keys.pop("links")
            [address] = [each.address for each in host.links]
            keys |= {"uri": host.uri, "folder": host.folder}
            keys |= {"identity": str(host.identity), "known_hosts": str(host.known_hosts)}
            lines += [f"[hosts.{host.name}]", *_keys(keys)]
            lines += [f"[[hosts.{host.name}.links]]", *_keys({**link, "address": address})]
        (self.at / "whimbrel.toml").write_text("\n".join(lines))
        load(self.at / "whimbrel.toml")

    def write_vm(self, shown: str) -> None:
        """Write db.toml as a page shows it."""
        text = self.placed(shown).replace("\n\n", '\naccelerator = "tcg"\n\n', 1)
        (self.at / "db.toml").write_text(text)

    async def type(self, line: str) -> tuple[int, str]:
        """Run one command line of a page; what is no whimbrel command runs on host a."""
        words = shlex.split(self.placed(line))
        if words[0] == "whimbrel":
            command = self.far.enter([sys.executable, "-m", *words, *_hurried(words)])
        else:
            command = self.far.a.lab.enter(words)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.at,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE):
            said, _ = await process.communicate()
        return process.returncode or 0, said.decode(errors="replace")

    async def follow(self, name: str) -> None:
        """Run every command of a page."""
        for line, promised in commands_of(name):
            code, said = await self.type(line)
            fine = MOVED if line.startswith("whimbrel move") and not promised else {promised}
            assert code in fine, f"{name}.md: {line}\n{said}"

    def clear(self) -> None:
        """End every VM, and take away all that lies on the desk and in the hosts' folders."""
        for host in (self.far.a, self.far.b):
            for pid in inhabitants(host.lab.namespace):
                if Path(f"/proc/{pid}/comm").read_text().startswith("qemu"):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(host.host.folder, ignore_errors=True)
        shutil.rmtree(self.at)


def _keys(table: dict[str, Any]) -> list[str]:
    # Strings, numbers, truth and lists of strings are written in TOML as in JSON.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def _hurried(words: list[str]) -> list[str]:
    surveys = words[1] in {"plan", "move"} and "--to" in words
    told = {"--survey", "--plan"} & set(words)
    return ["--survey", "none"] if surveys and not told else []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far() -> AsyncIterator[FarHosts]:
    async with far_hosts(rate=125e6) as hosts:
        yield hosts


@pytest_asyncio.fixture(loop_scope="module")
async def desk(far: FarHosts) -> AsyncIterator[Desk]:
    at = Path(str(far.folder), "desk")
    at.mkdir()
    (at / "srv" / "share").mkdir(parents=True)
    sitting = Desk(far, at)
    sitting.write_hosts(MOVE_HOSTS)
    sitting.write_vm(MOVE_VM)
    try:
        yield sitting
    finally:
        sitting.clear()


async def started(desk: Desk) -> None:
    """Have db run on a, as the page about moving has left it to the others."""
    code, said = await desk.type("whimbrel up db.toml --on a")
    assert code == ExitCode.DONE, said


async def untrusted(desk: Desk) -> None:
    """The same, between hosts whose link nobody calls trusted."""
    desk.write_hosts(files_of("encrypt")[0])
    await started(desk)


async def found_by_hand(desk: Desk) -> None:
    """Nothing runs that whimbrel knows of."""
    desk.write_hosts(files_of("adopt")[0])


async def died_amid_its_move(desk: Desk) -> None:
    """Kill a whimbrel while it sends db's memory."""
    await started(desk)
    words = ["move", "db", "--to", "b", "--limit", "1 Mbit/s", "--survey", "none"]
    process = await asyncio.create_subprocess_exec(
        *desk.far.enter([sys.executable, "-m", "whimbrel", *words]),
        cwd=desk.at,
        env=desk.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    folder = desk.at / "state" / "whimbrel" / "journals"
    try:
        async with asyncio.timeout(PATIENCE):
            await until_sending(process, folder)
    finally:
        process.kill()
        await process.wait()


async def until_sending(process: asyncio.subprocess.Process, folder: Path) -> None:
    """Wait until the journal of db's move says that memory is about to be sent."""
    while True:
        steps = {entry.step for move in histories("db", folder) for entry in move.entries}
        if Step.SENDING in steps:
            return
        assert process.returncode is None, f"the move ended by itself: {process.returncode}"
        await asyncio.sleep(0.05)  # a journal announces nothing


async def nothing(_: Desk) -> None:
    """The page begins from nothing."""


GIVEN: dict[str, Callable[[Desk], Awaitable[None]]] = {
    "move": nothing,
    "shared-storage": started,
    "shared-nothing": started,
    "disks-only": started,
    "encrypt": untrusted,
    "leave-bandwidth": started,
    "converged-network": started,
    "at-a-time": started,
    "recover": died_amid_its_move,
    "adopt": found_by_hand,
}
"""How each page finds the hosts."""

ELSEWHERE = {"lab", "rdma", "smb", "two-nics", "virsh"}
"""Pages whose commands other tests look after (tests/e2e, tests/unit/cli, tests/nested,
test_multinic.py, tests/libvirtd/test_howto.py)."""


def test_every_page_is_followed() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == GIVEN.keys() | ELSEWHERE


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", GIVEN)
async def test_the_commands_of_a_page_do_what_it_says(desk: Desk, name: str) -> None:
    await GIVEN[name](desk)
    assert commands_of(name)
    await desk.follow(name)

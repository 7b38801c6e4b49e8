"""The page "Moving from virsh" does what it says: its commands are run as a person types them."""

import shlex
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from far.hosts import SSHD
from far.test_howto import MOVED, commands_of, files_of
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirts
from libvirtd.person import Person, person
from storage.guests import disk_vm
from whimbrel.config import load

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd"),
]


@pytest.fixture
async def at(libvirts: Libvirts, tmp_path: Path) -> AsyncIterator[Person]:
    folder = libvirts.folder / tmp_path.name
    folder.mkdir()
    async with person(libvirts, folder) as somebody:
        yield somebody


def test_the_file_of_the_page_can_be_used(tmp_path: Path) -> None:
    [shown] = files_of("virsh")
    path = tmp_path / "whimbrel.toml"
    path.write_text(shown)
    assert list(load(path).hosts) == list(tomllib.loads(shown)["hosts"]) == ["a", "b"]


async def test_the_commands_of_the_page_do_what_it_says(hosts: Hosts, at: Person) -> None:
    await hosts.a.start(replace(disk_vm([]), name="db"))
    commands = commands_of("virsh")
    assert len(commands) > 5
    for line, promised in commands:
        program, *words = shlex.split(line)
        assert program == "whimbrel"
        said = await at.whimbrel(*words)
        fine = MOVED if words[0] == "move" else {promised}
        assert said.code in fine, f"{line}\n{said.output}\n{said.errors}"
    assert await at.places("db") == ["a"]

"""libvirt over SSH: an answer comes when it is there, however long it is."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from far.hosts import PORT, SSHD
from libvirtd.daemons import Libvirt, Libvirts
from libvirtd.person import Person, person
from whimbrel.hypervisors.connect import libvirt_uri
from whimbrel.model.inventory import Host

pytestmark = pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd")

PATIENCE = 60.0
ASKING = """
import asyncio, sys
from whimbrel.hypervisors.libvirt import connection
connection.ALIVE_EVERY = 3600

async def ask():
    opened = await connection.Connection.open("b", sys.argv[1])
    print(len(await opened.emulator("qemu")))

asyncio.run(ask())
"""


@pytest.fixture
async def at(libvirts: Libvirts, tmp_path: Path) -> AsyncIterator[Person]:
    folder = libvirts.folder / tmp_path.name  # short: sockets lie in it
    folder.mkdir()
    config = libvirts.b.folder / "etc" / "libvirtd.conf"
    before = config.read_text()
    await anew(libvirts.b, config, before + "keepalive_interval = -1\n")
    async with person(libvirts, folder) as somebody:
        yield somebody
    await anew(libvirts.b, config, before)


async def anew(libvirt: Libvirt, config: Path, text: str) -> None:
    config.write_text(text)
    await libvirt.kill()
    await libvirt.start()


async def test_a_long_answer_waits_for_no_other_word(at: Person) -> None:
    """Neither side says that it is alive here: nothing comes after the answer."""
    address, keys = at.libvirts.b.lab.addresses[0], at.keys("b")
    host = Host(
        "b",
        f"libvirt+ssh://root@{address}:{PORT}/system",
        identity=keys / "identity",
        known_hosts=keys / "known_hosts",
    )
    words = at.libvirts.a.lab.enter([sys.executable, "-c", ASKING, libvirt_uri(host)])
    process = await asyncio.create_subprocess_exec(
        *words, stdin=DEVNULL, stdout=PIPE, env=at.environment
    )
    at.running.append(process)
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    assert int(output) > 32 * 1024

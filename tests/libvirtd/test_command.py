"""A move by the real command between two libvirt hosts, each day; more of it: test_person."""

from collections.abc import AsyncIterator

import pytest

from far.hosts import SSHD
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirts
from libvirtd.person import Person, person
from libvirtd.test_moves import persisted, remembered, still
from whimbrel.errors import ExitCode

pytestmark = pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd")


@pytest.fixture
async def at(libvirts: Libvirts) -> AsyncIterator[Person]:
    folder = libvirts.folder / "at"
    folder.mkdir()
    async with person(libvirts, folder) as somebody:
        yield somebody


async def test_a_vm_moves_with_its_definition_and_it_is_said_where_it_runs(
    libvirts: Libvirts, hosts: Hosts, at: Person
) -> None:
    await persisted(hosts.a, still(libvirts))
    said = await at.whimbrel("move", "still", "--to", "b", "--survey", "none")
    assert said.code in {ExitCode.DONE, ExitCode.GOAL_MISSED}, said.errors
    assert "still runs on b. It took" in said.output
    assert "failed" not in said.output
    assert await hosts.a.seek("still") is None
    arrived = await hosts.b.seek("still")
    assert arrived is not None
    assert await arrived.running()
    assert (await remembered(libvirts.a), await remembered(libvirts.b)) == ("", "still")

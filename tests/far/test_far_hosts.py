"""The far hosts themselves: both ways between them can be cut apart from each other."""

import asyncio
from pathlib import Path

import pytest

from far.hosts import FarHost, FarHosts, far_hosts, needs_far_hosts
from whimbrel.errors import HostUnreachable
from whimbrel.lab.namespaces import inhabitants
from whimbrel.sites.connect import shell

pytestmark = needs_far_hosts


def network() -> str:
    return str(Path("/proc/thread-self/ns/net").readlink())


async def network_of(far: FarHost) -> str:
    way = shell(far.host)
    try:
        done = await way.run(["readlink", "/proc/self/ns/net"])
    finally:
        await way.close()
    return done.output.decode().strip()


async def reaches(far: FarHosts) -> bool:
    """Tell whether a's migration address answers to b; the port is closed, so it is refused."""
    address = far.a.lab.addresses[0]
    script = f"exec 3<>/dev/tcp/{address}/9"
    words = far.b.lab.enter(["timeout", "0.5", "bash", "-c", script])
    asked = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    _, said = await asked.communicate()
    return b"refused" in said


async def test_both_hosts_answer_over_ssh_each_in_a_network_of_its_own_and_all_of_it_ends() -> None:
    before = network()
    async with far_hosts() as far:
        networks = {await network_of(far.a), await network_of(far.b), network(), before}
        assert len(networks) == 4
        homes = [each.lab.namespace for each in (far.a, far.b)]
        folder = far.folder
        assert all(inhabitants(home) for home in homes)
    assert network() == before
    assert not any(inhabitants(home) for home in homes)
    assert not folder.exists()


async def test_a_program_started_by_enter_is_on_the_control_network() -> None:
    async with far_hosts() as far:
        words = far.enter(["readlink", "/proc/self/ns/net"])
        asked = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        said, _ = await asked.communicate()
        assert said.decode().strip() == network()


async def test_the_migration_link_can_be_cut_and_mended_while_ssh_goes_on() -> None:
    async with far_hosts() as far:
        assert await reaches(far)
        far.cut_link()
        assert not await reaches(far)
        assert await network_of(far.b)
        far.restore_link()
        assert await reaches(far)


async def test_ssh_can_be_killed_and_started_again_while_other_programs_go_on() -> None:
    async with far_hosts() as far:
        words = far.a.lab.enter(["sleep", "600"])
        other = await asyncio.create_subprocess_exec(*words)
        far.a.kill_sshd()
        await far.a.stopped()
        with pytest.raises(HostUnreachable):
            await network_of(far.a)
        await far.a.start_sshd()
        assert await network_of(far.a)
        assert Path(f"/proc/{other.pid}/stat").exists()
    await other.wait()  # the namespace's end has killed it


async def test_ssh_can_go_silent_and_be_mended_while_the_migration_link_goes_on() -> None:
    async with far_hosts() as far:
        way = shell(far.a.host)
        assert (await way.run(["true"])).code == 0
        far.a.cut_control()
        assert await reaches(far)
        with pytest.raises(HostUnreachable, match="did not end within"):
            await way.run(["true"], within=0.2)
        far.a.restore_control()
        assert (await way.run(["true"])).code == 0
        await way.close()

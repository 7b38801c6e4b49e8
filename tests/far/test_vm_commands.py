"""What `whimbrel up`, `vms`, `hosts` and `down` do, over real SSH."""

import asyncio
import json
import sys
from pathlib import Path

from far.hosts import FarHosts, needs_far_hosts
from metal import write_disk
from whimbrel.cli import down, up
from whimbrel.cli.session import opened
from whimbrel.config import load, load_vm
from whimbrel.errors import ExitCode
from whimbrel.model.overview import VmState

pytestmark = needs_far_hosts

WHIMBREL = Path(sys.executable).parent / "whimbrel"


def described(far: FarHosts) -> Path:
    """Write whimbrel.toml as a person would."""
    text = ""
    for host in far.hosts:
        text += f'[hosts.{host.name}]\nuri = "{host.uri}"\nfolder = "{host.folder}"\n'
        text += f'identity = "{host.identity}"\nknown_hosts = "{host.known_hosts}"\n'
        for link in host.links:
            text += f'[[hosts.{host.name}.links]]\naddress = "{link.address}"\ntrusted = true\n'
    path = far.folder / "whimbrel.toml"
    path.write_text(text)
    return path


async def test_a_vm_lives_on_a_host_behind_ssh(far: FarHosts) -> None:
    file = described(far)
    config = load(file)
    assert tuple(config.hosts.values()) == far.hosts
    write_disk(far.folder / "guest.img")
    web = far.folder / "web.toml"
    web.write_text('memory = "16 MiB"\naccelerator = "tcg"\n[[disks]]\npath = "guest.img"\n')
    _, pid, _ = await up._up(config, load_vm(web), "b", skip_unreachable=False)

    asked = [str(WHIMBREL), "vms", "--config", str(file), "--json"]
    process = await asyncio.create_subprocess_exec(*asked, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == ExitCode.DONE
    [vm] = json.loads(out)["vms"]
    assert (vm["host"], vm["state"], vm["pid"]) == ("b", "running", pid)

    async with opened(config) as session:
        a, b = await session.see()
        assert not a.unreachable
        assert (len(a.vms), len(b.vms)) == (0, 1)
        assert {link.address for link in far.b.host.links} <= set(b.addresses)
        far.a.kill_sshd()
        await far.a.stopped()
        assert (await session.find("web")).state is VmState.RUNNING
        while "up" not in await session.hypervisor("b").output("web", console=True):
            continue  # the guest's console announces nothing
    _, how = await down._down(config, "web", None, 60.0)
    assert how == "shut down"
    assert not Path(far.b.host.folder, "vms/web").exists()

"""`whimbrel up`, `vms`, `hosts` and `down` as a person uses them, over real SSH."""

import asyncio
import json
import sys
from pathlib import Path

from far.hosts import FarHosts, needs_far_hosts
from metal import write_disk

pytestmark = needs_far_hosts

WHIMBREL = Path(sys.executable).parent / "whimbrel"


async def whimbrel(far: FarHosts, *words: str) -> str:
    """Run it in the test's folder, which has its whimbrel.toml; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        WHIMBREL,
        *words,
        cwd=far.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def describe(far: FarHosts) -> None:
    """Write whimbrel.toml as a person would."""
    text = ""
    for host in far.hosts:
        text += f'[hosts.{host.name}]\nuri = "{host.uri}"\nfolder = "{host.folder}"\n'
        text += f'identity = "{host.identity}"\nknown_hosts = "{host.known_hosts}"\n'
        for link in host.links:
            text += f'[[hosts.{host.name}.links]]\naddress = "{link.address}"\ntrusted = true\n'
    (far.folder / "whimbrel.toml").write_text(text)


async def test_a_vm_lives_on_a_host_behind_ssh(far: FarHosts) -> None:
    describe(far)
    write_disk(far.folder / "guest.img")
    (far.folder / "web.toml").write_text(
        'memory = "16 MiB"\naccelerator = "tcg"\n[[disks]]\npath = "guest.img"\n'
    )
    told = json.loads(await whimbrel(far, "up", "web.toml", "--on", "b", "--json"))
    assert told["host"] == "b"
    [vm] = json.loads(await whimbrel(far, "vms", "--json"))["vms"]
    assert (vm["host"], vm["state"], vm["pid"]) == ("b", "running", told["pid"])
    a, b = json.loads(await whimbrel(far, "hosts", "--json"))["hosts"]
    assert (a["unreachable"], len(a["vms"]), len(b["vms"])) == ("", 0, 1)
    assert {link["address"] for link in b["links"]} <= set(b["addresses"])
    while "up" not in await whimbrel(far, "console", "web", "--log"):
        pass
    assert "web on b: shut down" in await whimbrel(far, "down", "web")
    assert not Path(far.b.host.folder, "vms/web").exists()

"""What a person sees of hosts that libvirt runs, with the real command."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from typing import Any

from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirts
from libvirtd.test_moves import still
from whimbrel.hypervisors.libvirt import host_seen
from whimbrel.model.overview import VmState


async def shown(libvirts: Libvirts, *words: str, uri: str = "") -> tuple[int, Any, str]:
    """Return what `whimbrel WORDS --json` ends with and says, of hosts a and b or of one URI."""
    config = libvirts.folder / "whimbrel.toml"
    uris = {"far": uri} if uri else {each.name: each.whimbrels for each in (libvirts.a, libvirts.b)}
    config.write_text("".join(f'[hosts.{name}]\nuri = "{each}"\n' for name, each in uris.items()))
    command = [sys.executable, "-m", "whimbrel", *words, "--json", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(output), errors.decode()


async def test_hosts_tell_what_they_can_do_and_why_not(libvirts: Libvirts) -> None:
    code, said, _ = await shown(libvirts, "hosts", "--capabilities")
    assert code == 0
    for host in said["hosts"]:
        assert "libvirt" in json.dumps(host)
        assert "libvirt's migration addresses have no word for MPTCP" in json.dumps(host)


async def test_vms_are_listed_whatever_state_they_are_in(libvirts: Libvirts, hosts: Hosts) -> None:
    machine = await hosts.a.start(still(libvirts))
    domain = await machine.domain()
    await domain.connection.define(await domain.kept_xml())
    [vm] = (await host_seen(hosts.a)).vms
    assert (vm.name, vm.state, vm.vcpus) == ("still", VmState.RUNNING, 1)
    assert vm.memory == machine.vm.memory
    assert vm.resident > 0
    await machine.stop()
    [vm] = (await host_seen(hosts.a)).vms
    assert vm.state is VmState.SHUT_DOWN
    assert (await host_seen(hosts.b)).vms == ()


async def test_a_host_whose_libvirt_is_silent_is_told_with_its_reason(libvirts: Libvirts) -> None:
    nobody = f"libvirt+unix:///system?socket={libvirts.folder}/nobody"
    code, said, errors = await shown(libvirts, "hosts", uri=nobody)
    assert code == 6
    assert "cannot be reached" in errors
    assert "virsh -c" in errors
    assert len(said["hosts"]) == 1


async def test_plain_tcp_is_warned_of(libvirts: Libvirts) -> None:
    code, _, errors = await shown(libvirts, "hosts", uri="libvirt+tcp://127.0.0.1:1/system")
    assert code == 6
    assert "for labs only" in errors

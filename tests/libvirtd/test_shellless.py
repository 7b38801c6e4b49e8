"""Moves between hosts to which only libvirt leads, libvirt+tcp and libvirt+tls: no shell."""

import asyncio
import json
import math
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.certificates import PURPOSES, Authority
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirt, Libvirts
from libvirtd.person import Person, Remote, remote
from libvirtd.test_moves import persisted, remembered, still, underway
from storage.guests import disk_vm
from whimbrel.errors import CommandRefused, ExitCode
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.lab.paced import Pacing, firmware
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Phase, PhaseChange
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB, PAGE
from whimbrel.practice.survey_assumed import FACTOR

pytestmark = pytest.mark.timeout(600)

VM = "writer"
LOAD = Load(fill=48 * MIB, hot=8 * MIB, dirty_rate=4e6)
FAST = ("--survey", "none")
SLOW = ("--limit", "8 Mbit/s")
MOVED = {ExitCode.DONE, ExitCode.GOAL_MISSED}
"""How a move ends that brings its guest over: on a busy machine it may have stood still longer."""


@pytest.fixture
async def at(libvirts: Libvirts, tmp_path: Path) -> AsyncIterator[Remote]:
    folder = libvirts.folder / tmp_path.name  # short: sockets lie in it
    folder.mkdir()
    async with remote(libvirts, folder) as somebody:
        yield somebody


async def started(hosts: Hosts, at: Person, *, defined: bool = False) -> LibvirtMachine:
    """Start a guest without a disk: what disks both hosts see only a shell could prove."""
    vm = replace(disk_vm([]), name=VM)
    machine = await (persisted(hosts.a, vm) if defined else hosts.a.start(vm))
    async with at.redline(VM, "a") as guest:
        await guest.fill(LOAD)
    return machine


async def quick(hosts: Hosts, at: Person, *, defined: bool = False) -> LibvirtMachine:
    """Start a guest that needs no kernel: it fills 32 MiB and then hardly writes."""
    full = firmware(Pacing(first=MIB, pages=32 * MIB // PAGE, rate=1), at.folder)
    vm = replace(still(at.libvirts), firmware=full, name=VM)
    return await (persisted(hosts.a, vm) if defined else hosts.a.start(vm))


async def whole(at: Person, on: str) -> None:
    assert await at.intact(VM, on) == LOAD.fill // PAGE


async def test_a_plan_says_what_it_took_for_granted(hosts: Hosts, at: Remote) -> None:
    await started(hosts, at, defined=True)
    said = await at.whimbrel("plan", VM, "--to", "b", "--survey", "quick")
    assert said.code == ExitCode.DONE, said.errors + said.output
    words = " ".join(said.output.split())
    assert "The link from a to b is ASSUMED to carry 1 Gbit/s, within a factor of 2" in words
    assert "no shell leads to a and b, so it was not probed" in words
    assert "libvirt+tcp is for labs only" in said.errors
    said = await at.whimbrel("plan", VM, "--to", "b", "--survey", "quick", "--json")
    surveyed = said.json["survey"]
    assert [sentence.count("ASSUMED") for sentence in surveyed["assumed"]] == [1, 1]
    assert surveyed["link"] is None
    link = surveyed["survey"]["link"]
    assert math.exp(1.2816 * link["error"]) == pytest.approx(FACTOR)
    assert 0 < surveyed["survey"]["memory"]["zero_share"] < 1
    assert surveyed["survey"]["memory"]["dirty"]["classes"]
    assert surveyed["destination_facts"]["available_memory"] > 0
    took = said.json["chosen"]["total_time"]
    assert took["p90"] / took["p10"] > 2
    checks = {each["name"]: each["result"] for each in said.json["checks"]}
    assert {"CPU", "definition", "name at libvirt", "machine type", "memory"} <= checks.keys()
    assert checks["without a shell"] == "warn"
    assert "fail" not in checks.values()
    assert await at.places(VM) == ["a"]


async def test_with_a_shell_at_one_end_its_interface_says_what_the_link_carries(
    hosts: Hosts, at: Remote
) -> None:
    at.rate = False
    at.write(here=True)
    await started(hosts, at)
    said = await at.whimbrel("plan", VM, "--to", "b", "--survey", "quick", "--json")
    assert said.code == ExitCode.DONE, said.errors + said.output
    assumed, _ = said.json["survey"]["assumed"]
    assert "no shell leads to b," in assumed
    assert "what its interface says" in assumed
    assert said.json["survey"]["sampled_pages"] > 1000  # the guest was looked at past QEMU


@pytest.mark.parametrize("defined", [False, True], ids=["transient", "defined"])
async def test_a_vm_goes_there_and_back(hosts: Hosts, at: Remote, *, defined: bool) -> None:
    await started(hosts, at, defined=defined)
    for here, there in ("ab", "ba"):
        said = await at.whimbrel("move", VM, "--to", there, "--survey", "quick", "--json")
        assert said.code in MOVED, said.errors
        assert "ASSUMED" in said.errors
        assert {each["result"] for each in said.json["checks"]} == {"pass"}
        assert await remembered(at.host(here)) == ""
        assert await remembered(at.host(there)) == (VM if defined else "")
        assert await at.places(VM) == [there]
    await whole(at, "a")


async def test_where_libvirt_leads_the_move_it_is_the_same(hosts: Hosts, at: Remote) -> None:
    at.write(peer=True)
    await started(hosts, at, defined=True)
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code in MOVED, said.errors
    assert await at.places(VM) == ["b"]
    await whole(at, "b")


async def test_with_a_shell_at_the_source_only_a_vm_goes_there(hosts: Hosts, at: Remote) -> None:
    at.write(here=True)
    await started(hosts, at)
    for there in "ba":
        said = await at.whimbrel("move", VM, "--to", there, *FAST)
        assert said.code in MOVED, said.errors
        assert await at.places(VM) == [there]
    await whole(at, "a")


async def test_libvirt_chooses_a_port_of_those_that_the_host_allows(
    hosts: Hosts, at: Remote, libvirts: Libvirts
) -> None:
    await libvirts.b.configure("migration_port_min = 50000", "migration_port_max = 50002")
    try:
        await started(hosts, at)
        moving = await at.started("move", VM, "--to", "b", *SLOW, *FAST)
        await at.until_step(VM, "sending")
        async with asyncio.timeout(30):
            while not await joined(libvirts.b) & {50000, 50001, 50002}:
                assert moving.returncode is None
                await asyncio.sleep(0.1)
        moving.send_signal(signal.SIGINT)
        await asyncio.wait_for(moving.communicate(), 60)
        assert await at.places(VM) == ["a"]
    finally:
        await libvirts.b.configure()


async def joined(libvirt: Libvirt) -> set[int]:
    """Return the ports of a host at which somebody is connected (proc(5), /proc/net/tcp)."""
    process = await asyncio.create_subprocess_exec(
        *libvirt.enter(["cat", "/proc/net/tcp"]), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    rows = [line.split() for line in output.decode().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "01"}


async def test_others_look_on_and_a_second_whimbrel_is_refused(hosts: Hosts, at: Remote) -> None:
    await quick(hosts, at)
    moving = await at.started("move", VM, "--to", "b", *SLOW, *FAST)
    await at.until_step(VM, "sending")
    looking = await at.started("watch", VM, "--on", "a", "--json")
    seen = asyncio.create_task(looking.communicate())  # more than a pipe may hold
    another = replace(at, environment={**at.environment, "XDG_STATE_HOME": f"{at.folder}/other"})
    second = await another.whimbrel("move", VM, "--to", "b", *FAST)
    assert second.code in {ExitCode.NO_PLAN, ExitCode.CONFIG, ExitCode.HOST}, second.errors
    await asyncio.wait_for(moving.communicate(), 200)
    assert moving.returncode in MOVED
    output, errors = await asyncio.wait_for(seen, 60)
    assert looking.returncode == ExitCode.DONE, errors.decode()
    assert "completed" in json.dumps(json.loads(output.decode().splitlines()[-1]))
    assert await at.places(VM) == ["b"]


async def test_a_whimbrel_that_came_too_late_ends_nothing_of_another_ones_move(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    machine = await hosts.a.start(still(libvirts))
    async with (
        LibvirtHost("a", libvirts.a.uri) as here,
        LibvirtHost("b", libvirts.b.uri) as there,
    ):
        seen = await here.seek("still")
        assert seen is not None
        address = MigrationAddress(libvirts.b.lab.addresses[0])
        promised = await there.receive(seen.vm, Tuning(), address)
        migration = await underway(hosts, libvirts, machine)
        with pytest.raises(CommandRefused, match="at work on still already"):
            await here.send(seen, Tuning(), promised.address)
        await promised.machine.stop()
        events = [event async for event in migration.watch()]
    assert isinstance(events[-1], PhaseChange)
    assert events[-1].phase is Phase.COMPLETED, events[-1]


@pytest.fixture
async def tls(libvirts: Libvirts, at: Remote) -> AsyncIterator[Remote]:
    """Let both libvirtds be reached by TLS, with certificates that carry their addresses."""
    ours, pair = Authority("ours"), (libvirts.a, libvirts.b)
    configs = [libvirt.folder / "etc" / "libvirtd.conf" for libvirt in pair]
    before = [config.read_text() for config in configs]
    for libvirt, config, text in zip(pair, configs, before, strict=True):
        own = credentials(ours, at.folder / f"pki-{libvirt.name}", libvirt.lab.addresses[0])
        lines = ["listen_tls = 1", 'auth_tls = "none"', f'ca_file = "{own}/cacert.pem"']
        lines += [f'cert_file = "{own}/servercert.pem"', f'key_file = "{own}/serverkey.pem"']
        config.write_text("\n".join([text.replace("listen_tls = 0\n", ""), *lines, ""]))
        await libvirt.kill()
        await libvirt.start()
    client = credentials(ours, at.folder / "pki", "me.example")
    at.scheme, at.query = "libvirt+tls", f"?pkipath={client}"
    at.write()
    yield at
    for libvirt, config, text in zip(pair, configs, before, strict=True):
        config.write_text(text)
        await libvirt.kill()
        await libvirt.start()


def credentials(authority: Authority, folder: Path, name: str) -> Path:
    """Make a folder with certificates for both ends, named as libvirt names them."""
    folder.mkdir()
    for purpose in PURPOSES:
        made = Path(authority.folder(folder / purpose, purpose, name))
        shutil.copy(made / "ca-cert.pem", folder / "cacert.pem")
        shutil.copy(made / f"{purpose}-cert.pem", folder / f"{purpose}cert.pem")
        shutil.copy(made / f"{purpose}-key.pem", folder / f"{purpose}key.pem")
    return folder


async def test_over_tls_it_is_the_same(tls: Remote, hosts: Hosts) -> None:
    await quick(hosts, tls, defined=True)
    said = await tls.whimbrel("plan", VM, "--to", "b", "--survey", "quick")
    assert said.code == ExitCode.DONE, said.errors + said.output
    assert "ASSUMED" in said.output
    assert "labs only" not in said.errors
    said = await tls.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code in MOVED, said.errors
    assert await tls.places(VM) == ["b"]
    assert (await remembered(tls.host("a")), await remembered(tls.host("b"))) == ("", VM)

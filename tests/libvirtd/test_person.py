"""What a person does with hosts that libvirt runs: the real command, over libvirt+ssh://."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.certificates import Authority
from far.hosts import PORT, SSHD
from libvirtd import daemons
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirts
from libvirtd.person import Person, person
from libvirtd.test_moves import persisted, remembered, still
from libvirtd.test_private import certified
from storage.guests import disk_vm, sparse
from whimbrel.errors import ExitCode
from whimbrel.hypervisors.libvirt.domain_xml import domain_xml
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.libvirt.translate import under_way
from whimbrel.lab.paced import Pacing, firmware
from whimbrel.model.inventory import Disk
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB, PAGE

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd"),
]

VM = "writer"
LOAD = Load(fill=48 * MIB, hot=8 * MIB, dirty_rate=4e6)
FAST = ("--survey", "none")
MOVED = {ExitCode.DONE, ExitCode.GOAL_MISSED}
"""How a move ends that brings its guest over: on a busy machine it may have stood still longer."""


@pytest.fixture
async def at(libvirts: Libvirts, tmp_path: Path) -> AsyncIterator[Person]:
    folder = libvirts.folder / tmp_path.name  # short: sockets lie in it
    folder.mkdir()
    async with person(libvirts, folder) as somebody:
        yield somebody


async def started(hosts: Hosts, at: Person, *, defined: bool = False) -> LibvirtMachine:
    """Start a guest with a disk that both hosts see, and let its memory be filled."""
    vm = replace(disk_vm([Disk("vda", sparse(at.folder / "vda.img", 64 * MIB))]), name=VM)
    machine = await (persisted(hosts.a, vm) if defined else hosts.a.start(vm))
    async with at.redline(VM, "a") as guest:
        await guest.fill(LOAD)
        await guest.fill_disk("/dev/vda", 8 * MIB)
    return machine


async def whole(at: Person, on: str) -> None:
    assert await at.intact(VM, on) == LOAD.fill // PAGE
    async with at.redline(VM, on) as guest:
        assert (await guest.verify_disk("/dev/vda")).intact


async def test_hosts_and_vms_are_shown(hosts: Hosts, at: Person) -> None:
    await started(hosts, at)
    said = await at.whimbrel("hosts", "--json")
    assert said.code == ExitCode.DONE, said.errors
    assert ["libvirt" in json.dumps(each) for each in said.json["hosts"]] == [True, True]
    assert await at.places(VM) == ["a"]


async def test_a_plan_says_go_and_what_was_looked_at(hosts: Hosts, at: Person) -> None:
    await started(hosts, at, defined=True)
    said = await at.whimbrel("plan", VM, "--to", "b", "--survey", "quick", "--json")
    assert said.code == ExitCode.DONE, said.errors + said.output
    assert said.json["verdict"] == "go"
    checks = {each["name"]: each for each in said.json["checks"]}
    assert {"CPU", "definition", "name at libvirt", "machine type", "memory"} <= checks.keys()
    assert "disk vda: same bytes" in checks
    assert [each for each in checks.values() if each["result"] == "fail"] == []
    assert await at.places(VM) == ["a"]


@pytest.mark.parametrize("defined", [False, True], ids=["transient", "defined"])
async def test_a_vm_goes_there_and_back_three_times(
    hosts: Hosts, at: Person, *, defined: bool
) -> None:
    await started(hosts, at, defined=defined)
    for turn in range(6):
        to = "ba"[turn % 2]
        said = await at.whimbrel("move", VM, "--to", to, *FAST)
        assert said.code in MOVED, (turn, said.errors)
        here, there = at.host("ab"[turn % 2]), at.host(to)
        assert await remembered(here) == ""
        assert await remembered(there) == (VM if defined else "")
        assert await at.places(VM) == [to]
    await whole(at, "a")
    said = await at.whimbrel("history", "--limit", "100", "--json")
    moves = [(each["source"], each["destination"]) for each in said.json["moves"]]
    assert moves.count(("a", "b")) == moves.count(("b", "a")) == 3


async def test_what_was_said_stands_beside_what_happened(hosts: Hosts, at: Person) -> None:
    await started(hosts, at)
    said = await at.whimbrel("move", VM, "--to", "b", "--survey", "quick", "--json")
    assert said.code in MOVED, said.errors
    assert said.json["predicted"]["total_time"]["p50"] > 0
    assert said.json["observed"]["total_time"] > 0
    assert said.json["runs_on"] == "destination"
    assert {each["result"] for each in said.json["checks"]} == {"pass"}
    await whole(at, "b")


async def test_where_libvirt_leads_the_move_it_is_the_same(hosts: Hosts, at: Person) -> None:
    at.write(peer=True)
    await started(hosts, at, defined=True)
    for to in ("b", "a"):
        said = await at.whimbrel("move", VM, "--to", to, *FAST)
        assert said.code in MOVED, said.errors
        assert await at.places(VM) == [to]
    await whole(at, "a")


async def test_no_move_leads_to_plain_qemu(hosts: Hosts, at: Person) -> None:
    await started(hosts, at)
    keys = at.keys("b")
    plain = [
        "[hosts.c]",
        f'uri = "qemu+ssh://root@{at.libvirts.b.lab.addresses[0]}:{PORT}"',
        f'folder = "{at.folder}/c"',
        f'identity = "{keys}/identity"',
        f'known_hosts = "{keys}/known_hosts"',
        "[[hosts.c.links]]",
        'address = "10.250.0.9"',
    ]
    at.write(more="\n".join(plain))
    for command in ("plan", "move"):
        said = await at.whimbrel(command, VM, "--to", "c")
        assert said.code == ExitCode.CONFIG, said.errors
        assert "two hosts of one kind" in said.errors
    assert await at.places(VM) == ["a"]


async def test_a_disk_that_the_other_host_does_not_see_is_refused(
    hosts: Hosts, at: Person, libvirts: Libvirts
) -> None:
    images = libvirts.a.folder / "lib" / "images"
    images.mkdir(exist_ok=True)
    image = images / "own.img"
    image.unlink(missing_ok=True)
    sparse(image, 16 * MIB)
    own = Disk("vda", "/var/lib/libvirt/images/own.img")  # each daemon has that folder to itself
    await hosts.a.start(replace(disk_vm([own]), name=VM))
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code == ExitCode.NO_PLAN
    assert "There is no /var/lib/libvirt/images/own.img on b" in said.errors
    assert await at.places(VM) == ["a"]


async def test_a_disk_moves_along_and_back_alone(hosts: Hosts, at: Person) -> None:
    await started(hosts, at, defined=True)
    there, back = at.folder / "there", at.folder / "back"
    there.mkdir()
    back.mkdir()
    said = await at.whimbrel("move", VM, "--to", "b", "--storage", str(there), *FAST)
    assert said.code in MOVED, said.errors
    await whole(at, "b")
    said = await at.whimbrel("vms", "--json")
    [disks] = [each["disks"] for each in said.json["vms"] if each["name"] == VM]
    assert disks == [str(there / "vda.img")]
    said = await at.whimbrel("move", VM, "--storage", str(back), "--remove-source")
    assert said.code == ExitCode.DONE, said.errors
    assert [each.name for each in back.iterdir()] == ["vda.img"]
    assert list(there.iterdir()) == []
    await whole(at, "b")


async def test_a_cpu_that_the_other_host_cannot_give_is_refused(hosts: Hosts, at: Person) -> None:
    vm = replace(disk_vm([]), name=VM, cpu="EPYC-Genoa")
    unchecked = domain_xml(vm).replace('match="exact"', 'match="exact" check="none"')
    await (await hosts.a.connection()).boot(unchecked)  # QEMU leaves out what it has not got
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code == ExitCode.NO_PLAN
    assert f"b cannot give {VM} the CPU that it has" in said.errors
    assert await at.places(VM) == ["a"]


async def test_another_vm_of_the_name_is_in_the_way(hosts: Hosts, at: Person) -> None:
    await started(hosts, at)
    other = replace(disk_vm([]), name=VM, memory=64 * MIB)
    connection = await hosts.b.connection()
    machine = await persisted(hosts.b, other)
    await machine.stop()
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code == ExitCode.NO_PLAN
    assert f"virsh undefine {VM}" in said.errors
    assert await connection.domain(VM) is not None
    assert await at.places(VM) == ["a"]


async def test_over_a_network_that_nobody_trusts_it_is_said_what_helps(
    hosts: Hosts, at: Person
) -> None:
    await started(hosts, at)
    at.config.write_text(at.config.read_text().replace("trusted = true", "trusted = false"))
    said = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert said.code == ExitCode.NO_PLAN
    assert "trusted = true" in said.errors
    assert "--encryption never" in said.errors
    said = await at.whimbrel("move", VM, "--to", "b", "--encryption", "never", *FAST)
    assert said.code in MOVED, said.errors
    assert "UNENCRYPTED" in said.errors


@pytest.fixture
async def certificates(libvirts: Libvirts) -> AsyncIterator[None]:
    ours, pair = Authority("ours"), (libvirts.a, libvirts.b)
    for libvirt in pair:
        await certified(libvirt, ours)
    yield
    for libvirt in pair:
        await libvirt.configure()


@pytest.mark.usefixtures("certificates")
async def test_libvirts_own_certificates_encrypt_what_must_be_encrypted(
    hosts: Hosts, at: Person
) -> None:
    await hosts.a.start(replace(disk_vm([]), name=VM))
    said = await at.whimbrel("move", VM, "--to", "b", "--encryption", "always", *FAST)
    assert said.code in MOVED, said.errors
    assert "travel encrypted" in said.errors
    assert await at.places(VM) == ["b"]
    said = await at.whimbrel(
        "plan", VM, "--to", "a", "--survey", "quick", "--encryption", "always", "--json"
    )
    assert said.json["chosen"]["tuning"]["encrypted"] is True, said.output


async def test_on_a_host_itself_the_other_way_is_the_same(hosts: Hosts, at: Person) -> None:
    at.write(here=True)
    await started(hosts, at)
    for to in ("b", "a"):
        said = await at.whimbrel("move", VM, "--to", to, *FAST)
        assert said.code in MOVED, said.errors
        assert await at.places(VM) == [to]
    await whole(at, "a")


async def test_a_move_leaves_to_others_what_it_was_told_to(hosts: Hosts, at: Person) -> None:
    await started(hosts, at)
    words = ("--leave", "50%", "--cpu-budget", "1")
    said = await at.whimbrel("move", VM, "--to", "b", *words, *FAST)
    assert said.code in MOVED, said.errors
    assert "a: the move may use 0.5 cores" in said.errors
    assert await at.places(VM) == ["b"]


async def test_pages_go_uncopied_where_libvirt_may_see_to_it_and_else_it_is_said_why_not(
    hosts: Hosts, at: Person
) -> None:
    await started(hosts, at)
    words = ("--method", "multichannel", "--zero-copy")
    said = await at.whimbrel("move", VM, "--to", "b", *words, *FAST)
    if said.code in MOVED:
        assert await at.places(VM) == ["b"]
        return
    assert said.code == ExitCode.NO_PLAN, said.errors
    assert "CAP_SYS_RESOURCE" in said.errors
    assert await at.places(VM) == ["a"]


async def test_what_virsh_has_begun_can_be_looked_at(
    hosts: Hosts, at: Person, libvirts: Libvirts
) -> None:
    full = firmware(Pacing(first=MIB, pages=32 * MIB // PAGE, rate=1), libvirts.folder)
    machine = await hosts.a.start(replace(still(libvirts), firmware=full, name=VM))
    domain = await machine.domain()
    words = ["virsh", "--connect", at.libvirts.a.uri, "migrate", "--live", "--p2p"]
    words += ["--bandwidth", "1", "--migrateuri", f"tcp://{at.libvirts.b.lab.addresses[0]}"]
    words += [VM, at.libvirts.b.remote]
    moving = asyncio.create_task(daemons.said(words))
    while not under_way(await domain.job()):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.05)
    looked = await at.whimbrel("watch", VM, "--on", "a", "--json")
    assert looked.code == ExitCode.DONE, looked.errors
    assert "completed" in looked.output.splitlines()[-1]
    await moving
    assert await at.places(VM) == ["b"]


async def test_others_look_on_and_a_second_move_is_refused(hosts: Hosts, at: Person) -> None:
    await started(hosts, at)
    moving = await at.started("move", VM, "--to", "b", "--limit", "32 Mbit/s", *FAST)
    await at.until_step(VM, "sending")
    looking = await at.started("watch", VM, "--on", "a", "--json")
    seen = asyncio.create_task(looking.communicate())  # more than a pipe may hold
    second = await at.whimbrel("move", VM, "--to", "b", *FAST)
    assert second.code in {ExitCode.NO_PLAN, ExitCode.CONFIG, ExitCode.HOST}
    assert "move" in second.errors
    await asyncio.wait_for(moving.communicate(), 200)
    assert moving.returncode in MOVED
    output, errors = await asyncio.wait_for(seen, 60)
    assert looking.returncode == ExitCode.DONE, errors.decode()
    told = [json.loads(line) for line in output.decode().splitlines()]
    assert {each["step"] for each in told} == {"event"}
    assert "completed" in json.dumps(told[-1])
    said = await at.whimbrel("watch", VM)
    assert said.code == ExitCode.CONFIG
    assert "not being moved now" in said.errors

"""Moves that libvirt encrypts with its hosts' certificates, and the ports that it allows."""

import asyncio
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from contract.certificates import PURPOSES, Authority
from libvirtd.conftest import Hosts
from libvirtd.daemons import Libvirt, Libvirts, said
from libvirtd.test_moves import still
from libvirtd.test_storage import site
from storage.pair import Watched
from unit.practice.fakes import Silent
from whimbrel.errors import CommandRefused, ConfigError, Unsupported
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.model.inventory import X509, Capability, Disk, MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.outcome import Ending
from whimbrel.ports import Machine
from whimbrel.practice import storage
from whimbrel.practice.move import Request, move
from whimbrel.practice.settle import Moved
from whimbrel.practice.storage import StorageWish, storage_beside

SNIFF = """\
import select, socket, sys
ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("listens", flush=True)
found = False
while True:
    ready, _, _ = select.select([ears, sys.stdin], [], [])
    if ears in ready:
        found = sys.argv[1].encode() in ears.recv(1 << 17) or found
    elif ready:
        break
print(found)
"""
"""Reads every frame that comes by, and says at the end whether a word was in one of them."""

RAM = "pc.ram"
"""QEMU's name of the guest's memory, which is at the beginning of every stream."""


@dataclass
class Overheard:
    """Whether somebody on the way could read it; known when the block is left."""

    readable: bool = False


@asynccontextmanager
async def overheard(libvirt: Libvirt, word: str) -> AsyncIterator[Overheard]:
    words = libvirt.enter([sys.executable, "-I", "-c", SNIFF, word])
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    found = Overheard()
    try:
        assert await process.stdout.readline() == b"listens\n"
        yield found
    finally:
        process.stdin.close()
        found.readable = (await process.stdout.readline()).strip() == b"True"
        await process.wait()


async def certified(libvirt: Libvirt, authority: Authority) -> None:
    """Give a host certificates for both ends, where its libvirt looks for them."""
    place = libvirt.folder / "pki"
    shutil.rmtree(place, ignore_errors=True)
    for purpose in PURPOSES:
        authority.folder(libvirt.folder / purpose, purpose, f"{libvirt.name}.example")
        shutil.copytree(libvirt.folder / purpose, place, dirs_exist_ok=True)
        shutil.rmtree(libvirt.folder / purpose)
    await libvirt.configure(f'migrate_tls_x509_cert_dir = "{place}"')


def address_of(libvirt: Libvirt, name: str | None = None) -> MigrationAddress:
    """Return where a host listens, encrypted where its certificate must say a name."""
    credentials = None if name is None else X509("", "", name)
    return MigrationAddress(libvirt.lab.addresses[0], credentials=credentials)


async def gone(
    source: LibvirtHost,
    machine: Machine,
    destination: LibvirtHost,
    address: MigrationAddress,
    channels: int | None = None,
) -> Moved:
    tuning = Tuning(channels=channels, encrypted=address.encrypted)
    return await move(Request(source, machine, destination, address, tuning, 60.0), Silent())


@pytest.mark.parametrize("channels", [None, 2])
async def test_nobody_reads_a_move_that_libvirt_encrypts(
    libvirts: Libvirts, hosts: Hosts, channels: int | None
) -> None:
    ours = Authority("ours")
    for libvirt in (libvirts.a, libvirts.b):
        await certified(libvirt, ours)
    assert Capability.TLS_X509 in await hosts.a.capabilities()
    machine: Machine = await hosts.a.start(still(libvirts))
    async with overheard(libvirts.b, RAM) as openly:
        there = await gone(hosts.a, machine, hosts.b, address_of(libvirts.b), channels)
    assert there.machine is not None, there.outcome.reason
    async with overheard(libvirts.a, RAM) as privately:
        address = address_of(libvirts.a, "a.example")
        back = await gone(hosts.b, there.machine, hosts.a, address, channels)
    assert back.outcome.ending is Ending.COMPLETED, back.outcome.reason
    assert openly.readable
    assert not privately.readable


async def test_disks_travel_as_private_as_the_memory(
    libvirts: Libvirts, hosts: Hosts, tmp_path: Path
) -> None:
    ours = Authority("ours")
    folders = {libvirt.name: tmp_path / libvirt.name for libvirt in (libvirts.a, libvirts.b)}
    for libvirt in (libvirts.a, libvirts.b):
        await certified(libvirt, ours)
        folders[libvirt.name].mkdir()
    mark = "what-is-on-this-disk"
    image = folders["a"] / "root.raw"
    image.write_bytes((mark.encode() + bytes(512 - len(mark))) * 2048)
    vm = replace(still(libvirts), disks=(Disk("vda", str(image)),))
    machine: Machine = await hosts.a.start(vm)
    async with site(libvirts.a) as here, site(libvirts.b) as there:
        wish = StorageWish((str(folders["b"]),))
        async with overheard(libvirts.b, mark) as openly:
            address = address_of(libvirts.b)
            both = storage.Hosts(here, there)
            moved = await gone_with_disks((hosts.a, machine, hosts.b), both, wish, address)
        assert moved.machine is not None, moved.outcome.reason
        image.unlink()
        wish = StorageWish((str(folders["a"]),))
        async with overheard(libvirts.a, mark) as privately:
            address = address_of(libvirts.a, "a.example")
            both = storage.Hosts(there, here)
            way = (hosts.b, moved.machine, hosts.a)
            back = await gone_with_disks(way, both, wish, address)
    assert back.outcome.ending is Ending.COMPLETED, back.outcome.reason
    assert mark.encode() in image.read_bytes()
    assert openly.readable
    assert not privately.readable


async def gone_with_disks(
    way: tuple[LibvirtHost, Machine, LibvirtHost],
    both: storage.Hosts,
    wish: StorageWish,
    address: MigrationAddress,
) -> Moved:
    source, machine, destination = way
    tuning = Tuning(encrypted=address.encrypted)
    async with storage_beside(machine, both, wish, Watched()) as beside:
        request = Request(source, machine, destination, address, tuning, 60.0)
        request = replace(request, companions=(beside,), vm=beside.vm)
        return await move(request, Silent())


async def test_a_host_that_cannot_prove_itself_gets_no_guest(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    await certified(libvirts.a, Authority("ours"))
    await certified(libvirts.b, Authority("others"))
    machine = await hosts.a.start(still(libvirts))
    moved = await gone(hosts.a, machine, hosts.b, address_of(libvirts.b, "b.example"))
    assert moved.outcome.ending is Ending.FAILED
    assert "certificate" in moved.outcome.reason.lower()
    assert await machine.running()
    assert (await said(["virsh", "-q", "-c", libvirts.b.uri, "list", "--all"])).strip() == ""


async def test_a_host_that_is_another_than_was_named_gets_no_guest(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    ours = Authority("ours")
    for libvirt in (libvirts.a, libvirts.b):
        await certified(libvirt, ours)
    machine = await hosts.a.start(still(libvirts))
    moved = await gone(hosts.a, machine, hosts.b, address_of(libvirts.b, "c.example"))
    assert moved.outcome.ending is Ending.FAILED
    assert "c.example" in moved.outcome.reason
    assert await machine.running()


async def test_a_host_without_certificates_says_where_libvirt_looks_for_them(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    nothing = libvirts.b.folder / "nothing"
    nothing.mkdir(exist_ok=True)
    await libvirts.b.configure(f'default_tls_x509_cert_dir = "{nothing}"')
    assert str(nothing) in (await hosts.b.lacking())[Capability.TLS_X509]
    vm = still(libvirts)
    with pytest.raises(Unsupported) as refused:
        await hosts.b.receive(vm, Tuning(), address_of(libvirts.b, "b.example"))
    assert f"libvirt looks in {nothing}, where there is no ca-cert.pem" in refused.value.what
    assert "migrate_tls_x509_cert_dir" in refused.value.hint


async def test_a_move_is_never_less_private_than_was_asked(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    ours = Authority("ours")
    for libvirt in (libvirts.a, libvirts.b):
        await certified(libvirt, ours)
    vm, there = still(libvirts), libvirts.b.lab.addresses[0]
    with pytest.raises(Unsupported, match="never with a key"):
        await hosts.b.receive(vm, Tuning(), MigrationAddress(there, key="00" * 32))
    with pytest.raises(ConfigError, match="no certificates"):
        await hosts.b.receive(vm, Tuning(encrypted=True), MigrationAddress(there))
    elsewhere = MigrationAddress(there, credentials=X509("/mine", "/mine"))
    with pytest.raises(ConfigError, match="takes certificates from"):
        await hosts.b.receive(vm, Tuning(encrypted=True), elsewhere)


async def test_destinations_listen_at_the_ports_that_the_host_allows(
    libvirts: Libvirts, hosts: Hosts
) -> None:
    await libvirts.b.configure("migration_port_min = 50000", "migration_port_max = 50002")
    first = await hosts.b.receive(still(libvirts), Tuning(), address_of(libvirts.b))
    second = await hosts.b.receive(still(libvirts), Tuning(), address_of(libvirts.b))
    third = await hosts.b.receive(still(libvirts), Tuning(), address_of(libvirts.b))
    assert {each.address.port for each in (first, second, third)} == {50000, 50001, 50002}
    with pytest.raises(CommandRefused, match="All 3 migration ports"):
        await hosts.b.receive(still(libvirts), Tuning(), address_of(libvirts.b))

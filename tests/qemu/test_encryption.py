"""Encrypted moves on real QEMU: they arrive whole, strangers stay out, and nothing is left."""

import asyncio
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from contract.certificates import Authority
from contract.harness import ResidentHarness, resident_harness
from whimbrel.errors import (
    CommandRefused,
    ConfigError,
    HostError,
    HostUnreachable,
    Unsupported,
)
from whimbrel.hypervisors.qemu import QemuHost
from whimbrel.hypervisors.qemu import machine as machine_module
from whimbrel.hypervisors.qemu import migration as migration_module
from whimbrel.hypervisors.qemu import storage as storage_module
from whimbrel.hypervisors.qemu.encryption import MIGRATION, NBD, Endpoint, nbd_credentials
from whimbrel.hypervisors.qemu.machine import QemuMachine, QemuReception
from whimbrel.hypervisors.qemu.process import ChildProcess
from whimbrel.model.inventory import X509, Capability, Disk, MigrationAddress, Vm
from whimbrel.model.method import Method, Postcopy, Settings, Transport, Tuning, tuning_for
from whimbrel.model.migration import (
    Cancel,
    Observation,
    Phase,
    PhaseChange,
    SetBandwidthLimit,
    StartPostcopy,
)
from whimbrel.model.storage import Extent
from whimbrel.model.units import MIB

MEMORY = 128 * MIB
MARKED = range(64 * MIB, 80 * MIB, 4096)
"""Pages of guest memory that the firmware does not touch, each to hold a mark."""

LOCAL = "127.0.0.1"
PLAIN = Tuning(encrypted=True)
HANDED_OVER = {Phase.POSTCOPY, Phase.COMPLETED}


@dataclass
class Pair:
    """Two hosts on this machine, and one key."""

    source: QemuHost
    destination: QemuHost
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    vm: Vm = Vm("secret", MEMORY)

    @property
    def address(self) -> MigrationAddress:
        return MigrationAddress(LOCAL, key=self.key)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    # Not tmp_path: UNIX socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with QemuHost("a", Path(folder)) as source, QemuHost("b", Path(folder)) as there:
            yield Pair(source, there)


def folder_of(machine: QemuMachine) -> Path:
    assert isinstance(machine.process, ChildProcess)
    return machine.process.folder


def guest_memory(machine: QemuMachine) -> int:
    """Return where the guest's memory begins in its process: the mapping of its very size."""
    for line in Path(f"/proc/{machine.pid}/maps").read_text().splitlines():
        first, last = (int(word, 16) for word in line.split()[0].split("-"))
        if last - first == MEMORY:
            return first
    raise AssertionError("no mapping has the size of the guest's memory")


def mark(machine: QemuMachine, content: bytes) -> None:
    begin = guest_memory(machine)
    with Path(f"/proc/{machine.pid}/mem").open("r+b", buffering=0) as memory:
        for at in MARKED:
            memory.seek(begin + at)
            memory.write(content + at.to_bytes(8, "big"))


def marked(machine: QemuMachine, content: bytes) -> bool:
    begin = guest_memory(machine)
    with Path(f"/proc/{machine.pid}/mem").open("rb", buffering=0) as memory:
        for at in MARKED:
            memory.seek(begin + at)
            if memory.read(len(content) + 8) != content + at.to_bytes(8, "big"):
                return False
    return True


async def move(
    pair: Pair, machine: QemuMachine, tuning: Tuning, address: MigrationAddress
) -> list[Phase]:
    """Send a guest to where somebody may wait for it, and return the phases it went through."""
    migration = await pair.source.send(machine, tuning, address)
    phases = []
    async for event in migration.watch():
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            with suppress(CommandRefused):
                if tuning.postcopy is not Postcopy.NEVER and Phase.POSTCOPY not in phases:
                    await migration.apply(StartPostcopy())
        if isinstance(event, PhaseChange):
            phases.append(event.phase)
    return phases


async def arrived(
    pair: Pair, machine: QemuMachine, tuning: Tuning, address: MigrationAddress | None = None
) -> QemuReception:
    """Move a guest and let it run at the destination; by the pair's key unless told otherwise."""
    reception = await pair.destination.receive(pair.vm, tuning, address or pair.address)
    migration = await pair.source.send(machine, tuning, reception.address)
    phases: set[Phase] = set()
    async for event in migration.watch():
        if isinstance(event, PhaseChange):
            if event.phase in HANDED_OVER and not phases & HANDED_OVER:
                await reception.run()
            phases.add(event.phase)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            with suppress(CommandRefused):  # it was quicker
                if tuning.postcopy is not Postcopy.NEVER:
                    await migration.apply(StartPostcopy())
    assert Phase.COMPLETED in phases, (await migration.ended()).reason
    assert (Phase.POSTCOPY in phases) is (tuning.postcopy is not Postcopy.NEVER)
    return reception


def left_of_the_key(pair: Pair, *machines: QemuMachine) -> list[str]:
    """Name every place in which the key can be found."""
    found = []
    for machine in machines:
        if not machine.process.alive:
            continue
        command = Path(f"/proc/{machine.pid}/cmdline").read_bytes()
        found += ["command line"] if pair.key.encode() in command else []
        for path in folder_of(machine).rglob("*"):
            if path.is_file() and pair.key.encode() in path.read_bytes():
                found.append(str(path))
    return found


async def objects(machine: QemuMachine) -> set[str]:
    listed = await machine.process.monitor.execute("qom-list", {"path": "/objects"})
    return {entry["name"] for entry in listed}


WAYS = {
    "tcp": PLAIN,
    "multichannel": replace(PLAIN, channels=2),
    "compressed": tuning_for(Method.COMPRESSED, Settings(free_page_hints=False, encrypted=True)),
    "xbzrle": replace(PLAIN, xbzrle_cache=16 * MIB),
    "throttled": replace(PLAIN, throttling=True),
    "postcopy": replace(PLAIN, postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=20e6),
    "preempt": replace(PLAIN, postcopy=Postcopy.AFTER_FIRST_PASS_PREEMPT, bandwidth_limit=20e6),
    "as qemu comes": Tuning(as_qemu_comes=True, encrypted=True),
}


@pytest.mark.parametrize("name", WAYS)
async def test_encrypted_moves_keep_memory_whole_and_leave_nothing(pair: Pair, name: str) -> None:
    content = secrets.token_bytes(32)
    machine = await pair.source.start(pair.vm)
    mark(machine, content)
    reception = await arrived(pair, machine, WAYS[name])
    there = reception.machine
    assert await there.running()
    assert marked(there, content)
    assert left_of_the_key(pair, machine) == []
    await there.forget_move()
    assert left_of_the_key(pair, there) == []
    assert not {MIGRATION, NBD} & await objects(there)
    parameters = await there.process.monitor.execute("query-migrate-parameters")
    assert parameters["tls-creds"] == parameters["tls-hostname"] == ""


async def test_a_guest_that_arrived_encrypted_goes_on_openly(pair: Pair) -> None:
    machine = await pair.source.start(pair.vm)
    reception = await arrived(pair, machine, PLAIN)
    await machine.stop()
    back = await pair.source.receive(pair.vm, Tuning(), MigrationAddress(LOCAL))
    migration = await pair.destination.send(reception.machine, Tuning(), back.address)
    phases = [e.phase async for e in migration.watch() if isinstance(e, PhaseChange)]
    assert phases[-1] is Phase.COMPLETED
    await back.run()


class Relay:
    """Passes on every byte between a source and a destination, and keeps what it saw."""

    def __init__(self, port: int) -> None:
        self.seen = bytearray()
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[MigrationAddress]:
        server = await asyncio.start_server(self._connected, LOCAL, 0)
        try:
            yield MigrationAddress(LOCAL, server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back, forth = await asyncio.open_connection(LOCAL, self._port)
        try:
            await asyncio.gather(self._passed_on(reader, forth), self._passed_on(back, writer))
        finally:
            forth.close()
            writer.close()

    async def _passed_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while content := await reader.read(1 << 18):
                self.seen += content
                writer.write(content)
                await writer.drain()
            writer.write_eof()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_whoever_listens_on_the_wire_reads_pages_only_of_an_open_move(
    pair: Pair, *, encrypted: bool
) -> None:
    content = secrets.token_bytes(32)
    machine = await pair.source.start(pair.vm)
    mark(machine, content)
    tuning = Tuning(encrypted=encrypted)
    address = pair.address if encrypted else MigrationAddress(LOCAL)
    reception = await pair.destination.receive(pair.vm, tuning, address)
    relay = Relay(reception.address.port)
    async with relay.listening() as between:
        phases = await move(pair, machine, tuning, replace(address, port=between.port))
    assert phases[-1] is Phase.COMPLETED
    await reception.run()
    assert marked(reception.machine, content)
    assert len(relay.seen) > len(MARKED) * 4096
    assert (content in relay.seen) is not encrypted
    assert pair.key.encode() not in relay.seen
    assert bytes.fromhex(pair.key) not in relay.seen


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_a_source_without_the_key_keeps_its_guest_and_the_right_one_still_comes_in(
    pair: Pair, key: str
) -> None:
    stranger = await pair.source.start(replace(pair.vm, name="stranger"))
    reception = await pair.destination.receive(pair.vm, PLAIN, pair.address)
    theirs = secrets.token_hex(32) if key else ""
    address = replace(reception.address, key=theirs)
    migration = await pair.source.send(stranger, Tuning(encrypted=bool(key)), address)
    phases = [e.phase async for e in migration.watch() if isinstance(e, PhaseChange)]
    assert phases[-1] is Phase.FAILED
    reason = (await migration.ended()).reason
    assert "TLS" in reason if key else reason
    assert theirs not in reason or not key
    assert await stranger.running()
    assert not await reception.machine.running()

    machine = await pair.source.start(pair.vm)
    assert (await move(pair, machine, PLAIN, reception.address))[-1] is Phase.COMPLETED
    await reception.run()


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x00\x05hello", b"QEVM" + bytes(4096)])
async def test_strangers_who_knock_wrongly_are_sent_away_and_the_right_one_comes_in(
    pair: Pair, said: bytes
) -> None:
    reception = await pair.destination.receive(pair.vm, PLAIN, pair.address)
    machine = await pair.source.start(pair.vm)
    async with AsyncExitStack() as strangers:
        for _ in range(3):
            door = socket.create_connection((LOCAL, reception.address.port))
            strangers.callback(door.close)
            door.sendall(said)
        phases = await move(pair, machine, PLAIN, reception.address)
    assert phases[-1] is Phase.COMPLETED
    await reception.run()


async def test_a_stranger_who_keeps_silent_holds_up_the_move_until_he_leaves(pair: Pair) -> None:
    # QEMU waits for his handshake with all else it has to do (10.0: the socket blocks).
    reception = await pair.destination.receive(pair.vm, PLAIN, pair.address)
    machine = await pair.source.start(pair.vm)
    phases: list[Phase] = []
    with socket.create_connection((LOCAL, reception.address.port)) as stranger:
        migration = await pair.source.send(machine, PLAIN, reception.address)
        async for event in migration.watch():
            if isinstance(event, PhaseChange):
                phases.append(event.phase)
            if phases == [Phase.SETUP]:
                stranger.close()
    assert phases[-1] is Phase.COMPLETED


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_destination_that_never_shakes_hands_is_left_and_the_guest_goes_on(
    monkeypatch: pytest.MonkeyPatch, *, cancelled: bool
) -> None:
    # Without the cut QEMU would wait for ever, and its guest with it.
    monkeypatch.setattr(migration_module, "HANDSHAKE_WITHIN", 0.5)
    key = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with resident_harness(Path(folder)) as hosts:
            machine = await hosts.source.start(hosts.vm)
            with socket.create_server((LOCAL, 0)) as silent:  # the kernel accepts, nobody talks
                address = MigrationAddress(LOCAL, silent.getsockname()[1], key=key)
                migration = await hosts.source.send(machine, PLAIN, address)
                phases = []
                async for event in migration.watch():
                    if isinstance(event, PhaseChange):
                        phases.append(event.phase)
                    if phases == [Phase.SETUP] and cancelled:
                        await migration.apply(Cancel())
                ended = await migration.ended()
            assert phases[-1] is (Phase.CANCELLED if cancelled else Phase.FAILED)
            assert cancelled or "did not shake hands" in ended.reason
            assert await machine.running()


async def recovered(hosts: ResidentHarness, key: str, *, stranger: bool) -> QemuMachine:
    """Move by post-copy, lose the connection, take it up again, and return the destination."""
    tuning = replace(WAYS["postcopy"], bandwidth_limit=150_000.0)
    machine = await hosts.source.start(hosts.vm)
    address = replace(hosts.address, key=key)
    reception = await hosts.destination.receive(hosts.vm, tuning, address)
    migration = await hosts.source.send(machine, tuning, reception.address)
    begun = False
    async with AsyncExitStack() as strangers:
        async for event in migration.watch():
            if isinstance(event, Observation) and event.phase is Phase.PRECOPY and not begun:
                begun = True
                await migration.apply(StartPostcopy())
            if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY:
                if not await reception.machine.running():
                    await reception.run()
                    await migration.pause()
                else:
                    await migration.apply(SetBandwidthLimit(None))
            if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY_PAUSED:
                again = await reception.listen_again()
                if stranger:
                    door = socket.create_connection((again.host, again.port))
                    strangers.callback(door.close)
                    with pytest.raises(HostUnreachable):
                        await migration.resume(again)
                    again = await reception.listen_again()
                await migration.resume(again)
    assert (await migration.ended()).phase is Phase.COMPLETED
    return reception.machine


@pytest.mark.parametrize("stranger", [False, True])
async def test_an_encrypted_post_copy_is_taken_up_again_with_the_same_key(
    monkeypatch: pytest.MonkeyPatch, *, stranger: bool
) -> None:
    monkeypatch.setattr(migration_module, "HANDSHAKE_WITHIN", 0.5)
    monkeypatch.setattr(machine_module, "HANDSHAKE_WITHIN", 0.5)
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with resident_harness(Path(folder)) as hosts:
            there = await recovered(hosts, secrets.token_hex(32), stranger=stranger)
            assert await there.running()
            await there.forget_move()
            assert not list(Path(folder).rglob("keys.psk"))


async def test_after_a_failed_move_the_source_forgets_and_can_move_again(pair: Pair) -> None:
    machine = await pair.source.start(pair.vm)
    reception = await pair.destination.receive(pair.vm, PLAIN, pair.address)
    wrong = replace(reception.address, key=secrets.token_hex(32))
    assert (await move(pair, machine, PLAIN, wrong))[-1] is Phase.FAILED
    await machine.forget_move()
    assert not {MIGRATION, NBD} & await objects(machine)
    assert [path.name for path in folder_of(machine).iterdir() if path.is_dir()] == []
    assert (await move(pair, machine, PLAIN, reception.address))[-1] is Phase.COMPLETED
    await reception.run()


async def test_the_destinations_key_lies_in_a_private_file_and_the_sources_in_none(
    pair: Pair,
) -> None:
    machine = await pair.source.start(pair.vm)
    slow = replace(PLAIN, bandwidth_limit=150_000.0)
    reception = await pair.destination.receive(pair.vm, slow, pair.address)
    there = folder_of(reception.machine) / MIGRATION
    assert there.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in there.iterdir()} == {0o600}
    await pair.source.send(machine, slow, reception.address)
    assert left_of_the_key(pair, machine) == []
    assert left_of_the_key(pair, reception.machine) == [str(there / "keys.psk")]
    await reception.machine.stop()
    assert not there.exists()


async def test_an_encrypted_move_without_a_key_is_refused_and_never_sent_openly(
    pair: Pair,
) -> None:
    machine = await pair.source.start(pair.vm)
    with pytest.raises(ConfigError):
        await pair.destination.receive(pair.vm, PLAIN, MigrationAddress(LOCAL))
    with pytest.raises(ConfigError):
        await pair.source.send(machine, PLAIN, MigrationAddress(LOCAL, 1))


async def test_no_error_and_no_text_shows_the_key(pair: Pair) -> None:
    bad = replace(pair.address, host="192.0.2.1")  # TEST-NET-1 (RFC 5737): nobody's address
    with pytest.raises(HostError) as caught:
        await pair.destination.receive(pair.vm, PLAIN, bad)
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {bad!r}"
    assert pair.key not in told


async def test_rdma_with_a_key_is_refused(pair: Pair) -> None:
    with pytest.raises(Unsupported):
        await pair.destination.receive(
            pair.vm, replace(PLAIN, transport=Transport.RDMA), pair.address
        )


async def test_this_qemu_takes_keys_and_certificates(pair: Pair) -> None:
    assert {Capability.TLS_PSK, Capability.TLS_X509} <= await pair.source.capabilities()


async def nbd_pair(pair: Pair) -> tuple[QemuMachine, QemuMachine, int]:
    """Return a client and a server that offers its disk "copy" by NBD with the pair's key."""
    client, server = [await host.start(pair.vm) for host in (pair.source, pair.destination)]
    port = 0
    with socket.create_server((LOCAL, 0)) as free:
        port = free.getsockname()[1]
    monitor = server.process.monitor
    await monitor.execute("blockdev-add", {"driver": "null-co", "node-name": "copy", "size": MIB})
    name = await nbd_credentials(server.process, pair.address, Endpoint.SERVER)
    place = {"type": "inet", "data": {"host": LOCAL, "port": str(port)}}
    await monitor.execute("nbd-server-start", {"addr": place, "tls-creds": name})
    await monitor.execute(
        "block-export-add", {"type": "nbd", "id": "copy", "node-name": "copy", "writable": True}
    )
    return client, server, port


async def connect(client: QemuMachine, port: int, credentials: str) -> None:
    place = {"type": "inet", "host": LOCAL, "port": str(port)}
    node = {"driver": "nbd", "node-name": "there", "server": place, "export": "copy"}
    if credentials:
        node["tls-creds"] = credentials
    await client.process.monitor.execute("blockdev-add", node)


async def test_disks_travel_by_the_same_key_and_nobody_else_reads_them(pair: Pair) -> None:
    client, server, port = await nbd_pair(pair)
    with pytest.raises(CommandRefused):
        await connect(client, port, "")
    wrong = replace(pair.address, key=secrets.token_hex(32))
    name = await nbd_credentials(client.process, wrong, Endpoint.CLIENT)
    with pytest.raises(CommandRefused):
        await connect(client, port, name)
    name = await nbd_credentials(client.process, pair.address, Endpoint.CLIENT)
    await connect(client, port, name)
    for machine in (client, server):
        await machine.forget_move()
        assert left_of_the_key(pair, machine) == []
        assert NBD not in await objects(machine)


async def test_certificates_of_one_authority_let_each_other_in_and_nobody_else(
    pair: Pair, tmp_path: Path
) -> None:
    ours, others = Authority("ours"), Authority("others")
    there = ours.folder(tmp_path / "b", "server", "b.example")
    credentials = X509(ours.folder(tmp_path / "a", "client", "a.example"), there, "b.example")
    strange = replace(credentials, source=others.folder(tmp_path / "c", "client", "a.example"))
    address = MigrationAddress(LOCAL, credentials=credentials)
    machine = await pair.source.start(pair.vm)
    reception = await pair.destination.receive(pair.vm, PLAIN, address)
    elsewhere = replace(reception.address, credentials=strange)
    assert (await move(pair, machine, PLAIN, elsewhere))[-1] is Phase.FAILED
    assert await machine.running()
    assert (await move(pair, machine, PLAIN, reception.address))[-1] is Phase.COMPLETED
    await reception.run()
    await reception.machine.forget_move()
    assert (Path(there) / "server-key.pem").exists()


@pytest.mark.parametrize("name", ["tcp", "multichannel", "compressed", "postcopy", "preempt"])
async def test_certificates_encrypt_whatever_a_key_does(
    pair: Pair, tmp_path: Path, name: str
) -> None:
    ours, content = Authority("ours"), secrets.token_bytes(32)
    here = ours.folder(tmp_path / "a", "client", "a.example")
    there = ours.folder(tmp_path / "b", "server", "b.example")
    machine = await pair.source.start(pair.vm)
    mark(machine, content)
    address = MigrationAddress(LOCAL, credentials=X509(here, there, "b.example"))
    reception = await arrived(pair, machine, WAYS[name], address)
    assert await reception.machine.running()
    assert marked(reception.machine, content)
    await reception.machine.forget_move()
    assert MIGRATION not in await objects(reception.machine)


async def test_a_destination_whose_certificate_says_another_name_gets_no_guest(
    pair: Pair, tmp_path: Path
) -> None:
    ours = Authority("ours")
    here = ours.folder(tmp_path / "a", "client", "a.example")
    there = ours.folder(tmp_path / "b", "server", "b.example")
    address = MigrationAddress(LOCAL, credentials=X509(here, there, "c.example"))
    machine = await pair.source.start(pair.vm)
    reception = await pair.destination.receive(pair.vm, PLAIN, address)
    migration = await pair.source.send(machine, PLAIN, reception.address)
    phases = [e.phase async for e in migration.watch() if isinstance(e, PhaseChange)]
    assert phases[-1] is Phase.FAILED
    assert "hostname c.example" in (await migration.ended()).reason
    assert await machine.running()


@pytest.mark.parametrize("key", ["", "00" * 32])
async def test_an_export_that_never_shakes_hands_is_left_and_the_guest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    monkeypatch.setattr(storage_module, "HANDSHAKE_WITHIN", 0.5)
    disk = Disk("data", str(tmp_path / "data.img"), size=MIB)
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with resident_harness(Path(folder)) as hosts:
            machine = await hosts.source.start(replace(hosts.vm, disks=(disk,)))
            with socket.create_server((LOCAL, 0)) as silent:  # the kernel accepts, nobody talks
                address = MigrationAddress(LOCAL, silent.getsockname()[1], key=key)
                with pytest.raises(HostUnreachable):
                    await machine.storage().mirror("data", address, Extent.WHOLE)
                assert await machine.running()

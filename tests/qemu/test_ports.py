"""A destination listens on the ports that it was given, and on no other."""

import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.harness import qemu_harness
from whimbrel.errors import CommandRefused
from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.units import MIB

LOCAL = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on, with free ones behind it."""
    with socket.create_server((LOCAL, 0)) as somebody:
        yield somebody.getsockname()[1]


async def test_memory_and_disks_take_the_free_ports_of_the_range(taken: int) -> None:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        images = Path(folder, "images")
        images.mkdir()
        disk = Disk("data", str(images / "data.img"), size=MIB)
        (images / "data.img").write_bytes(bytes(MIB))
        async with qemu_harness(Path(folder, "vms")) as pair:
            vm = replace(pair.vm, disks=(disk,))
            wanted = MigrationAddress(LOCAL, ports=(taken, taken + 20))
            reception = await pair.destination.receive(vm, Tuning(), wanted)
            memory = reception.address.port
            export = await reception.machine.storage().export(
                replace(reception.address, port=0), ["data"]
            )
            allowed = range(taken + 1, taken + 21)
            assert memory in allowed
            assert export.address.port in allowed
            assert memory != export.address.port


async def test_a_range_with_no_free_port_is_refused_and_named(taken: int) -> None:
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with qemu_harness(Path(folder)) as pair:
            wanted = MigrationAddress(LOCAL, ports=(taken, taken))
            with pytest.raises(CommandRefused) as caught:
                await pair.destination.receive(pair.vm, Tuning(), wanted)
    assert f"{taken} to {taken}" in caught.value.hint

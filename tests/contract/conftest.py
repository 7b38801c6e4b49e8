import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contract.harness import (
    Harness,
    libvirt_harness,
    qemu_harness,
    resident_harness,
    simulated_harness,
)
from libvirtd.daemons import Libvirts, held_libvirts, lacking


@pytest.fixture(scope="module")
def daemons() -> Iterator[Libvirts]:
    if reason := lacking():
        pytest.skip(reason)
    with held_libvirts() as libvirts:
        yield libvirts


@pytest.fixture(params=["simulated", "qemu", "resident", "libvirt"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def libvirts(request: pytest.FixtureRequest, adapter: str) -> Libvirts | None:
    """Start the daemons before the test's event loop runs, since they outlive it."""
    if adapter != "libvirt":
        return None
    found = request.getfixturevalue("daemons")
    assert isinstance(found, Libvirts)
    return found


@pytest.fixture
async def pair(adapter: str, libvirts: Libvirts | None) -> AsyncIterator[Harness]:
    if adapter == "simulated":
        async with simulated_harness() as simulated:
            yield simulated
        return
    if libvirts is not None:
        async with libvirt_harness(libvirts) as virtual:
            yield virtual
        return
    # Not tmp_path: UNIX socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        building = qemu_harness if adapter == "qemu" else resident_harness
        async with building(Path(folder) / adapter) as harness:
            yield harness

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from libvirtd.daemons import Libvirts, held_libvirts, lacking
from whimbrel.hypervisors.libvirt import LibvirtHost


@dataclass(frozen=True)
class Hosts:
    """Both hosts as whimbrel's adapter holds them."""

    a: LibvirtHost
    b: LibvirtHost


@pytest.fixture(scope="module")
def libvirts() -> Iterator[Libvirts]:
    if reason := lacking():
        pytest.skip(reason)
    with held_libvirts() as pair:
        yield pair


@pytest.fixture
async def hosts(libvirts: Libvirts) -> AsyncIterator[Hosts]:
    async with libvirts.a.opened() as a, libvirts.b.opened() as b:
        try:
            yield Hosts(a, b)
        finally:
            for libvirt in (libvirts.a, libvirts.b):
                await libvirt.clear()


@pytest.fixture
async def led_by_libvirt(libvirts: Libvirts) -> AsyncIterator[Hosts]:
    """Return hosts whose libvirt leads a move itself (peer-to-peer)."""
    async with (
        libvirts.a.opened(peer=libvirts.a.remote) as a,
        libvirts.b.opened(peer=libvirts.b.remote) as b,
    ):
        try:
            yield Hosts(a, b)
        finally:
            for libvirt in (libvirts.a, libvirts.b):
                await libvirt.clear()

"""RDMA through libvirt; what QEMU refuses beside it: tests/unit/hypervisors/qemu/test_rdma.py."""

from dataclasses import replace

import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Codec, Compression, Postcopy, Transport, Tuning
from whimbrel.model.units import MIB

RDMA = Tuning(transport=Transport.RDMA)
ADDRESS = MigrationAddress("10.0.0.2", 49152)


@pytest.mark.parametrize(
    ("tuning", "beside", "instead"),
    [
        (replace(RDMA, channels=2), "several channels", "multichannel"),
        (
            replace(RDMA, channels=2, compression=Compression(Codec.ZSTD, 1)),
            "channels and compression",
            "compressed",
        ),
        (replace(RDMA, xbzrle_cache=MIB), "XBZRLE", "xbzrle"),
        (replace(RDMA, postcopy=Postcopy.IF_STALLED), "post-copy", "postcopy"),
    ],
)
async def test_what_qemu_refuses_beside_rdma_is_refused_before_libvirt_is_asked(
    tuning: Tuning, beside: str, instead: str
) -> None:
    async with LibvirtHost("b", "nowhere:///") as host:
        with pytest.raises(Unsupported, match=beside) as refused:
            await host.receive(Vm("db", 64 * MIB, 1), tuning, ADDRESS)
    assert instead in refused.value.hint

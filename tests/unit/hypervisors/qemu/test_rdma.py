from dataclasses import replace

import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.qemu.hypervisor import _agree
from whimbrel.hypervisors.qemu.translate import capabilities_for
from whimbrel.model.inventory import Capability, MigrationAddress
from whimbrel.model.method import (
    Codec,
    Compression,
    Method,
    Postcopy,
    Settings,
    Transport,
    Tuning,
    rdma_refusal,
    tuning_for,
)

ADDRESS = MigrationAddress("10.0.0.2", 4444)
RDMA = Tuning(transport=Transport.RDMA)
ZSTD = Compression(Codec.ZSTD, 1)


@pytest.mark.parametrize(
    ("tuning", "beside", "instead"),
    [
        (replace(RDMA, channels=2), "several channels", "multichannel"),
        (replace(RDMA, channels=2, compression=ZSTD), "channels and compression", "compressed"),
        (replace(RDMA, xbzrle_cache=1 << 20), "XBZRLE", "xbzrle"),
        (replace(RDMA, postcopy=Postcopy.IF_STALLED), "post-copy", "postcopy"),
        (replace(RDMA, multipath=True), "MPTCP", "multinic"),
    ],
)
def test_what_qemu_refuses_beside_rdma_is_refused_before_anything_is_built(
    tuning: Tuning, beside: str, instead: str
) -> None:
    with pytest.raises(Unsupported, match=beside) as refused:
        _agree(tuning, ADDRESS)
    assert instead in refused.value.hint


@pytest.mark.parametrize("encrypted", [False, True])
def test_by_tcp_all_of_it_can_be_had(*, encrypted: bool) -> None:
    many = Tuning(channels=2, compression=ZSTD, multipath=True, encrypted=encrypted)
    assert rdma_refusal(many) is None
    refusal = rdma_refusal(replace(RDMA, encrypted=encrypted))
    assert (refusal is not None and "encryption" in refusal[0]) is encrypted


@pytest.mark.parametrize("pin_all", [False, True])
def test_the_method_is_one_that_qemu_takes(*, pin_all: bool) -> None:
    tuning = tuning_for(Method.RDMA, Settings(pin_all=pin_all))
    _agree(tuning, ADDRESS)
    [pinned] = [
        each["state"]
        for each in capabilities_for(tuning, frozenset(Capability))
        if each["capability"] == "rdma-pin-all"
    ]
    assert pinned is pin_all
    assert (Capability.RDMA_PIN_ALL in tuning.needs) is pin_all

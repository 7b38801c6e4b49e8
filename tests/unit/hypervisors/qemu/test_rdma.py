import pytest

from whimbrel.errors import Unsupported
from whimbrel.hypervisors.qemu.hypervisor import _agree
from whimbrel.hypervisors.qemu.translate import capabilities_for
from whimbrel.model.inventory import Capability, MigrationAddress
from whimbrel.model.method import Method, Postcopy, Settings, Transport, Tuning, tuning_for

ADDRESS = MigrationAddress("10.0.0.2", 4444)


@pytest.mark.parametrize(
    ("tuning", "beside"),
    [
        (Tuning(transport=Transport.RDMA, channels=2), "several channels"),
        (Tuning(transport=Transport.RDMA, xbzrle_cache=1 << 20), "XBZRLE"),
        (Tuning(transport=Transport.RDMA, postcopy=Postcopy.IF_STALLED), "post-copy"),
        (Tuning(transport=Transport.RDMA, multipath=True), "MPTCP"),
    ],
)
def test_what_qemu_refuses_beside_rdma_is_refused_before_anything_is_built(
    tuning: Tuning, beside: str
) -> None:
    with pytest.raises(Unsupported, match=beside):
        _agree(tuning, ADDRESS)


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

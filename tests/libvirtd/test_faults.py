"""The fault matrix where libvirt runs both hosts; as a table: benchmarks/reliability.py."""

import pytest

from far.hosts import SSHD
from faults.expected import NotApplicable
from libvirtd.daemons import needs_libvirt
from libvirtd.fault_matrix import EXPECTED, Fault, Phase, run_cell

CELLS = [
    (phase, fault)
    for phase in Phase
    for fault in Fault
    if not isinstance(EXPECTED[fault][phase], NotApplicable)
]


@needs_libvirt
@pytest.mark.skipif(SSHD is None, reason="libvirt+ssh needs an sshd")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("peer", [False, True], ids=["led-by-whimbrel", "led-by-libvirt"])
@pytest.mark.parametrize(("phase", "fault"), CELLS)
async def test_a_fault_loses_no_guest_that_physics_spares(
    phase: Phase, fault: Fault, *, peer: bool
) -> None:
    row = await run_cell(phase, fault, peer=peer)
    assert not row.failures, f"{row.failures}; said: {row.said}"


def test_every_fault_has_its_expectation_in_every_phase() -> None:
    assert {(fault, phase) for fault, row in EXPECTED.items() for phase in row} == {
        (fault, phase) for fault in Fault for phase in Phase
    }

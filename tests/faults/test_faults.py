"""A part of the fault matrix; all of it: benchmarks/reliability.py."""

import pytest

from far.hosts import needs_far_hosts
from faults.expected import EXPECTED
from faults.injections import Fault
from faults.matrix import run_cell
from faults.phases import Phase

CELLS = [
    (Phase.MIRROR, Fault.WHIMBREL),
    (Phase.FIRST, Fault.DESTINATION),
    (Phase.SWITCHOVER, Fault.LINK_BREAK),
    (Phase.HANDOVER, Fault.SSH),
    (Phase.POSTCOPY, Fault.SOURCE),
]


@needs_far_hosts
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("phase", "fault"), CELLS)
async def test_a_fault_loses_no_guest_that_physics_spares(phase: Phase, fault: Fault) -> None:
    row = await run_cell(phase, fault)
    assert not row.failures, f"{row.failures}; said: {row.said}"


def test_every_fault_has_its_expectation_in_every_phase() -> None:
    assert {(fault, phase) for fault, row in EXPECTED.items() for phase in row} == {
        (fault, phase) for fault in Fault for phase in Phase
    }

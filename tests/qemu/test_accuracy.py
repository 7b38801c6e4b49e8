"""A suite of one small scenario on real QEMU: every move predicted, judged and intact."""

import asyncio
import os

import pytest

from whimbrel.lab.accuracy import run_accuracy
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import AcceleratorChoice, GuestSpec, LinkSpec, Load, Scenario
from whimbrel.model.survey import Depth
from whimbrel.model.units import MIB

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

LOAD = Load(fill=96 * MIB, hot=16 * MIB, dirty_rate=4e6)
SMALL = Scenario(
    name="small",
    methods=(Method.TCP, Method.POSTCOPY, Method.AUTO),
    timeout=60.0,
    link=LinkSpec(50e6),
    guest=GuestSpec(256 * MIB, redline=LOAD),
    survey=Depth.QUICK,
    accelerator=AcceleratorChoice.TCG,
)


def test_every_move_of_a_suite_is_predicted_and_held_against_what_came() -> None:
    found = asyncio.run(run_accuracy(scenarios=[SMALL]))
    [part] = found.lab.scenarios
    assert [run.ending for run in part.runs] == [Ending.COMPLETED] * 3
    assert all(run.predicted is not None for run in part.runs)
    assert all(run.guest is not None and run.guest.intact for run in part.runs)
    assert len(found.records) == 3
    told = found.assessment
    assert told.promised.moves == 2
    assert told.promised.verdicts.wrong == 0
    assert told.promised.total_time is not None
    # Bytes do not depend on how busy this machine is: a forecast far off would be a wrong model.
    assert told.promised.wire_bytes is not None
    assert told.promised.wire_bytes.errors.worst < 0.25
    assert [each.name for each in told.rivals]
    assert len(told.regrets) == 1

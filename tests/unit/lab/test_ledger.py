import dataclasses

import pytest

from unit.report.samples import completed
from whimbrel.errors import ConfigError
from whimbrel.lab.bench import run_lab
from whimbrel.lab.ledger import Ledger
from whimbrel.model.method import Method
from whimbrel.model.scenario import GuestSpec, Scenario

FIRST, SECOND = Scenario("first"), Scenario("second")
TCP, MULTICHANNEL = completed(Method.TCP), completed(Method.MULTICHANNEL)


def test_a_result_can_be_had_after_every_run() -> None:
    ledger = Ledger("whimbrel lab")
    ledger.begin(FIRST, "QEMU 10", "kvm: works")
    ledger.enter(TCP)
    before = ledger.result()
    ledger.enter(MULTICHANNEL)
    assert before.scenarios[0].runs == (TCP,)
    assert ledger.result().scenarios[0].runs == (TCP, MULTICHANNEL)
    assert ledger.result().machine == before.machine


def test_a_scenario_without_a_run_is_left_out() -> None:
    ledger = Ledger("whimbrel lab")
    assert ledger.result().scenarios == ()
    ledger.begin(FIRST, "QEMU 10", "kvm: works")
    ledger.enter(TCP)
    ledger.begin(SECOND, "QEMU 10", "kvm: works")
    assert [part.scenario for part in ledger.result().scenarios] == [FIRST]


def test_the_machine_is_told_with_whatever_any_scenario_ran_under() -> None:
    ledger = Ledger("whimbrel lab --quick")
    for scenario, accelerator in ((FIRST, "kvm: works"), (SECOND, "tcg: asked for")):
        ledger.begin(scenario, "QEMU 10", accelerator)
        ledger.enter(TCP)
    machine = ledger.result().machine
    assert machine.hypervisor == "QEMU 10"
    assert machine.accelerator == "kvm: works; tcg: asked for"
    assert machine.command == "whimbrel lab --quick"


async def test_a_lab_without_scenarios_is_refused() -> None:
    with pytest.raises(ConfigError, match="no scenario"):
        await run_lab([])


async def test_a_scenario_from_python_is_held_to_the_rules_of_a_file() -> None:
    small = dataclasses.replace(FIRST, guest=GuestSpec(memory=1 << 20))
    with pytest.raises(ConfigError, match=r"first: guest\.memory"):
        await run_lab([SECOND, small])

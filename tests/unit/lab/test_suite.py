from itertools import islice

import pytest

from whimbrel.lab.scenario_check import check
from whimbrel.lab.suite import Pace, accuracy_scenarios
from whimbrel.model.method import Method
from whimbrel.model.scenario import Access, Pattern

MANY = 60


@pytest.mark.parametrize("seed", [1, 2, 77])
def test_every_scenario_can_be_run(seed: int) -> None:
    for scenario in islice(accuracy_scenarios(seed), MANY):
        check(scenario, scenario.name)


def test_the_same_seed_makes_the_same_scenarios_and_another_makes_others() -> None:
    first, again, other = (list(islice(accuracy_scenarios(seed), 12)) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_no_two_scenarios_share_a_name() -> None:
    names = [scenario.name for scenario in islice(accuracy_scenarios(3), MANY)]
    assert len(set(names)) == MANY


def test_a_suite_that_ends_early_has_seen_every_pace() -> None:
    names = [scenario.name for scenario in islice(accuracy_scenarios(4), len(Pace))]
    assert {name.partition(": ")[2] for name in names} == {pace.value for pace in Pace}


def test_the_suite_covers_what_guests_and_links_are_like() -> None:
    scenarios = list(islice(accuracy_scenarios(1), MANY))
    loads = [scenario.guest.redline for scenario in scenarios]
    assert {load.access for load in loads} == set(Access)
    assert {load.pattern for load in loads} == {Pattern.TEXT, Pattern.MIXED, Pattern.RANDOM}
    rates = {scenario.link.rate for scenario in scenarios}
    assert None in rates
    assert min(rate for rate in rates if rate) == 25e6
    # One NIC without RDMA, and nobody to hide from: what these cost has tests of its own.
    elsewhere = {Method.RDMA, Method.MULTINIC, Method.ENCRYPTED}
    assert {method for each in scenarios for method in each.methods} == set(Method) - elsewhere
    assert any(load.freed for load in loads)
    assert any(load.dirty_rate == 0 for load in loads)


def test_some_scenarios_repeat_for_the_noise_floor_and_most_compare_auto() -> None:
    scenarios = list(islice(accuracy_scenarios(1), MANY))
    repeated = [each for each in scenarios if each.repeats > 1]
    compared = [each for each in scenarios if Method.AUTO in each.methods]
    assert len(repeated) + len(compared) == MANY
    assert len(compared) > len(repeated) > 0
    assert all(Method.QEMU_DEFAULT in each.methods for each in compared)

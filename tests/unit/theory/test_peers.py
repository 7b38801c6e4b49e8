"""Ratios of one run: guest by guest, geometric, and honest about what did not complete."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.method import Method, Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import Observed, Run, Scenario, ScenarioResult
from whimbrel.theory.peers import Against, Comparison, Peer, compare

OURS = Peer("whimbrel", "whimbrel", default=False, description="", source="")
FAST = Peer("fast", "Fast", default=True, description="", source="")
SLOW = Peer("slow", "Slow", default=True, description="", source="")
FLAGS = Peer("flags", "Slow", default=False, description="", source="")
PEERS = (OURS, FAST, SLOW, FLAGS)


def run(preset: str, seconds: float | None, reason: str = "") -> Run:
    """A run of so many seconds; None: not done in time."""
    done = Ending.COMPLETED if seconds is not None else Ending.TIMEOUT
    seen = Observed(wall_time=seconds, downtime_observed=0.1, wire_bytes=100)
    return Run(Method.TCP, Tuning(), 1, done, reason, seen, preset=preset)


def guest(name: str, **seconds: float | None) -> ScenarioResult:
    runs = tuple(run(preset, took) for preset, took in seconds.items())
    return ScenarioResult(Scenario(name=name, timeout=40.0), runs)


def found(*parts: ScenarioResult) -> Comparison:
    return compare(parts, PEERS)


def test_the_reference_is_the_product_whose_defaults_are_fastest() -> None:
    result = found(guest("a", whimbrel=1.0, fast=4.0, slow=8.0, flags=2.0))
    assert result.best == FAST
    assert result.share == pytest.approx(0.25)
    ratios = {each.peer.name: each.time for each in result.standings}
    assert ratios["slow"] == pytest.approx(2.0)
    assert ratios["flags"] == pytest.approx(0.5)


def test_means_over_guests_are_geometric() -> None:
    result = found(guest("a", whimbrel=1.0, fast=4.0), guest("b", whimbrel=4.0, fast=4.0))
    assert result.share == pytest.approx(0.5)


def test_what_did_not_complete_counts_with_what_it_was_given_and_is_marked() -> None:
    result = found(guest("a", whimbrel=10.0, fast=None, slow=20.0))
    by_name = {each.peer.name: each for each in result.standings}
    assert result.best == SLOW
    assert by_name["fast"].bound
    assert by_name["fast"].time == pytest.approx(2.0)
    assert by_name["fast"].completed == 0
    assert result.rescued == (Against("fast", "a", 0.0),)


def test_a_guest_that_only_others_bring_over_spoils_the_aim() -> None:
    result = found(guest("a", whimbrel=1.0, fast=4.0), guest("b", whimbrel=None, fast=40.0))
    assert result.lost == (Against("fast", "b", math.inf),)
    assert result.met is False


def test_flags_count_for_never_slower_than_any() -> None:
    result = found(guest("a", whimbrel=1.5, fast=4.0, flags=1.0))
    assert result.slower == Against("flags", "a", 1.5)
    assert result.met is False


def test_our_own_other_rows_are_nobody_to_be_compared_with() -> None:
    also = Peer("ours too", "whimbrel", default=False, description="", source="")
    part = guest("a", whimbrel=2.0, fast=4.0)
    runs = (*part.runs, run("ours too", 1.0))
    result = compare([replace(part, runs=runs)], (*PEERS, also))
    assert result.slower == Against("fast", "a", 0.5)
    assert result.standings[-1].time == pytest.approx(0.25)


def test_the_aim_is_met_at_half_the_time_and_five_per_cent() -> None:
    assert found(guest("a", whimbrel=2.0, fast=4.0, flags=1.95)).met is True
    assert found(guest("a", whimbrel=2.1, fast=4.0)).met is False


def test_who_is_not_there_is_said_with_the_reason() -> None:
    missing = Run(Method.TCP, None, 1, Ending.NOT_AVAILABLE, "no libvirtd", preset="slow")
    part = guest("a", whimbrel=1.0, fast=4.0)
    result = found(replace(part, runs=(*part.runs, missing)))
    [slow] = [each for each in result.standings if each.peer == SLOW]
    assert slow.missing == "no libvirtd"
    assert result.guests == ("a",)


def test_only_guests_that_all_were_tried_with_are_compared() -> None:
    result = found(guest("a", whimbrel=1.0, fast=4.0), guest("b", whimbrel=1.0))
    assert result.guests == ("a",)


def test_the_time_spent_looking_is_told_beside() -> None:
    part = guest("a", whimbrel=1.0, fast=4.0)
    looked = tuple(replace(r, survey_time=3.0) if r.preset == "whimbrel" else r for r in part.runs)
    result = found(replace(part, runs=looked))
    assert result.share == pytest.approx(0.25)
    assert result.survey == 3.0
    assert result.looked == pytest.approx(1.0)


def test_without_products_nothing_is_compared() -> None:
    result = found(guest("a", whimbrel=1.0))
    assert (result.best, result.share, result.met) == (None, None, None)


@given(st.lists(st.floats(0.1, 30.0), min_size=1, max_size=6), st.floats(0.1, 10.0))
def test_a_uniform_factor_is_found_again(seconds: list[float], factor: float) -> None:
    parts = [guest(f"g{n}", whimbrel=took * factor, fast=took) for n, took in enumerate(seconds)]
    assert found(*parts).share == pytest.approx(factor)

"""Presets are data with sources; guests come from a seed; every move has its conduct."""

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from whimbrel.lab import tunnel
from whimbrel.lab.peer_guests import Kind, peer_scenarios
from whimbrel.lab.peer_suite import planned_for, time_allowed
from whimbrel.lab.peers import PRESETS, Way
from whimbrel.lab.scenario_check import check
from whimbrel.model.method import Method, Postcopy
from whimbrel.model.scenario import Scenario
from whimbrel.model.units import GIB, MIB

BY_NAME = {preset.peer.name: preset for preset in PRESETS}
DOCS = Path(__file__).resolve().parents[3] / "docs" / "peers.md"


def test_every_name_is_there_once_and_every_preset_names_its_source() -> None:
    assert len(BY_NAME) == len(PRESETS)
    assert all(preset.peer.source and preset.peer.description for preset in PRESETS)


def test_each_product_has_a_default() -> None:
    products = {preset.peer.product for preset in PRESETS} - {"whimbrel"}
    assert {p.peer.product for p in PRESETS if p.peer.default} == products


def test_the_documents_tell_of_every_preset() -> None:
    told = set(re.findall(r"^\| `([^`]+)`", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == set(BY_NAME)


def test_proxmox_takes_a_tenth_of_memory_as_cache_rounded_up() -> None:
    scenario = Scenario()
    tuning = BY_NAME["proxmox"].tuning(
        replace(scenario, guest=replace(scenario.guest, memory=512 * MIB))
    )
    assert tuning.xbzrle_cache == 64 * MIB
    assert tuning.throttling
    assert tuning.downtime_limit == 0.1
    assert tuning.bandwidth_limit == 16 * GIB


def test_ovirt_takes_its_share_of_the_network_in_whole_mebibytes() -> None:
    scenario = Scenario()  # 1 Gbit/s
    assert BY_NAME["ovirt"].tuning(scenario).bandwidth_limit == 62 * MIB
    assert BY_NAME["ovirt suspend"].tuning(scenario).bandwidth_limit == 125 * MIB


def test_post_copy_is_prepared_where_it_may_come_and_nowhere_else() -> None:
    scenario = Scenario()
    may = {
        name
        for name, preset in BY_NAME.items()
        if preset.way is Way.QEMU and preset.tuning(scenario).postcopy is not Postcopy.NEVER
    }
    assert may == {"libvirt postcopy", "kubevirt postcopy", "ovirt postcopy"}


def test_kubevirt_uses_channels_unless_it_may_go_over_to_post_copy() -> None:
    scenario = Scenario()
    assert BY_NAME["kubevirt"].tuning(scenario).channels == 8
    assert BY_NAME["kubevirt postcopy"].tuning(scenario).channels is None


@pytest.mark.parametrize("seed", range(5))
def test_each_round_has_one_guest_of_each_kind_and_all_can_be_run(seed: int) -> None:
    drawn = list(islice(peer_scenarios(seed, 40.0), 12))
    for scenario in drawn:
        check(scenario, scenario.name)
        assert scenario.timeout == 40.0
        assert scenario.survey is None
    for some in (drawn[:6], drawn[6:]):
        assert {scenario.name for scenario in some} == {kind.value for kind in Kind}


def test_the_same_seed_gives_the_same_guests() -> None:
    assert list(islice(peer_scenarios(7, 40.0), 6)) == list(islice(peer_scenarios(7, 40.0), 6))


def test_what_never_converges_cannot_be_stopped_for_within_a_usual_limit() -> None:
    for seed in range(10):
        for scenario in islice(peer_scenarios(seed, 40.0), 6):
            load, rate = scenario.guest.redline, scenario.link.rate
            if scenario.name == Kind.NEVER_CONVERGING and rate is not None:
                assert load.dirty_rate > 1.5 * rate
                assert load.hot > 0.5 * rate


def test_whimbrel_comes_last_and_the_order_of_others_is_kept() -> None:
    order = [preset for preset in PRESETS if not preset.way.by_libvirt]
    planned = planned_for(order, Scenario())
    assert planned[-1].preset == "whimbrel"
    assert planned[-1].tuning.free_page_hints
    assert [each.number for each in planned] == list(range(1, len(order) + 1))
    others = [p.peer.name for p in order if p.method is not Method.AUTO]
    assert [each.preset for each in planned[:-1]] == others


def test_what_cannot_be_had_is_planned_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "lacking", lambda: "sshd not installed")
    planned = {p.preset: p for p in planned_for(PRESETS, Scenario(), hindrance="no libvirtd")}
    assert planned["proxmox"].hindrance == "sshd not installed"
    assert planned["virsh"].hindrance == "no libvirtd"
    assert planned["whimbrel on libvirt"].hindrance == "no libvirtd"
    assert planned["nova"].hindrance == ""


def test_moves_are_given_more_time_in_longer_suites() -> None:
    assert [time_allowed(minutes) for minutes in (1, 20, 60, 600)] == [15.0, 40.0, 120.0, 240.0]

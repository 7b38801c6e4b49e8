"""What `lab --nested` compares, and what is read of a team, without any host."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from unit.report.samples import completed, result
from whimbrel.errors import LabError
from whimbrel.lab.image import Image
from whimbrel.lab.nested import hosts, team
from whimbrel.lab.nested.bench import _Left
from whimbrel.lab.nested.stage import VM_NAME, nested_vm
from whimbrel.lab.nested.tables import BASE, PIN_ALL, nested_plan, nested_tables
from whimbrel.lab.owner import Owner
from whimbrel.lab.scenario import scenario_from
from whimbrel.model.method import Method, Transport
from whimbrel.model.scenario import LabResult, Scenario, ScenarioResult
from whimbrel.report.document import lab_document
from whimbrel.report.rows import baseline, rows
from whimbrel.report.table import footer, markdown
from whimbrel.report.words import NESTED, SAME_MACHINE


def tables(**over: object) -> tuple[Scenario, Scenario]:
    return nested_tables(scenario_from({**BASE, **over}, "test"))


BONDED = """\
Ethernet Channel Bonding Driver: v6.1.0-56-amd64

Bonding Mode: IEEE 802.3ad Dynamic link aggregation
Transmit Hash Policy: layer3+4 (1)
MII Status: up

802.3ad info
LACP active: on
LACP rate: slow
Active Aggregator Info:
\tAggregator ID: {active}
\tNumber of ports: 2
\tActor Key: 9
\tPartner Key: 9
\tPartner Mac Address: {partner}

Slave Interface: eth1
MII Status: up
Speed: 1000 Mbps
Aggregator ID: 1
Actor Churn State: none
details partner lacp pdu:
    system mac address: {partner}

Slave Interface: eth2
MII Status: up
Aggregator ID: {second}
"""
PARTNER = "52:54:00:aa:bb:cc"


def bonded(active: int = 1, second: int = 1, partner: str = PARTNER) -> team.Aggregate:
    return team.aggregate_from(BONDED.format(active=active, second=second, partner=partner))


def test_an_aggregate_is_whole_where_every_nic_is_in_the_one_that_a_partner_agreed_to() -> None:
    seen = bonded()
    assert seen.whole
    assert seen.partner == PARTNER
    assert seen.members == {"eth1": 1, "eth2": 1}
    assert "802.3ad" in seen.mode


@pytest.mark.parametrize(
    "seen",
    [bonded(second=2), bonded(active=2), bonded(partner="00:00:00:00:00:00")],
    ids=["a NIC by itself", "all in one that is not used", "nobody at the other end"],
)
def test_an_aggregate_is_not_whole_otherwise(seen: team.Aggregate) -> None:
    assert not seen.whole


def test_a_bond_without_lacp_has_no_aggregate() -> None:
    text = "Bonding Mode: load balancing (xor)\n\nSlave Interface: eth1\n\nSlave Interface: eth2\n"
    seen = team.aggregate_from(text)
    assert seen.members == {"eth1": None, "eth2": None}
    assert not seen.whole


def test_each_table_has_its_moves_with_all_memory_pinned_as_one_of_its_own() -> None:
    wire, bond = tables(repeats=2)
    one = nested_plan(wire)
    assert [each.name for each in one[:4]] == ["tcp", "multichannel", "rdma", PIN_ALL]
    assert [each.repeat for each in one] == [1] * 4 + [2] * 4
    assert [each.number for each in one] == list(range(1, 9))
    assert {each.of for each in one} == {8}
    pinned = one[3].tuning
    assert pinned.transport is Transport.RDMA
    assert pinned.pin_all
    assert not one[2].tuning.pin_all
    assert [each.name for each in nested_plan(bond)[:2]] == ["tcp", "multichannel"]


def test_a_team_gets_enough_channels_for_a_hash_to_use_both_wires() -> None:
    wire, bond = tables(channels=4)
    assert wire.settings.channels == 4
    assert bond.settings.channels == 8


def ran(scenario: Scenario, *presets: str) -> LabResult:
    tcp = completed(Method.TCP)
    rdma = replace(tcp, method=Method.RDMA)
    more = tuple(replace(rdma, preset=preset) for preset in presets)
    return LabResult(result().machine, (ScenarioResult(scenario, (tcp, rdma, *more)),))


def test_a_table_of_emulated_hosts_says_what_it_must_not_be_compared_with() -> None:
    wire, _ = tables()
    whole = ran(wire)
    assert NESTED in footer(whole.scenarios[0], whole.machine)
    assert "Emulated hosts: one wire" in markdown(whole).replace("\\", "")
    assert "compare within this table only" in markdown(whole)
    plain = ran(Scenario())
    assert SAME_MACHINE in footer(plain.scenarios[0], plain.machine)


def test_programs_can_tell_emulated_hosts_by_the_document() -> None:
    for scenario in tables():
        written = lab_document(ran(scenario))["scenarios"]
        assert isinstance(written, list)
        assert written[0]["scenario"]["nested"] is True
    assert tables()[1].link.team == "802.3ad"


def test_a_methods_settings_that_have_a_name_have_a_row() -> None:
    wire, _ = tables()
    found = rows(ran(wire, PIN_ALL).scenarios[0])
    assert [row.name for row in found] == ["tcp", "multichannel", "rdma", PIN_ALL]
    assert [row.runs for row in found] == [1, 0, 1, 1]
    assert baseline(wire) is Method.TCP
    assert found[0].faster == 1.0


def test_what_is_left_is_told_by_what_the_moves_took() -> None:
    left = _Left(3, 60.0)
    assert left.sentence.startswith("3 moves, about ")
    left.took(10.0)
    left.took(20.0)
    assert left.sentence == "1 move, about 15 s"


def test_a_guest_of_emulated_hosts_beats_calmly() -> None:
    vm = nested_vm(Image(Path("/k"), Path("/i")), tables()[0].guest)
    assert vm.name == VM_NAME
    assert "beat_ms=" in vm.append
    assert vm.accelerator == "tcg"


def test_what_a_killed_whimbrel_left_is_removed_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living = Owner(2**22 + 1, 1), Owner.current()
    for owner in (dead, living):
        (tmp_path / f"whimbrel-nested-{owner.tag}-abc").mkdir()
    (tmp_path / "whimbrel-nested-notes").mkdir()
    with hosts._folder() as folder:
        names = {path.name for path in tmp_path.iterdir()}
        assert folder.stat().st_mode & 0o077 == 0
    assert f"whimbrel-nested-{dead.tag}-abc" not in names
    assert {f"whimbrel-nested-{living.tag}-abc", "whimbrel-nested-notes", folder.name} <= names
    assert not folder.exists()


def test_without_root_or_a_program_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="root"):
        hosts._refuse_without_means()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(hosts, "program", lambda name: "" if name == "depmod" else name)
    with pytest.raises(LabError, match="depmod") as caught:
        hosts._refuse_without_means()
    assert "kmod" in caught.value.hint

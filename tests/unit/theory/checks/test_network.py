from dataclasses import replace

import pytest

from whimbrel.model.check import Result
from whimbrel.model.inventory import MigrationAddress, Nic
from whimbrel.model.preflight import BridgeFacts, TrialFacts
from whimbrel.theory.checks import network

ADDRESS = MigrationAddress("10.0.0.2", 4444)
NIC = Nic("lan", "br0")
BRIDGE = BridgeFacts("bridge", up=True, mtu=1500)


@pytest.mark.parametrize(
    ("trial", "words"),
    [
        (TrialFacts(listen_error="EADDRINUSE"), "Port 4444 is taken"),
        (TrialFacts(listen_error="EADDRNOTAVAIL"), "is no address of b"),
        (TrialFacts(listen_error="EACCES"), "cannot listen"),
        (TrialFacts(4444, connect_error="ETIMEDOUT"), "cannot reach b"),
        (TrialFacts(4444, heard=False), "Somebody else"),
    ],
)
def test_each_way_to_miss_the_destination_has_its_words(trial: TrialFacts, words: str) -> None:
    check = network.migration_address(trial, ADDRESS, "a", "b")
    assert check.result is Result.FAIL
    assert words in check.detail


def test_a_source_that_was_heard_passes() -> None:
    trial = TrialFacts(4444, heard=True, seconds=0.001)
    assert network.migration_address(trial, ADDRESS, "a", "b").result is Result.PASS


def test_a_bridge_must_be_there_be_one_and_be_up() -> None:
    missing = network.bridge(NIC, BRIDGE, None, "b")
    assert missing.result is Result.FAIL
    assert "ip link add br0 type bridge" in missing.remedy
    for there in (replace(BRIDGE, driver="virtio_net"), replace(BRIDGE, up=False)):
        assert network.bridge(NIC, BRIDGE, there, "b").result is Result.FAIL


def test_a_nic_that_is_plugged_nowhere_needs_nothing() -> None:
    assert network.bridge(Nic("lan"), None, None, "b").result is Result.PASS


def test_a_station_that_both_bridges_see_proves_one_network() -> None:
    here = replace(BRIDGE, stations=frozenset({"52:54:00:00:00:01", "02:00:00:00:00:01"}))
    there = replace(BRIDGE, stations=frozenset({"52:54:00:00:00:02", "02:00:00:00:00:01"}))
    assert network.bridge(NIC, here, there, "b").result is Result.PASS


def test_nobodys_address_proves_nothing() -> None:
    idle = replace(BRIDGE, stations=frozenset({"00:00:00:00:00:00"}))
    assert network.bridge(NIC, idle, idle, "b").result is Result.WARN


def test_addresses_of_one_subnet_pass_and_of_two_are_warned_of() -> None:
    here = replace(BRIDGE, networks=frozenset({"10.1.0.0/24"}))
    assert network.bridge(NIC, here, here, "b").result is Result.PASS
    other = replace(BRIDGE, networks=frozenset({"10.2.0.0/24"}))
    check = network.bridge(NIC, here, other, "b")
    assert check.result is Result.WARN
    assert "two networks" in check.detail


def test_what_cannot_be_told_is_warned_of() -> None:
    assert network.bridge(NIC, BRIDGE, BRIDGE, "b").result is Result.WARN
    assert network.bridge(NIC, None, BRIDGE, "b").result is Result.WARN


def test_smaller_packets_there_are_warned_of() -> None:
    jumbo = replace(BRIDGE, mtu=9000, networks=frozenset({"10.1.0.0/24"}))
    check = network.bridge(NIC, jumbo, replace(jumbo, mtu=1500), "b")
    assert check.result is Result.WARN
    assert "mtu 9000" in check.remedy

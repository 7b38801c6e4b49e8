"""Settings become libvirt's flags and typed parameters, figures come back, and what is missing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.hypervisors.libvirt.connection import Versions
from whimbrel.hypervisors.libvirt.translate import (
    NO_LIMIT,
    address_parameters,
    ended_from,
    flags_for,
    lacking,
    mebibytes,
    observation_from,
    parameters_for,
)
from whimbrel.model.inventory import Capability, MigrationAddress
from whimbrel.model.method import Codec, Compression, Postcopy, Tuning
from whimbrel.model.migration import Phase
from whimbrel.model.units import MIB

NEWEST = Versions(11003000, 11003000, 10000002)
DEBIAN_12 = Versions(9000000, 9000000, 7002000)


def test_a_guest_is_left_standing_unless_post_copy_may_begin() -> None:
    assert "PAUSED" in flags_for(Tuning())
    for postcopy in set(Postcopy) - {Postcopy.NEVER}:
        flags = flags_for(Tuning(postcopy=postcopy))
        assert "POSTCOPY" in flags
        assert "PAUSED" not in flags


def test_a_move_is_always_live_and_its_definition_is_safe_from_changes() -> None:
    assert flags_for(Tuning()) >= {"LIVE", "CHANGE_PROTECTION", "ABORT_ON_ERROR"}


def test_what_libvirt_remembers_goes_along_with_a_vm() -> None:
    assert not flags_for(Tuning()) & {"PERSIST_DEST", "UNDEFINE_SOURCE"}
    assert flags_for(Tuning(), persistent=True) >= {"PERSIST_DEST", "UNDEFINE_SOURCE"}


def test_each_way_of_copying_has_its_flag_and_its_parameters() -> None:
    several = Tuning(channels=4, compression=Compression(Codec.ZSTD, 3))
    assert flags_for(several) >= {"PARALLEL", "COMPRESSED"}
    assert parameters_for(several) == {
        "bandwidth": NO_LIMIT,
        "parallel.connections": 4,
        "compression": "zstd",
        "compression.zstd.level": 3,
    }
    differences = Tuning(xbzrle_cache=64 * MIB)
    assert "COMPRESSED" in flags_for(differences)
    assert parameters_for(differences)["compression"] == "xbzrle"
    assert parameters_for(differences)["compression.xbzrle.cache"] == 64 * MIB
    assert "AUTO_CONVERGE" in flags_for(Tuning(throttling=True))


def test_qemu_as_it_comes_keeps_its_cap_though_libvirt_would_lift_it() -> None:
    assert parameters_for(Tuning(as_qemu_comes=True))["bandwidth"] == 128


def test_a_limit_holds_in_post_copy_too() -> None:
    limited = Tuning(postcopy=Postcopy.IF_STALLED, bandwidth_limit=50.0 * MIB)
    assert parameters_for(limited)["bandwidth"] == 50
    assert parameters_for(limited)["bandwidth.postcopy"] == 50


@given(st.floats(0.001, 1e12))
def test_no_limit_becomes_none_and_none_becomes_a_limit(rate: float) -> None:
    assert 1 <= mebibytes(rate) <= NO_LIMIT
    assert mebibytes(None) == NO_LIMIT


def test_the_destination_listens_at_the_named_address_and_nowhere_else() -> None:
    assert address_parameters(MigrationAddress("fd00::2", 49152)) == {
        "migrate_uri": "tcp://[fd00::2]:49152",
        "listen_address": "fd00::2",
    }


def test_what_no_libvirt_can_reach_is_missing_with_its_reason() -> None:
    missing = lacking(NEWEST)
    assert set(missing) == {
        Capability.RDMA,
        Capability.RDMA_PIN_ALL,
        Capability.MPTCP,
        Capability.FREE_PAGE_HINTS,
        Capability.PAUSE_BEFORE_SWITCHOVER,
        Capability.TLS_PSK,
        Capability.TLS_X509,
    }
    assert all(missing.values())


def test_an_older_libvirt_lacks_what_came_later_and_says_since_when() -> None:
    more = lacking(DEBIAN_12).keys() - lacking(NEWEST).keys()
    assert more == {Capability.ZLIB, Capability.ZSTD, Capability.SWITCHOVER_BANDWIDTH}
    assert "needs libvirt 9.4.0" in lacking(DEBIAN_12)[Capability.ZSTD]


def test_an_old_library_on_this_machine_is_named_as_the_one_that_lacks_it() -> None:
    reasons = lacking(replace(NEWEST, library=9000000))
    assert "on this machine it is 9.0.0" in reasons[Capability.ZSTD]


def test_an_old_qemu_below_a_new_libvirt_is_named() -> None:
    reasons = lacking(replace(NEWEST, hypervisor=7002000))
    assert "QEMU 8.2.0; this is 7.2.0" in reasons[Capability.SWITCHOVER_BANDWIDTH]


JOB = {
    "type": 2,
    "time_elapsed": 643,
    "time_elapsed_net": 641,
    "downtime": 23,
    "downtime_net": 21,
    "setup_time": 2,
    "memory_total": 268771328,
    "memory_processed": 34387899,
    "memory_remaining": 4096,
    "memory_bps": 674272529,
    "memory_constant": 57418,
    "memory_normal": 8200,
    "memory_dirty_rate": 10,
    "memory_iteration": 2,
    "memory_page_size": 4096,
    "auto_converge_throttle": 30,
}


def test_a_jobs_figures_become_an_observation() -> None:
    seen = observation_from(JOB, 1.5, Phase.PRECOPY)
    assert seen.transferred == 34387899
    assert seen.remaining == 4096
    assert seen.passes == 2
    assert seen.dirty_rate == 40960
    assert seen.throttle == pytest.approx(0.3)
    assert seen.expected_downtime == pytest.approx(0.023)


def test_the_last_figures_are_free_of_the_clocks_difference() -> None:
    ended = ended_from(JOB)
    assert ended.total_time == pytest.approx(0.641)
    assert ended.downtime == pytest.approx(0.021)
    assert ended_from({}).downtime is None

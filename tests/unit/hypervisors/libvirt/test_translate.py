"""Settings become libvirt's flags and typed parameters, figures come back, and what is missing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.hypervisors.libvirt.states import Versions
from whimbrel.hypervisors.libvirt.translate import (
    NO_LIMIT,
    Luggage,
    address_parameters,
    ended_from,
    flags_for,
    lacking,
    mebibytes,
    needs,
    observation_from,
    parameters_for,
)
from whimbrel.model.inventory import X509, Capability, MigrationAddress
from whimbrel.model.method import ACCELERATORS, Codec, Compression, Postcopy, Transport, Tuning
from whimbrel.model.migration import Phase
from whimbrel.model.storage import Extent
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


def test_without_a_port_libvirt_chooses_one_of_those_that_its_host_allows() -> None:
    assert address_parameters(MigrationAddress("10.0.0.2"))["migrate_uri"] == "tcp://10.0.0.2"


ROWS: dict[str, tuple[Tuning, set[str], dict[str, Any]]] = {
    "PARALLEL": (Tuning(channels=3), {"PARALLEL"}, {"parallel.connections": 3}),
    "zlib": (
        Tuning(channels=2, compression=Compression(Codec.ZLIB, 6)),
        {"PARALLEL", "COMPRESSED"},
        {"parallel.connections": 2, "compression": "zlib", "compression.zlib.level": 6},
    ),
    "xbzrle": (
        Tuning(xbzrle_cache=MIB),
        {"COMPRESSED"},
        {"compression": "xbzrle", "compression.xbzrle.cache": MIB},
    ),
    "AUTO_CONVERGE": (Tuning(throttling=True), {"AUTO_CONVERGE"}, {}),
    "bandwidth": (Tuning(bandwidth_limit=9.0 * MIB), set(), {"bandwidth": 9}),
    "bandwidth.avail.switchover": (
        Tuning(switchover_bandwidth=200.0 * MIB),
        set(),
        {"bandwidth.avail.switchover": 200},
    ),
    "bandwidth.postcopy": (
        Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=9.0 * MIB),
        {"POSTCOPY"},
        {"bandwidth": 9, "bandwidth.postcopy": 9},
    ),
    "RDMA_PIN_ALL": (
        Tuning(transport=Transport.RDMA, pin_all=True),
        {"RDMA_PIN_ALL"},
        {},
    ),
    "ZEROCOPY": (
        Tuning(channels=2, zero_copy=True),
        {"PARALLEL", "ZEROCOPY"},
        {"parallel.connections": 2},
    ),
}
"""Each setting with what it becomes, beside what every move has (qemu-facts' libvirt map)."""


@pytest.mark.parametrize("row", ROWS)
def test_each_setting_becomes_what_libvirt_calls_it_and_nothing_else(row: str) -> None:
    tuning, flags, parameters = ROWS[row]
    usual = {"LIVE", "CHANGE_PROTECTION", "ABORT_ON_ERROR", "PAUSED"}
    if tuning.postcopy is not Postcopy.NEVER:
        usual.remove("PAUSED")
    assert flags_for(tuning) == usual | flags
    assert parameters_for(tuning) == {"bandwidth": NO_LIMIT} | parameters


def test_rdma_is_a_way_to_the_address() -> None:
    parameters = address_parameters(MigrationAddress("10.0.0.2", 49152), Transport.RDMA)
    assert parameters["migrate_uri"] == "rdma://10.0.0.2:49152"


def test_tls_is_asked_for_with_the_name_that_the_certificate_must_say() -> None:
    assert "TLS" not in flags_for(Tuning())
    assert "TLS" in flags_for(Tuning(), encrypted=True)
    by_name = MigrationAddress("10.0.0.2", 1, credentials=X509("", "", "b.example"))
    assert address_parameters(by_name)["tls.destination"] == "b.example"
    by_address = MigrationAddress("10.0.0.2", 1, credentials=X509("", ""))
    assert "tls.destination" not in address_parameters(by_address)


def test_encryption_needs_certificates_and_no_key() -> None:
    assert Capability.TLS_X509 in needs(Tuning(encrypted=True))
    assert Capability.TLS_PSK not in needs(Tuning(encrypted=True))
    assert needs(Tuning()) == Tuning().needs


@pytest.mark.parametrize(
    ("extent", "flag"), [(Extent.WHOLE, "NON_SHARED_DISK"), (Extent.TOP, "NON_SHARED_INC")]
)
def test_chosen_disks_go_along_and_writes_wait_for_their_copies(extent: Extent, flag: str) -> None:
    luggage = Luggage(("vda", "vdc"), extent)
    added = flags_for(Tuning(), luggage=luggage) - flags_for(Tuning())
    assert added == {flag, "NON_SHARED_SYNCHRONOUS_WRITES"}
    address = MigrationAddress("fd00::2", 49152)
    assert address_parameters(address, luggage=luggage) == {
        "migrate_uri": "tcp://[fd00::2]:49152",
        "listen_address": "fd00::2",
        "migrate_disks": ["vda", "vdc"],
    }
    at_port = address_parameters(address, luggage=replace(luggage, port=49200, sparse=True))
    assert at_port["disks_uri"] == "tcp://[fd00::2]:49200"
    assert at_port["migrate_disks_detect_zeroes"] == ["vda", "vdc"]


def test_what_no_libvirt_can_reach_is_missing_with_its_reason() -> None:
    missing = lacking(NEWEST)
    assert set(missing) == {
        Capability.MPTCP,
        *(codec.capability for codec in ACCELERATORS),
        Capability.FREE_PAGE_HINTS,
        Capability.PAUSE_BEFORE_SWITCHOVER,
        Capability.TLS_PSK,
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


def test_pages_are_copied_where_libvirt_or_qemu_is_too_old_to_do_without() -> None:
    assert Capability.ZERO_COPY not in lacking(DEBIAN_12)
    assert "libvirt 8.5.0" in lacking(replace(NEWEST, daemon=8004000))[Capability.ZERO_COPY]
    assert "QEMU 7.1.0" in lacking(replace(NEWEST, hypervisor=7000000))[Capability.ZERO_COPY]


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

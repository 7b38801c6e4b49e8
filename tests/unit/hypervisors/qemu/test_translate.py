from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import ProtocolError
from whimbrel.hypervisors.qemu.translate import (
    capabilities_for,
    channels_argument,
    ended_from,
    limit_parameters,
    observation_from,
    parameters_for,
    phase_of,
)
from whimbrel.model.inventory import Capability, MigrationAddress
from whimbrel.model.method import (
    ACCELERATORS,
    Codec,
    Compression,
    Method,
    Settings,
    Transport,
    Tuning,
    tuning_for,
)
from whimbrel.model.migration import Phase

KNOWN = frozenset(Capability)


def test_every_status_of_qemu_10_has_a_phase() -> None:
    statuses = ["none", "setup", "cancelling", "cancelled", "active", "postcopy-active"]
    statuses += ["postcopy-paused", "postcopy-recover-setup", "postcopy-recover", "completed"]
    statuses += ["failed", "pre-switchover", "device", "wait-unplug", "postcopy-device"]
    assert {phase_of(status) for status in statuses} <= set(Phase)


def test_an_unknown_status_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="colo"):
        phase_of("colo")


def test_capabilities_are_switched_on_and_off_but_never_named_when_unknown() -> None:
    tuning = tuning_for(Method.MULTICHANNEL, Settings())
    state = {entry["capability"]: entry["state"] for entry in capabilities_for(tuning, KNOWN)}
    assert state["multifd"]
    assert not state["postcopy-ram"]
    known = KNOWN - {Capability.XBZRLE}
    assert "xbzrle" not in {entry["capability"] for entry in capabilities_for(tuning, known)}
    assert not state["zero-copy-send"]
    uncopied = capabilities_for(replace(tuning, zero_copy=True), KNOWN)
    assert {"capability": "zero-copy-send", "state": True} in uncopied


def test_qemu_as_it_comes_keeps_its_bandwidth_cap() -> None:
    assert "max-bandwidth" not in parameters_for(tuning_for(Method.QEMU_DEFAULT, Settings()))
    assert parameters_for(tuning_for(Method.TCP, Settings()))["max-bandwidth"] == 0


def test_a_bandwidth_limit_holds_in_post_copy_too() -> None:
    assert limit_parameters(12.5e6) == {
        "max-bandwidth": 12500000,
        "max-postcopy-bandwidth": 12500000,
    }


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_limit_never_becomes_unlimited_by_rounding(rate: float) -> None:
    assert min(limit_parameters(rate).values()) >= 1


def test_the_codec_decides_which_level_is_set() -> None:
    tuning = Tuning(channels=4, compression=Compression(Codec.ZLIB, 6))
    parameters = parameters_for(tuning)
    assert parameters["multifd-compression"] == "zlib"
    assert parameters["multifd-zlib-level"] == 6
    assert "multifd-zstd-level" not in parameters


def test_an_accelerator_is_named_and_only_qatzip_has_levels() -> None:
    found = {
        codec: parameters_for(Tuning(channels=2, compression=Compression(codec)))
        for codec in ACCELERATORS
    }
    for codec, parameters in found.items():
        assert parameters["multifd-compression"] == codec.value
        assert ("multifd-qatzip-level" in parameters) == (codec is Codec.QATZIP)
        assert "multifd-zlib-level" not in parameters


def test_a_destination_may_choose_among_ports_and_a_source_has_one() -> None:
    some = MigrationAddress("10.0.0.2", ports=(5000, 5063))
    [listening] = channels_argument(some, Transport.TCP)
    assert (listening["addr"]["port"], listening["addr"]["to"]) == ("5000", 5063)
    [sending] = channels_argument(replace(some, port=5001), Transport.TCP)
    assert sending["addr"]["port"] == "5001"
    assert "to" not in sending["addr"]


def test_rdma_and_mptcp_become_different_channels() -> None:
    address = MigrationAddress("10.99.0.2", 4444, mptcp=True)
    [tcp] = channels_argument(address, Transport.TCP)
    [rdma] = channels_argument(address, Transport.RDMA)
    assert tcp["addr"] == {
        "transport": "socket", "type": "inet", "host": "10.99.0.2", "port": "4444", "mptcp": True,
    }  # fmt: skip
    assert rdma["addr"] == {"transport": "rdma", "host": "10.99.0.2", "port": "4444"}


def test_figures_arrive_in_bytes_and_seconds() -> None:
    answer = {
        "status": "active",
        "expected-downtime": 300,
        "cpu-throttle-percentage": 20,
        "ram": {"mbps": 8.0, "dirty-pages-rate": 10, "page-size": 4096, "transferred": 7},
    }
    seen = observation_from(answer, 1.5, Phase.PRECOPY)
    assert seen.bandwidth == pytest.approx(1e6)
    assert seen.dirty_rate == pytest.approx(40960)
    assert seen.throttle == pytest.approx(0.2)
    assert seen.expected_downtime == pytest.approx(0.3)
    assert seen.transferred == 7


def test_what_qemu_leaves_out_is_unknown() -> None:
    ended = ended_from({"status": "cancelled"}, Phase.CANCELLED)
    assert ended.total_time is None
    assert ended.downtime is None
    assert ended.transferred is None

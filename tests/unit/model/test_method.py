"""Methods: each is the tuning it is named for, and asks for what it needs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.inventory import Capability
from whimbrel.model.method import (
    CLASSIC,
    Codec,
    Compression,
    Method,
    Postcopy,
    PreparedMemory,
    Settings,
    Transport,
    Tuning,
    classic,
    tuning_for,
    zero_copy_refusal,
)

settings = st.builds(
    Settings,
    channels=st.integers(1, 255),
    compression=st.builds(Compression, st.sampled_from(Codec), st.integers(1, 9)),
    xbzrle_cache=st.integers(4096, 1 << 34),
    bandwidth_limit=st.none() | st.floats(1, 1e12),
    downtime_limit=st.floats(0.001, 2000),
    prepared_memory=st.none() | st.builds(PreparedMemory, st.integers(1, 64)),
    free_page_hints=st.booleans(),
)
methods = st.sampled_from(Method)


def test_every_method_has_a_description_of_one_line() -> None:
    lines = [method.description for method in Method]
    assert all(line and "\n" not in line for line in lines)
    assert len(set(lines)) == len(Method)


def test_the_classic_comparison_begins_with_what_it_compares_to() -> None:
    assert CLASSIC[0] is Method.QEMU_DEFAULT
    assert len(set(CLASSIC)) == len(CLASSIC)


@given(settings)
def test_no_two_methods_are_the_same_tuning(one: Settings) -> None:
    named = [method for method in Method if method is not Method.AUTO]
    assert len({tuning_for(method, one) for method in named}) == len(named)


@given(settings)
def test_qemu_default_leaves_everything_but_the_downtime_limit_to_qemu(one: Settings) -> None:
    expected = Tuning(as_qemu_comes=True, downtime_limit=one.downtime_limit)
    assert tuning_for(Method.QEMU_DEFAULT, one) == expected


@given(methods, settings)
def test_the_downtime_limit_applies_to_every_method(method: Method, one: Settings) -> None:
    assert tuning_for(method, one).downtime_limit == one.downtime_limit


@given(methods, settings)
def test_the_bandwidth_limit_applies_to_all_but_the_default(method: Method, one: Settings) -> None:
    limit = None if method is Method.QEMU_DEFAULT else one.bandwidth_limit
    assert tuning_for(method, one).bandwidth_limit == limit


@given(methods, settings)
def test_channels_only_where_several_streams_are_the_method(method: Method, one: Settings) -> None:
    several = method in {Method.MULTICHANNEL, Method.ENCRYPTED, Method.COMPRESSED}
    assert tuning_for(method, one).channels == (one.channels if several else None)


@given(methods, settings)
def test_compression_always_has_channels(method: Method, one: Settings) -> None:
    tuning = tuning_for(method, one)
    assert (tuning.compression is not None) == (method is Method.COMPRESSED)
    assert tuning.compression is None or tuning.channels is not None


@given(methods, settings)
def test_postcopy_gets_neither_prepared_memory_nor_hints(method: Method, one: Settings) -> None:
    tuning = tuning_for(method, one)
    if tuning.postcopy is not Postcopy.NEVER:
        assert tuning.prepared_memory is None
        assert not tuning.free_page_hints


@given(methods, settings)
def test_one_property_distinguishes_each_method(method: Method, one: Settings) -> None:
    tuning = tuning_for(method, one)
    assert (tuning.transport is Transport.RDMA) == (method is Method.RDMA)
    assert tuning.throttling == (method is Method.AUTO_CONVERGE)
    assert (tuning.xbzrle_cache is not None) == (method is Method.XBZRLE)
    assert tuning.as_qemu_comes == (method is Method.QEMU_DEFAULT)
    assert tuning.multipath == (method is Method.MULTINIC)
    assert tuning.encrypted == (one.encrypted or method is Method.ENCRYPTED)


def test_the_lab_compares_several_nics_where_there_are_several() -> None:
    assert classic(1) == CLASSIC
    assert set(classic(2)) - set(CLASSIC) == {Method.MULTINIC}


@pytest.mark.parametrize(
    ("method", "needed"),
    [
        (Method.TCP, set()),
        (Method.MULTICHANNEL, {Capability.MULTICHANNEL}),
        (Method.COMPRESSED, {Capability.MULTICHANNEL, Capability.ZSTD}),
        (Method.XBZRLE, {Capability.XBZRLE}),
        (Method.AUTO_CONVERGE, {Capability.THROTTLING}),
        (Method.POSTCOPY, {Capability.POSTCOPY}),
        (Method.POSTCOPY_PREEMPT, {Capability.POSTCOPY, Capability.POSTCOPY_PREEMPT}),
        (Method.RDMA, {Capability.RDMA}),
        (Method.MULTINIC, {Capability.MPTCP}),
        (Method.ENCRYPTED, {Capability.MULTICHANNEL, Capability.TLS_PSK}),
    ],
)
def test_a_method_needs_its_own_capabilities_and_the_common_ones(
    method: Method, needed: set[Capability]
) -> None:
    plain = Settings(prepared_memory=None, free_page_hints=False)
    common = {Capability.PASS_EVENTS, Capability.RETURN_PATH}
    assert tuning_for(method, plain).needs == common | needed


def test_qemu_default_needs_no_more_than_passes_being_told() -> None:
    assert tuning_for(Method.QEMU_DEFAULT, Settings()).needs == {Capability.PASS_EVENTS}


def test_extras_ask_for_their_capabilities() -> None:
    tuning = Tuning(
        prepared_memory=PreparedMemory(), free_page_hints=True, switchover_bandwidth=1e9
    )
    assert tuning.needs >= {
        Capability.PREPARED_MEMORY,
        Capability.FREE_PAGE_HINTS,
        Capability.SWITCHOVER_BANDWIDTH,
    }


@pytest.mark.parametrize("codec", Codec)
def test_every_codec_is_a_capability(codec: Codec) -> None:
    assert codec.capability in Tuning(channels=2, compression=Compression(codec)).needs


@given(methods, settings, st.booleans())
def test_only_plain_channels_send_pages_without_copying_them(
    method: Method, one: Settings, wanted: bool
) -> None:
    tuning = tuning_for(method, replace(one, zero_copy=wanted))
    assert tuning.zero_copy is (wanted and method is Method.MULTICHANNEL)
    assert (Capability.ZERO_COPY in tuning.needs) is tuning.zero_copy
    assert zero_copy_refusal(tuning) is None


@pytest.mark.parametrize(
    ("tuning", "beside"),
    [
        (Tuning(zero_copy=True), "several channels"),
        (Tuning(zero_copy=True, transport=Transport.RDMA), "several channels"),
        (
            Tuning(zero_copy=True, channels=2, compression=Compression(Codec.ZSTD)),
            "together with compression",
        ),
        (Tuning(zero_copy=True, channels=2, encrypted=True), "together with encryption"),
    ],
)
def test_what_qemu_refuses_beside_pages_that_are_not_copied_is_named(
    tuning: Tuning, beside: str
) -> None:
    refusal = zero_copy_refusal(tuning)
    assert refusal is not None
    assert beside in refusal[0]
    assert zero_copy_refusal(replace(tuning, zero_copy=False)) is None

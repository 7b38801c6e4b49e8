from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.theory.guests import KVM, lcg_guest, still_guest
from unit.theory.situations import ALL, FRANTIC, WISH, ZLIB, ZSTD, measured, situation
from whimbrel.model.inventory import Capability
from whimbrel.model.method import (
    Codec,
    Compression,
    Method,
    Postcopy,
    PreparedMemory,
    Settings,
    Tuning,
)
from whimbrel.model.plan import Candidate, Forecast, Rejection, Wish
from whimbrel.theory.candidates import WEIGHED, aids, variants, within_wish
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import predict
from whimbrel.theory.situation import Situation

SETTINGS = Settings()


def tunings(of: Situation, wish: Wish = WISH, told: Settings = SETTINGS) -> list[Tuning]:
    return [each.tuning for each in variants(of, told, wish)[0]]


def test_each_tuning_is_weighed_once_and_qemus_own_cap_never() -> None:
    possible, rejected = variants(situation(hints=True), SETTINGS, WISH)
    found = [each.tuning for each in possible]
    assert len(found) == len(set(found))
    assert not any(tuning.as_qemu_comes for tuning in found)
    assert {each.method for each in possible} == set(WEIGHED) - {Method.MULTINIC}
    assert [no.method for no in rejected] == [Method.MULTINIC]


def test_several_numbers_of_channels_are_weighed_those_surveyed_among_them() -> None:
    survey = measured(still_guest())
    wide = replace(survey, link=replace(survey.link, goodput={1: 1e9, 8: 4e9}))
    found = tunings(situation(wide), told=replace(SETTINGS, channels=3))
    assert {tuning.channels for tuning in found} == {None, 2, 3, 4, 8}


def test_only_codecs_that_were_measured_are_weighed() -> None:
    told = replace(SETTINGS, compression=Compression(Codec.ZSTD, 19))
    found = tunings(situation(), told=told)
    assert {tuning.compression for tuning in found} == {None, ZSTD, ZLIB}
    possible, rejected = variants(situation(still_guest()), told, WISH)
    assert not any(each.tuning.compression for each in possible)
    reasons = {no.method: no.reason for no in rejected}
    assert reasons[Method.COMPRESSED] == "the survey did not measure zstd:19"
    assert set(reasons) == {Method.COMPRESSED, Method.MULTINIC}


def test_memory_is_weighed_prepared_and_as_it_comes() -> None:
    prepared = {tuning.prepared_memory for tuning in tunings(situation())}
    assert prepared == {None, PreparedMemory()}


def test_hints_are_weighed_only_where_the_guest_can_give_them() -> None:
    def hinted(hints: bool, told: Settings = SETTINGS) -> set[bool]:
        return {tuning.free_page_hints for tuning in tunings(situation(hints=hints), told=told)}

    assert hinted(True) == {True, False}
    assert hinted(False) == {False}
    assert hinted(True, replace(SETTINGS, free_page_hints=False)) == {False}


def test_a_plain_stream_is_set_up_for_post_copy_where_that_costs_nothing() -> None:
    for tuning in tunings(situation(hints=True)):
        free = not (tuning.prepared_memory or tuning.free_page_hints or tuning.channels)
        if tuning.transport == "tcp" and free:
            assert tuning.postcopy is not Postcopy.NEVER
        else:
            assert tuning.postcopy is Postcopy.NEVER


def test_from_qemu_10_1_several_channels_are_set_up_for_post_copy_too() -> None:
    newer = replace(situation(), rules=QemuRules.of((10, 1), "kvm"))
    ready = [t for t in tunings(newer) if t.channels and t.postcopy is Postcopy.IF_STALLED]
    assert ready
    assert not [t for t in tunings(situation()) if t.channels and t.postcopy is not Postcopy.NEVER]


@pytest.mark.parametrize("wish", [replace(WISH, postcopy=False), WISH])
def test_nothing_is_set_up_for_what_is_not_allowed_or_not_possible(wish: Wish) -> None:
    without = ALL if not wish.postcopy else ALL - {Capability.POSTCOPY}
    found = tunings(situation(common=without), wish)
    assert not any(tuning.postcopy is Postcopy.IF_STALLED for tuning in found)


def test_what_a_host_lacks_is_ruled_out_once_with_its_reason() -> None:
    possible, rejected = variants(situation(common=ALL - {Capability.RDMA}), SETTINGS, WISH)
    assert Method.RDMA not in {each.method for each in possible}
    [refusal] = [each for each in rejected if each.method is not Method.MULTINIC]
    assert refusal.method is Method.RDMA
    assert "rdma" in refusal.reason


def test_what_a_check_keeps_out_is_not_weighed_and_told_in_its_words() -> None:
    barred = (Rejection(Method.RDMA, "On b only 64 KiB may be pinned."),)
    possible, rejected = variants(situation(barred=barred), SETTINGS, WISH)
    assert {each.method for each in possible} == set(WEIGHED) - {Method.MULTINIC, Method.RDMA}
    assert [each.reason for each in rejected if each.method is Method.RDMA] == [barred[0].reason]


def test_certificates_encrypt_where_no_key_can() -> None:
    told = replace(SETTINGS, encrypted=True)
    without = situation(common=ALL - {Capability.TLS_PSK, Capability.TLS_X509})
    assert variants(without, told, WISH)[0] == ()
    by_certificate = situation(common=ALL - {Capability.TLS_PSK})
    assert Method.TCP in {each.method for each in variants(by_certificate, told, WISH)[0]}


@given(
    st.none() | st.floats(1e6, 1e9),
    st.none() | st.floats(1e6, 1e9),
    st.floats(0.05, 2),
    st.none() | st.floats(0.2, 5),
)
@settings(max_examples=30)
def test_every_candidate_is_begun_within_the_wish(
    set_limit: float | None, wished: float | None, downtime: float, budget: float | None
) -> None:
    wish = replace(WISH, bandwidth_limit=wished, downtime=downtime, cpu_budget=budget)
    told = replace(SETTINGS, bandwidth_limit=set_limit)
    for tuning in tunings(situation(), wish, told):
        assert tuning.downtime_limit <= min(SETTINGS.downtime_limit, downtime)
        assert tuning.bandwidth_limit == min(filter(None, (set_limit, wished)), default=None)
        threads = tuning.prepared_memory.threads if tuning.prepared_memory else 0
        assert budget is None or threads <= budget


def coarse(of: Situation, *some: Candidate) -> list[Forecast]:
    return [
        Forecast(
            each,
            predict(of.survey, each.tuning, KVM, generator=np.random.default_rng(1), draws=20),
        )
        for each in some
    ]


def test_throttling_is_not_offered_where_a_move_completes_without_it() -> None:
    of = situation()
    helped, refused = aids(of, WISH, coarse(of, Candidate(Method.TCP, Tuning())))
    assert helped == ()
    [no] = refused
    assert no.method is Method.AUTO_CONVERGE
    assert no.reason == "tcp completes without it with probability 1.00"


def test_what_is_not_sure_to_complete_is_helped_within_the_wish() -> None:
    of = situation(FRANTIC)
    plain = Candidate(Method.TCP, Tuning())
    helped, refused = aids(of, WISH, coarse(of, plain))
    assert refused == ()
    assert {each.method for each in helped} == {Method.TCP, Method.AUTO_CONVERGE}
    limits = {each.tuning.downtime_limit for each in helped}
    assert len(limits) == 2
    assert max(limits) <= WISH.downtime
    assert {each.tuning.throttling for each in helped} == {True, False}
    assert {each.tuning.throttling for each in helped if each.method is Method.TCP} == {False}


def test_hosts_that_cannot_throttle_are_named() -> None:
    of = situation(FRANTIC, common=ALL - {Capability.THROTTLING})
    helped, [no] = aids(of, WISH, coarse(of, Candidate(Method.TCP, Tuning())))
    assert not any(each.tuning.throttling for each in helped)
    assert no.reason == "the source lacks throttling; the destination lacks throttling"


def test_a_downtime_that_no_limit_keeps_is_asked_for_all_the_same() -> None:
    wish = replace(WISH, downtime=0.001)
    assert within_wish(situation(lcg_guest(100)), SETTINGS, wish).downtime_limit == 0.001


def test_pages_go_uncopied_where_that_is_wanted_by_plain_channels_and_nothing_else() -> None:
    told = replace(SETTINGS, zero_copy=True)
    found = variants(situation(), told, WISH)[0]
    assert {each.method for each in found if each.tuning.zero_copy} == {Method.MULTICHANNEL}
    assert all(each.tuning.zero_copy for each in found if each.method is Method.MULTICHANNEL)
    assert not any(tuning.zero_copy for tuning in tunings(situation()))


def test_where_pages_cannot_go_uncopied_the_reason_stands_there() -> None:
    told = replace(SETTINGS, zero_copy=True)

    def reason(of: Situation, told: Settings) -> str:
        rejected = variants(of, told, WISH)[1]
        return {no.method: no.reason for no in rejected}[Method.MULTICHANNEL]

    lacking = situation(common=ALL - {Capability.ZERO_COPY})
    assert "the source lacks zero-copy" in reason(lacking, told)
    encrypted = reason(situation(), replace(told, encrypted=True))
    assert "cannot encrypt what it sends without copying" in encrypted

"""What TLS adds to a page: bytes on the wire, and CPU at both ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.theory.guests import KVM
from whimbrel.model.memory import (
    CipherCost,
    HostProfile,
    LinkProfile,
    MemoryProfile,
    Survey,
    WireRatio,
)
from whimbrel.model.method import Codec, Compression, Method, Settings, Tuning, tuning_for
from whimbrel.model.units import GIB
from whimbrel.theory.candidates import candidates
from whimbrel.theory.draws import draw
from whimbrel.theory.rates import Costs, costs
from whimbrel.theory.simulate import simulate

ZSTD = Compression(Codec.ZSTD, 1)
OPEN = Tuning()
SECRET = Tuning(encrypted=True)
HERE = CipherCost(speed=2e9, record_seconds=1e-6)
THERE = CipherCost(speed=1e9, record_seconds=2e-6)


def survey(here: CipherCost = HERE, there: CipherCost = THERE, link: float = 1e8) -> Survey:
    source = HostProfile(spare_cores=9, encrypting=here)
    destination = HostProfile(spare_cores=9, decrypting=there)
    memory = MemoryProfile(total=GIB, ratios={ZSTD: WireRatio(0.25, 0.5)})
    return Survey(memory, LinkProfile({1: link, 2: link}), source, destination)


def cost_of(tuning: Tuning, known: Survey) -> Costs:
    return costs(known, tuning, KVM, draw(known, tuning))


def test_a_page_of_a_plain_stream_takes_two_records_of_which_qemu_counts_none() -> None:
    cost = cost_of(SECRET, survey())
    assert cost.first.wire[0] == 4104 + 2 * 29
    assert cost.first.counted[0] == 4104


def test_a_page_of_a_channel_takes_one_record_and_its_share_of_the_packets() -> None:
    cost = cost_of(replace(SECRET, channels=2), survey())
    assert cost.first.wire[0] == pytest.approx(4106.5 + 29 * (1 + 1 / 128))
    assert cost.first.counted[0] == 4106.5


def test_compressed_pages_share_their_records() -> None:
    cost = cost_of(replace(SECRET, channels=2, compression=ZSTD), survey())
    assert cost.first.wire[0] == pytest.approx(1024 + 10.5 + 29 * (1024 / 16384 + 1 / 128))


def test_the_one_thread_of_a_plain_stream_pays_at_both_ends() -> None:
    plain, secret = (cost_of(tuning, survey(link=1e12)) for tuning in (OPEN, SECRET))
    assert secret.source_cpu[0] - plain.source_cpu[0] == pytest.approx(4104 / 2e9 + 2e-6)
    more = secret.destination_cpu[0] - plain.destination_cpu[0]
    assert more == pytest.approx(4104 / 1e9 + 4e-6)
    assert secret.later.seconds[0] == pytest.approx(HostProfile().receive_seconds + more)


def test_channels_share_the_work() -> None:
    fast = survey(link=1e12)
    one = cost_of(SECRET, fast).later.seconds[0]
    four = cost_of(replace(SECRET, channels=4), fast).later.seconds[0]
    assert four < one / 3


def test_over_a_slow_link_encryption_costs_its_bytes_only() -> None:
    plain, secret = (simulate(survey(link=1e7), tuning, KVM) for tuning in (OPEN, SECRET))
    assert secret.total_time == pytest.approx(plain.total_time * 4162 / 4104, rel=0.01)


@given(
    speed=st.floats(1e7, 1e10),
    record=st.floats(0, 1e-4),
    channels=st.sampled_from([None, 2, 4]),
    compression=st.sampled_from([None, ZSTD]),
)
def test_who_does_not_encrypt_pays_nothing_and_who_does_is_never_faster(
    *, speed: float, record: float, channels: int | None, compression: Compression | None
) -> None:
    tuning = Tuning(channels=channels, compression=compression if channels else None)
    cipher = CipherCost(speed, record)
    known = survey(cipher, cipher, link=1e9)
    plain = cost_of(tuning, known)
    unknown = cost_of(tuning, survey(CipherCost(), CipherCost(), link=1e9))
    secret = cost_of(replace(tuning, encrypted=True), known)
    assert plain.first.seconds[0] == unknown.first.seconds[0]
    assert plain.first.wire[0] == unknown.first.wire[0]
    assert secret.first.seconds[0] >= plain.first.seconds[0]
    assert secret.first.wire[0] > plain.first.wire[0]
    assert secret.first.counted[0] == plain.first.counted[0]


def test_rdma_is_ruled_out_where_a_move_is_to_be_encrypted() -> None:
    tuning = tuning_for(Method.RDMA, Settings(encrypted=True))
    possible, rejected = candidates(
        Settings(encrypted=True), tuning.needs, tuning.needs, (Method.RDMA,)
    )
    assert not possible
    assert "cannot encrypt RDMA" in rejected[0].reason


@pytest.mark.parametrize("method", Method)
def test_every_method_can_be_set_to_be_encrypted(method: Method) -> None:
    assert tuning_for(method, Settings(encrypted=True)).encrypted
    assert tuning_for(method, Settings()).encrypted is (method is Method.ENCRYPTED)

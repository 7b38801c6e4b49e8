from typing import Any

import pytest

from whimbrel.model.memory import CipherCost, HostProfile, WireRatio
from whimbrel.model.method import Codec, Compression
from whimbrel.model.survey import HostFacts, NumaNode
from whimbrel.practice.survey_content import Shortened
from whimbrel.practice.survey_host import (
    Idle,
    ciphered,
    facts_from,
    own_cpu,
    profile_from,
    spare_cores,
)

ZLIB = Compression(Codec.ZLIB, 1)
TOLD = {"copy": 1e-6, "receive": 2e-6, "scatter": 1.5e-6, "touch": 3e-6, "deflate": 50e6}


def shortened(speed: float) -> dict[Compression, Shortened]:
    return {ZLIB: Shortened(WireRatio(0.5, 0.5, 0.1), speed, 2 * speed)}


def test_what_the_host_measured_of_itself_stands_in_its_profile() -> None:
    base = HostProfile(spare_cores=1.5, setup_seconds=0.3)
    found = profile_from(base, TOLD, {}, 0.0)
    costs = (found.copy_seconds, found.receive_seconds, found.scattering, found.touch_seconds)
    assert costs == (1e-6, 2e-6, 1.5e-6, 3e-6)
    assert (found.spare_cores, found.setup_seconds) == (1.5, 0.3)
    assert found.error > 0


def test_codecs_are_as_much_faster_there_as_the_sample_is() -> None:
    found = profile_from(HostProfile(), TOLD, shortened(10e6), here=100e6)
    assert found.compress_speed == {ZLIB: pytest.approx(5e6)}
    assert found.restore_speed == {ZLIB: pytest.approx(10e6)}


def test_a_codec_that_was_not_timed_keeps_what_the_past_says() -> None:
    base = HostProfile(compress_speed={ZLIB: 7e6})
    assert profile_from(base, TOLD, shortened(0.0), 100e6).compress_speed == {ZLIB: 7e6}


def test_what_tls_costs_there_stands_in_its_profile() -> None:
    told = {"encrypt": {"speed": 4e9, "record": 1e-6}, "decrypt": {"speed": 2e9, "record": 2e-6}}
    found = ciphered(HostProfile(), told)
    assert (found.encrypting, found.decrypting) == (CipherCost(4e9, 1e-6), CipherCost(2e9, 2e-6))
    assert ciphered(found, None) == found


def test_facts_are_read_from_the_hosts_answer() -> None:
    told: dict[str, Any] = {
        "cores": 4,
        "spare_memory": 10,
        "memory": 20,
        "huge_pages": {"size": 2, "free": 1, "total": 3},
        "nodes": [{"node": 0, "cores": [0, 1], "free": 5, "memory": 6}],
        "boot_id": "x",
    }
    found = facts_from(told)
    assert found.same_machine(facts_from(told))
    assert not found.same_machine(facts_from(told | {"boot_id": "y"}))
    assert not HostFacts().same_machine(HostFacts()), "neither was told"
    assert (found.cores, found.available_memory, found.memory) == (4, 10, 20)
    assert (found.huge_page, found.free_huge_pages) == (2, 1)
    assert found.nodes == (NumaNode((0, 1), 5),)


def test_idle_cores_are_spare_ones() -> None:
    assert spare_cores(Idle(10.0, 100.0), Idle(14.0, 103.0)) == pytest.approx(0.75)
    assert spare_cores(Idle(10.0, 100.0), Idle(10.0, 90.0)) == 0.0


def test_what_this_process_uses_is_counted() -> None:
    before = own_cpu()
    sum(number * number for number in range(200_000))
    assert own_cpu() > before

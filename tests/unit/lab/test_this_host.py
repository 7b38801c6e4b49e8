from whimbrel.lab.this_host import ThisHost
from whimbrel.model.memory import HostProfile, WireRatio
from whimbrel.model.method import Codec, Compression
from whimbrel.practice.survey_content import Shortened
from whimbrel.practice.survey_host import spare_cores

ZSTD, ZLIB = Compression(Codec.ZSTD, 1), Compression(Codec.ZLIB, 1)


async def test_what_only_moves_can_tell_is_kept_and_the_rest_measured() -> None:
    base = HostProfile(
        setup_seconds=0.5, state_bytes=1234, spare_cores=1.5, compress_speed={ZLIB: 5e7, ZSTD: 1e8}
    )
    ratio = WireRatio(0.5, 0.5)
    timed = {ZSTD: Shortened(ratio, 3e8, 9e8), ZLIB: Shortened(ratio, 0.0)}
    found = await ThisHost().cost(base, timed, 16 << 20)
    assert (found.setup_seconds, found.state_bytes, found.spare_cores) == (0.5, 1234, 1.5)
    assert found.compress_speed == {ZLIB: 5e7, ZSTD: 3e8}
    assert found.restore_speed == {ZSTD: 9e8}
    assert 0 < found.copy_seconds < 1e-3
    assert 0 <= found.touch_seconds < 1e-3
    for cipher in (found.encrypting, found.decrypting):
        assert 1e7 < cipher.speed < 1e12
        assert 0 < cipher.record_seconds < 1e-3


async def test_what_the_survey_uses_counts_as_idle() -> None:
    host = ThisHost()
    before = await host.idle()
    sum(number * number for number in range(2_000_000))
    after = await host.idle()
    assert spare_cores(before, after) > 0


async def test_every_core_belongs_to_a_node() -> None:
    found = await ThisHost().facts()
    assert found.cores >= 1
    assert 0 < found.available_memory <= found.memory
    if found.nodes:
        assert sum(len(node.cores) for node in found.nodes) >= found.cores

"""Which codecs a survey measures, and what it says of those that a device works out."""

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import pytest

from whimbrel.errors import CommandRefused
from whimbrel.hypervisors.qemu import probe
from whimbrel.model.inventory import Capability
from whimbrel.model.method import ACCELERATORS, Codec, Compression, Settings
from whimbrel.model.survey import Depth
from whimbrel.practice.forecast import compressions
from whimbrel.practice.survey import COMPRESSIONS, HIGHER
from whimbrel.practice.survey_content import restorer, shortened, stream

if TYPE_CHECKING:
    from whimbrel.hypervisors.qemu.monitor import Monitor

USUAL = frozenset({Capability.ZLIB, Capability.ZSTD})
PAGES = [
    (f"page {number} of a text that repeats itself; " * 200).encode()[:4096] for number in range(64)
]


class Refusing:
    """A monitor that takes some codecs only."""

    def __init__(self, *taken: str) -> None:
        self._taken = taken

    async def execute(self, command: str, arguments: Mapping[str, Any]) -> None:
        assert command == "migrate-set-parameters"
        codec = arguments.get("multifd-compression", "zlib")
        if codec not in self._taken:
            raise CommandRefused(f"Parameter 'multifd-compression' does not accept value '{codec}'")


async def test_a_codec_counts_where_this_qemu_takes_it() -> None:
    monitor = cast("Monitor", Refusing("zlib", "zstd", "qpl"))
    lacking = await probe._settings(monitor)
    assert set(lacking) == {Capability.UADK, Capability.QATZIP}
    assert "does not accept value 'uadk'" in lacking[Capability.UADK]


def test_an_accelerator_is_surveyed_where_both_hosts_have_it() -> None:
    plain = compressions(Settings(), Depth.DEFAULT, USUAL)
    assert set(plain) == {*COMPRESSIONS, *HIGHER}
    both = compressions(Settings(), Depth.DEFAULT, USUAL | {Capability.QPL})
    assert set(both) - set(plain) == {Compression(Codec.QPL)}


def test_a_quick_survey_measures_no_higher_levels_and_always_the_one_that_was_set() -> None:
    told = Settings(compression=Compression(Codec.ZSTD, 9))
    found = compressions(told, Depth.QUICK, USUAL)
    assert found[0] == told.compression
    assert not set(HIGHER) & set(found)


@pytest.mark.parametrize("codec", ACCELERATORS)
def test_an_accelerator_is_taken_for_what_zlib_does_at_its_lowest_level(codec: Codec) -> None:
    theirs = shortened(Compression(codec), PAGES, PAGES, [PAGES])
    ours = shortened(Compression(Codec.ZLIB, 1), PAGES, PAGES, [PAGES])
    assert theirs is not None
    assert ours is not None
    assert theirs.ratio == ours.ratio
    assert theirs.speed > 0


@pytest.mark.parametrize("codec", Codec)
def test_whatever_leaves_a_stream_can_be_restored(codec: Codec) -> None:
    one = Compression(codec)
    packet, restore = stream(one), restorer(one)
    for pages in (PAGES, [secrets.token_bytes(4096)], PAGES[:3]):
        assert restore(packet(pages)) == b"".join(pages)

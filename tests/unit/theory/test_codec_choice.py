"""A plan compresses by what the survey measured: how far a codec shortens pages, and how fast."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.theory.guests import still_guest
from unit.theory.situations import ALL, WISH, ZLIB, ZSTD, measured, situation
from whimbrel.model.inventory import Capability
from whimbrel.model.memory import WireRatio
from whimbrel.model.method import Codec, Compression, Settings
from whimbrel.model.plan import Wish
from whimbrel.theory.planning import plan_move
from whimbrel.theory.situation import Situation

QPL = Compression(Codec.QPL)
NO_POSTCOPY = replace(WISH, postcopy=False)


def surveyed(
    ratios: dict[Compression, float],
    speeds: dict[Compression, float],
    link: float,
    cores: float = 2.0,
) -> Situation:
    """Return a guest that does not write, with codecs that do so much, on hosts with idle cores."""
    survey = measured(still_guest())
    ends = (survey.source, survey.destination)
    source, destination = (
        replace(
            end, spare_cores=cores, compress_speed=speeds, restore_speed=dict.fromkeys(speeds, 1e9)
        )
        for end in ends
    )
    known = {codec: WireRatio(ratio, ratio, 0.02) for codec, ratio in ratios.items()}
    return situation(
        replace(
            survey,
            memory=replace(survey.memory, ratios=known),
            link=replace(survey.link, goodput={1: link, 2: link, 4: link}),
            source=source,
            destination=destination,
        )
    )


def chosen(of: Situation, wish: Wish = NO_POSTCOPY) -> Compression | None:
    made = plan_move(of, Settings(), wish, generator=np.random.default_rng(3))
    assert made.chosen is not None
    return made.chosen.candidate.tuning.compression


def test_over_a_slow_link_the_codec_that_shortens_most_is_taken() -> None:
    fast = {ZSTD: 500e6, ZLIB: 400e6}
    assert chosen(surveyed({ZSTD: 0.5, ZLIB: 0.2}, fast, link=10e6)) == ZLIB
    assert chosen(surveyed({ZSTD: 0.2, ZLIB: 0.5}, fast, link=10e6)) == ZSTD


def test_where_cores_decide_the_faster_codec_is_taken() -> None:
    alike = {ZSTD: 0.3, ZLIB: 0.3}
    assert chosen(surveyed(alike, {ZSTD: 40e6, ZLIB: 400e6}, link=100e6)) == ZLIB
    assert chosen(surveyed(alike, {ZSTD: 400e6, ZLIB: 40e6}, link=100e6)) == ZSTD


def test_over_a_link_that_is_faster_than_any_codec_nothing_is_compressed() -> None:
    assert chosen(surveyed({ZSTD: 0.3, ZLIB: 0.3}, {ZSTD: 50e6, ZLIB: 20e6}, link=900e6)) is None


def test_what_cannot_be_shortened_is_not_compressed() -> None:
    assert chosen(surveyed({ZSTD: 1.0, ZLIB: 1.0}, {ZSTD: 500e6, ZLIB: 100e6}, link=50e6)) is None


def test_within_a_budget_that_no_codec_keeps_nothing_is_compressed() -> None:
    of = surveyed({ZSTD: 0.3, ZLIB: 0.3}, {ZSTD: 30e6, ZLIB: 30e6}, link=100e6)
    tight = replace(NO_POSTCOPY, cpu_budget=0.3)
    assert chosen(of, tight) is None


def test_an_accelerator_is_chosen_by_its_figures_where_both_hosts_have_it() -> None:
    of = surveyed({ZSTD: 0.4, QPL: 0.3}, {ZSTD: 300e6, QPL: 4e9}, link=50e6)
    assert chosen(of) == QPL
    without = replace(of, source=ALL - {Capability.QPL})
    assert chosen(without) == ZSTD


@given(
    ratio=st.floats(0.05, 1.0),
    other=st.floats(0.05, 1.0),
    speed=st.floats(20e6, 1e9),
    slower=st.floats(20e6, 1e9),
    link=st.floats(5e6, 5e8),
)
@settings(max_examples=15)
def test_no_codec_that_is_worse_in_both_is_ever_taken(
    ratio: float, other: float, speed: float, slower: float, link: float
) -> None:
    better, worse = min(ratio, other) * 0.9, max(ratio, other)
    fast, slow = max(speed, slower) * 1.1, min(speed, slower)
    of = surveyed({ZSTD: better, ZLIB: worse}, {ZSTD: fast, ZLIB: slow}, link)
    assert chosen(of) != ZLIB

"""Situations for the tests of planning: guests between two hosts that can do everything."""

from dataclasses import replace
from typing import Any

from unit.theory.guests import KVM, lcg_guest, still_guest
from whimbrel.model.inventory import Capability
from whimbrel.model.memory import Survey, WireRatio
from whimbrel.model.method import Codec, Compression
from whimbrel.model.plan import Wish
from whimbrel.model.units import MIB
from whimbrel.theory.situation import Situation

ALL = frozenset(Capability)
WISH = Wish(total_time=120.0, downtime=1.0)
ZSTD, ZLIB = Compression(Codec.ZSTD, 1), Compression(Codec.ZLIB, 1)


def measured(survey: Survey) -> Survey:
    """Return a survey that is a little unsure, and that measured two codecs."""
    goodput = survey.link.goodput[1]
    memory = survey.memory
    return replace(
        survey,
        memory=replace(
            memory,
            ratios={ZSTD: WireRatio(0.4, 0.45, 0.03), ZLIB: WireRatio(0.38, 0.43, 0.03)},
            dirty=replace(memory.dirty, rate_error=0.05),
        ),
        link=replace(survey.link, goodput={1: goodput, 2: goodput}, error=0.03),
        source=replace(survey.source, compress_speed={ZSTD: 400e6, ZLIB: 80e6}),
    )


FRANTIC = measured(lcg_guest(400_000, link=200.0 * MIB))
"""A guest that never converges."""

BUSY = measured(lcg_guest(20_000, link=125e6))
"""A guest that converges, and takes its time."""


def situation(
    survey: Survey | None = None, common: frozenset[Capability] = ALL, **more: Any
) -> Situation:
    chosen = measured(still_guest()) if survey is None else survey
    return Situation(chosen, common, common, KVM, headroom=0.5, **more)

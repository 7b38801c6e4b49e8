"""What stands in a survey for what only a shell could measure: said to be assumed, and wide."""

from dataclasses import replace

import numpy as np
import pytest

from unit.theory.guests import still_guest
from whimbrel.model.memory import HostProfile, WireRatio
from whimbrel.model.method import Codec, Compression, Tuning
from whimbrel.model.survey import HostFacts
from whimbrel.practice.survey_assumed import FACTOR, USUAL, ToldHost, assumed_link, said_of
from whimbrel.practice.survey_content import Shortened
from whimbrel.theory.draws import draw

ZLIB = Compression(Codec.ZLIB, 1)


class Told:
    """A host as its hypervisor tells of it."""

    name = "b"

    async def identity(self) -> str:
        return "b-uuid"

    async def facts(self) -> HostFacts:
        return HostFacts(cores=4, available_memory=1 << 30)

    async def idle(self) -> tuple[float, float]:
        return 10.0, 25.0

    async def carried(self, vm: str) -> float | None:
        return None


@pytest.mark.parametrize(
    ("named", "nic", "seen", "rate", "origin"),
    [
        (1.25e9, 5e8, 9e9, 1.25e9, "whimbrel.toml"),
        (None, 5e8, 9e9, 5e8, "interface"),
        (None, None, 9e9, 9e9, "earlier move"),
        (None, None, 1e6, USUAL, "nothing is known"),  # it may have been limited then
        (None, None, None, USUAL, "nothing is known"),
    ],
)
def test_what_is_named_is_believed_before_what_is_seen_and_that_before_what_is_usual(
    named: float | None, nic: float | None, seen: float | None, rate: float, origin: str
) -> None:
    found = assumed_link(named, nic, seen)
    assert found.rate == rate
    assert origin in found.origin


def test_four_of_five_draws_of_an_assumed_link_lie_within_the_factor() -> None:
    survey = replace(still_guest(), link=assumed_link(None, None, None).link)
    drawn = draw(survey, Tuning(), np.random.default_rng(1), 20_000).goodput
    low, high = np.quantile(drawn, [0.1, 0.9])
    assert low == pytest.approx(USUAL / FACTOR, rel=0.05)
    assert high == pytest.approx(USUAL * FACTOR, rel=0.05)


def test_an_assumed_link_is_called_so() -> None:
    words, hosts = said_of(assumed_link(1.25e8, None, None), "a", "b", ["b"])
    assert "from a to b is ASSUMED to carry 1 Gbit/s" in words
    assert "no shell leads to b" in words
    assert "on b is ASSUMED" in hosts


async def test_what_a_host_costs_that_nobody_measured_is_wide() -> None:
    told = ToldHost(Told())
    shortened = {ZLIB: Shortened(WireRatio(0.5, 0.5), 1e8, 2e8)}
    cost = await told.cost(HostProfile(spare_cores=3.0), shortened, 1 << 20)
    assert cost.error == assumed_link(1.0, None, None).link.error
    assert cost.spare_cores == 3.0
    assert cost.compression_speed(ZLIB) == 1e8
    assert cost.restoring_speed(ZLIB) == 2e8
    idle = await told.idle()
    assert (idle.at, idle.idle) == (10.0, 25.0)
    assert (await told.facts()).cores == 4

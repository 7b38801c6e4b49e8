"""What stands in a survey for what only a shell could measure: assumed, said so, and wide.

ToldHost       a host of which its hypervisor tells       practice.survey.HostProbe
assumed_link   a link that nobody can probe               LinkProfile, and words for it
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from whimbrel.model.memory import HostProfile, LinkProfile
from whimbrel.model.survey import HostFacts
from whimbrel.model.units import format_link
from whimbrel.model.wording import listed
from whimbrel.ports import Teller
from whimbrel.practice.survey_host import Idle, Shortenings

FACTOR = 2.0
"""What was assumed may be wrong by this factor either way, in four of five draws."""

WIDE = math.log(FACTOR) / 1.2816
"""The same as a relative standard error: p10 and p90 of a normal law lie 1.2816 of it away."""

USUAL = 1.25e8
"""Bytes per second that a link is taken to carry of which nothing is known: 1 Gbit/s."""


class ToldHost:
    """The `HostProbe` of a host to which no shell leads.

    What moving memory costs there is not measured: it comes with the profile, wide. Codecs are
    taken to be as fast as where whimbrel runs.

    Args:
        teller: What its hypervisor tells of it.
    """

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    async def idle(self) -> Idle:
        """See `HostProbe.idle`."""
        return Idle(*await self._teller.idle())

    async def facts(self) -> HostFacts:
        """See `HostProbe.facts`."""
        return await self._teller.facts()

    async def cost(self, base: HostProfile, shortened: Shortenings, touched: int) -> HostProfile:  # noqa: ARG002
        """See `HostProbe.cost`."""
        timed = {codec: found for codec, found in shortened.items() if found.speed > 0}
        speeds = {codec: found.speed for codec, found in timed.items()}
        restoring = {codec: found.restoring for codec, found in timed.items()}
        return replace(
            base,
            error=max(base.error, WIDE),
            compress_speed={**base.compress_speed, **speeds},
            restore_speed={**base.restore_speed, **restoring},
        )


@dataclass(frozen=True)
class Assumed:
    """What a link was taken for.

    Attributes:
        link: The link, with its wide band.
        origin: Whence that comes, in words.
    """

    link: LinkProfile
    origin: str

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.link.goodput_for(1)


def assumed_link(named: float | None, nic: float | None, seen: float | None) -> Assumed:
    """Return what a link is taken for that cannot be probed.

    Args:
        named: Bytes per second that its owner says it carries; believed before all else.
        nic: What the interface at an end says that a shell leads to.
        seen: What a move has been seen to get between these hosts, or to the source: a link that
            carried it can, and one that was limited then may carry more.
    """
    if named is not None:
        return Assumed(_wide(named), "its rate in whimbrel.toml")
    if nic is not None:
        return Assumed(_wide(nic), "what its interface says at the end with a shell")
    if seen is not None and seen > USUAL:
        return Assumed(_wide(seen), "what an earlier move got")
    return Assumed(_wide(USUAL), "what most links carry at least; nothing is known of it")


def said_of(link: Assumed, source: str, destination: str, bare: Sequence[str]) -> tuple[str, ...]:
    """Return what a plan says of what it took for granted, whole sentences.

    Args:
        link: What the link was taken for.
        source: The host that the guest leaves.
        destination: The host it goes to.
        bare: Those of both to which no shell leads.
    """
    names = listed(bare)
    way = (
        f"The link from {source} to {destination} is ASSUMED to carry {format_link(link.rate)}, "
        f"within a factor of {FACTOR:g} either way ({link.origin}): no shell leads to {names}, "
        "so it was not probed."
    )
    return way, f"What moving memory costs on {names} is ASSUMED likewise."


def _wide(rate: float) -> LinkProfile:
    return LinkProfile({1: rate}, error=WIDE)

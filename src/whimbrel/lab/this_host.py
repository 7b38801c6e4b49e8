"""The machine of the lab as both hosts of a survey: the sites' own questions, asked within."""

import asyncio
from functools import partial

from whimbrel.model.memory import HostProfile
from whimbrel.model.survey import HostFacts
from whimbrel.model.tls import FFDHE2048
from whimbrel.practice.gently import gently
from whimbrel.practice.survey_host import (
    Idle,
    Shortenings,
    ciphered,
    facts_from,
    own_cpu,
    profile_from,
)
from whimbrel.sites.onsite import host, load
from whimbrel.sites.onsite.cipher import cipher


class ThisHost:
    """The `practice.survey.HostProbe` of the host that whimbrel runs on."""

    async def idle(self) -> Idle:
        """See `HostProbe.idle`; what whimbrel itself uses here is spare."""
        told = load.idle()
        return Idle(told["at"], told["idle"] + own_cpu())

    async def facts(self) -> HostFacts:
        """See `HostProbe.facts`."""
        return facts_from(await asyncio.to_thread(host.facts))

    async def cost(self, base: HostProfile, shortened: Shortenings, touched: int) -> HostProfile:
        """See `HostProbe.cost`; codecs were timed here, so that their speeds hold."""
        told = await gently(partial(load.cost, touched))
        profile = profile_from(base, told, shortened, 0.0)
        return ciphered(profile, await gently(partial(cipher, FFDHE2048)))

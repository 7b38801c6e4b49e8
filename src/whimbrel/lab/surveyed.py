"""A survey on the lab's stage: the guest where it runs, the lab's link, this machine twice."""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from whimbrel.lab.counters import interface_bytes
from whimbrel.lab.goodput import Goodput, measure_goodput
from whimbrel.lab.guests import Guest
from whimbrel.lab.hosts import LabHost
from whimbrel.lab.namespaces import in_namespace
from whimbrel.lab.stage import Stage
from whimbrel.lab.this_host import ThisHost
from whimbrel.model.memory import HostProfile
from whimbrel.model.method import Compression
from whimbrel.model.survey import Depth, LinkReading, Surveyed
from whimbrel.practice.survey import COMPRESSIONS, Subject, survey
from whimbrel.sites.onsite.host import rate

_SPREAD = 0.008
"""Relative error of a probe at least, however alike its parts are: it is not the move itself."""


async def survey_stage(
    stage: Stage,
    guest: Guest,
    depth: Depth = Depth.DEFAULT,
    *,
    streams: Sequence[int] = (1, 2),
    compressions: Sequence[Compression] = COMPRESSIONS,
    profiles: tuple[HostProfile, HostProfile] | None = None,
    generator: np.random.Generator | None = None,
) -> Surveyed:
    """Survey a guest, the link to the other end, and this machine as both hosts.

    Args:
        stage: The two ends.
        guest: The guest, running on one of them.
        depth: How much time to take.
        streams: Numbers of TCP streams that moves may use, the likeliest first.
        compressions: Codecs and levels that moves may use.
        profiles: Source and destination as past moves have shown them.
        generator: Chooses the pages.

    Raises:
        HostError: The guest can neither be looked into nor counted by its hypervisor.
        LabError: The link cannot be probed.
    """
    here, there = guest.end.host, stage.other(guest.end).host
    source, destination = profiles or (HostProfile(), HostProfile())
    subject = Subject(
        guest.machine.inspection(),
        LabLink(here, there),
        ThisHost(),
        source_profile=source,
        destination_profile=destination,
        streams=streams,
        compressions=compressions,
        together=LabLink(here, there, mptcp=True) if stage.mptcp else None,
    )
    return await survey(subject, depth, generator=generator)


class LabLink:
    """The `LinkProbe` of the lab's link; counts others' traffic from when it is made."""

    def __init__(self, sender: LabHost, receiver: LabHost, *, mptcp: bool = False) -> None:
        self._sender, self._receiver, self._mptcp = sender, receiver, mptcp
        self._since, self._before = time.monotonic(), _carried(sender)

    async def probe(self, streams: Sequence[int], seconds: float) -> LinkReading:
        """See `practice.survey.LinkProbe.probe`."""
        idle = max(time.monotonic() - self._since, 1e-3)
        others = max(
            (now - before) / idle
            for now, before in zip(_carried(self._sender), self._before, strict=True)
        )
        found = [await self._measure(count, seconds) for count in streams]
        return LinkReading(
            goodput={each.streams: each.rate for each in found},
            latency=min(each.latency for each in found),
            error=max(_SPREAD, *(each.spread for each in found)),
            nominal=nominal_rate(self._sender, every=self._mptcp),
            other_traffic=others,
            in_flight={each.streams: float(each.buffered) for each in found},
        )

    async def _measure(self, streams: int, seconds: float) -> Goodput:
        return await measure_goodput(
            self._sender,
            self._receiver,
            duration=seconds,
            streams=streams,
            mptcp=self._mptcp,
            as_qemu=True,
        )


def nominal_rate(host: LabHost, *, every: bool = False) -> float | None:
    """Return what the host's first interface, or all together, say they carry; None: nothing.

    Bytes per second. A veth says 10 Gbit/s, whatever it is shaped to.
    """
    chosen = host.interfaces if every else host.interfaces[:1]
    told = [in_namespace(host.namespace, partial(rate, name)) for name in chosen]
    return None if None in told else sum(each or 0.0 for each in told)


def _carried(host: LabHost) -> tuple[int, int]:
    """Return the bytes (received, sent) over all links of a host."""
    counted = interface_bytes(host)
    links = [figures for name, figures in counted.items() if name in host.interfaces]
    return sum(received for received, _ in links), sum(sent for _, sent in links)

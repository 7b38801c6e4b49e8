"""What to change of a survey, as past moves have taught it (`theory.calibrate` learns it)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import StreamKind

DOUBT = 2
"""How many moves without any correction are added to the past ones."""

WIDEST = 20.0
"""No correction is larger than this factor, or smaller than its inverse."""


@dataclass(frozen=True)
class Corrections:
    """What to change of what a survey says; factors are above 0, and 1 corrects nothing.

    Attributes:
        moves: How many past moves they were learnt from.
        link: Factor on the goodput, whatever the number of streams.
        stop: Factor on what stopping costs at the source: its seconds, and bytes of device
            state.
        load: Seconds that the destination's guest needs more until it runs and answers.
        waking: Factor on the pages that a guest waits for first in post-copy.
        start: Seconds more to start a hypervisor at the destination.
        copies: CPU seconds that past moves took at the source for each page with content.
        receipts: Likewise at the destination, from a plain stream into prepared memory.
        scatters: Likewise from channels.
        first_touch: Factor on the extra seconds of a destination page's first touch.
        pace: Factor on what a page takes where cores decide, by kind of stream.
        hinted: Factor on the memory with content that free page hints skip: a guest tells of
            whole blocks of 4 MiB only, and while the first pass is on its way already.
    """

    moves: int = 0
    link: float = 1.0
    stop: float = 1.0
    load: float = 0.0
    waking: float = 1.0
    start: float = 0.0
    copies: tuple[float, ...] = ()
    receipts: tuple[float, ...] = ()
    scatters: tuple[float, ...] = ()
    first_touch: float = 1.0
    pace: Mapping[StreamKind, float] = field(default_factory=dict)
    hinted: float = 1.0

    def on(self, survey: Survey) -> Survey:
        """Return a survey with everything corrected."""
        return replace(
            survey,
            memory=self.on_memory(survey.memory),
            link=self.on_link(survey.link),
            source=self.on_source(survey.source),
            destination=self.on_destination(survey.destination),
            pace=self.pace,
        )

    def on_memory(self, memory: MemoryProfile) -> MemoryProfile:
        """Return memory of which hints skip what they did."""
        return replace(memory, free_hintable=round(memory.free_hintable * self.hinted))

    def on_link(self, link: LinkProfile) -> LinkProfile:
        """Return a link of which a move gets what past moves got."""
        goodput = {streams: rate * self.link for streams, rate in link.goodput.items()}
        every = None if link.multipath is None else self.on_link(link.multipath)
        return replace(link, goodput=goodput, multipath=every)

    def on_source(self, host: HostProfile) -> HostProfile:
        """Return a source that costs what it did."""
        return replace(
            host,
            copy_seconds=page_seconds(self.copies, host.copy_seconds),
            stop_seconds=host.stop_seconds * self.stop,
            state_bytes=max(1, round(host.state_bytes * self.stop)),
        )

    def on_destination(self, host: HostProfile) -> HostProfile:
        """Return a destination that costs what it did."""
        return replace(
            host,
            receive_seconds=page_seconds(self.receipts, host.receive_seconds),
            scatter_seconds=(
                page_seconds(self.scatters, host.scattering)
                if self.scatters
                else host.scatter_seconds
            ),
            touch_seconds=host.touch_seconds * self.first_touch,
            load_seconds=max(0.0, host.load_seconds + self.load),
            waking_pages=host.waking_pages * self.waking,
            start_seconds=max(0.0, host.start_seconds + self.start),
        )


def page_seconds(past: Sequence[float], measured: float) -> float:
    """Return what a page takes of a core that has nothing else to wait for, seconds.

    A move that waits for its link wakes for every few pages and takes more for each of them,
    so the lower quartile is believed: of past moves, in the company of `DOUBT` that took what
    was measured now.
    """
    if not past:
        return measured
    told = float(np.quantile([*past, *[measured] * DOUBT], 0.25, method="higher"))
    return min(max(told, measured / WIDEST), measured * WIDEST)

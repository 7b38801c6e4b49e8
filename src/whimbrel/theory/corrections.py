"""What to change of a survey, as past moves have taught it (`theory.calibrate` learns it)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from whimbrel.model.memory import HostProfile, LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import StreamKind


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
        source_page: Factor on the source's CPU seconds per page with content.
        destination_page: Factor on the destination's.
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
    source_page: float = 1.0
    destination_page: float = 1.0
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
            copy_seconds=host.copy_seconds * self.source_page,
            stop_seconds=host.stop_seconds * self.stop,
            state_bytes=max(1, round(host.state_bytes * self.stop)),
        )

    def on_destination(self, host: HostProfile) -> HostProfile:
        """Return a destination that costs what it did."""
        return replace(
            host,
            receive_seconds=host.receive_seconds * self.destination_page,
            touch_seconds=host.touch_seconds * self.first_touch,
            load_seconds=max(0.0, host.load_seconds + self.load),
            waking_pages=host.waking_pages * self.waking,
            start_seconds=max(0.0, host.start_seconds + self.start),
        )

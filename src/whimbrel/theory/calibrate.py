"""What past moves between two hosts teach: corrections to the next survey, and nothing else.

    records ──► those that ended before ──► each: observed / simulated ──► median ──► Corrections

Each past move is simulated anew from its own uncorrected survey, so that corrections never
build on corrections. Each correction is the median over the past moves, joined by `DOUBT`
moves in which nothing had to be corrected: few moves correct little, one outlier nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whimbrel.model.memory import HostProfile, LinkProfile, Survey
from whimbrel.model.method import Postcopy, Transport, Tuning
from whimbrel.model.prediction import Course
from whimbrel.model.record import MoveRecord
from whimbrel.model.units import PAGE
from whimbrel.theory.draws import draw
from whimbrel.theory.rates import costs
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate

DOUBT = 2
"""How many moves without any correction are added to the past ones."""

WIDEST = 20.0
"""No correction is larger than this factor, or smaller than its inverse."""

LINK_BOUND = 0.9
"""Share of the goodput from which a simulated move says something about the link."""

PATIENCE = 3600.0
"""Seconds that a past move is simulated for."""


@dataclass(frozen=True)
class Corrections:
    """Factors on what a survey says, each above 0; 1 corrects nothing.

    Attributes:
        moves: How many past moves they were learnt from.
        link: On the goodput, whatever the number of streams.
        stop: On what stopping costs at the source: its seconds, and bytes of device state.
        load: On the destination's seconds to load the device state.
        source_page: On the source's CPU seconds per page with content.
        destination_page: On the destination's.
        first_touch: On the extra seconds of a destination page's first touch.
    """

    moves: int = 0
    link: float = 1.0
    stop: float = 1.0
    load: float = 1.0
    source_page: float = 1.0
    destination_page: float = 1.0
    first_touch: float = 1.0

    def on(self, survey: Survey) -> Survey:
        """Return a survey with everything corrected."""
        return replace(
            survey,
            link=self.on_link(survey.link),
            source=self.on_source(survey.source),
            destination=self.on_destination(survey.destination),
        )

    def on_link(self, link: LinkProfile) -> LinkProfile:
        """Return a link of which a move gets what past moves got."""
        goodput = {streams: rate * self.link for streams, rate in link.goodput.items()}
        return replace(link, goodput=goodput)

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
            load_seconds=host.load_seconds * self.load,
        )


def calibrate(
    records: Iterable[MoveRecord],
    source: str,
    destination: str,
    *,
    before: float,
    rules: QemuRules | None = None,
) -> Corrections:
    """Return what the moves from one host to another teach that ended before a moment.

    Moves of other hosts, moves that did not complete or were not surveyed, and every move
    that had not ended by then are left out, whatever is handed in; so a move under
    prediction, given the moment it is asked for, can never teach about itself.

    Args:
        records: Moves, in any order.
        source: Name of the host they left.
        destination: Name of the host they went to.
        before: Seconds since 1970-01-01 UTC; when the move to be predicted is asked for.
        rules: The QEMU that moved them.
    """
    past = [
        _Past(each, each.survey, simulate(each.survey, each.tuning, rules, deadline=PATIENCE))
        for each in records
        if each.survey is not None and _teaches(each, source, destination, before)
    ]
    switches = [_switchover(each, rules or QemuRules()) for each in past]
    receiving = _settled([_destination_page(each) for each in past])
    return Corrections(
        moves=len(past),
        link=_settled([_link(each) for each in past]),
        stop=_settled([stop for stop, _ in switches]),
        load=_settled([load for _, load in switches]),
        source_page=_settled([_source_page(each) for each in past]),
        destination_page=receiving,
        first_touch=_settled([_first_touch(each, receiving) for each in past]),
    )


@dataclass(frozen=True)
class _Past:
    """A past move with its own survey, and what that survey says of it today."""

    record: MoveRecord
    survey: Survey
    course: Course


def _teaches(record: MoveRecord, source: str, destination: str, before: float) -> bool:
    return (
        record.ended < before
        and (record.source, record.destination) == (source, destination)
        and bool(record.completed)
    )


def _settled(factors: Sequence[float | None]) -> float:
    """Return the median of what is known in the company of `DOUBT` moves that were right."""
    known = [_within(each) for each in factors if each is not None]
    return float(math.exp(np.median([math.log(each) for each in known] + [0.0] * DOUBT)))


def _within(factor: float) -> float:
    return min(max(factor, 1 / WIDEST), WIDEST) if math.isfinite(factor) else 1.0


def _link(past: _Past) -> float | None:
    """Return the share of the goodput that the move got, where it wanted all of it."""
    survey, course = past.survey, past.course
    tuning, seen = past.record.tuning, past.record.observed
    if tuning.as_qemu_comes or tuning.bandwidth_limit is not None:
        return None
    if seen.total_time is None or seen.wire_bytes is None:
        return None
    flowing = course.total_time - survey.source.setup_seconds
    spent = seen.total_time - survey.source.setup_seconds
    goodput = survey.link.goodput_for(tuning.channels or 1)
    if min(flowing, spent) <= 0 or course.wire_bytes < LINK_BOUND * goodput * flowing:
        return None
    return (seen.wire_bytes / spent) / (course.wire_bytes / flowing)


def _switchover(past: _Past, rules: QemuRules) -> tuple[float | None, float | None]:
    """Return the factors on what stopping costs at the source, and on loading.

    In post-copy the hypervisor's own count ends before the destination has loaded, which
    tells the two apart; elsewhere they share what is left over.
    """
    record, survey, course = past.record, past.survey, past.course
    seen, goodput = record.observed, survey.link.goodput_for(record.tuning.channels or 1)
    if seen.downtime is None:
        return None, None
    stop = survey.source.stop_seconds + survey.source.state_bytes / goodput
    load = survey.destination.load_seconds
    if record.tuning.postcopy is Postcopy.NEVER:
        expected = _expected_downtime(past, rules)
        factor = _factor(seen.downtime, expected, stop + load)
        return factor, factor
    if record.tuning.postcopy is Postcopy.IF_STALLED or seen.downtime_reported is None:
        return None, None  # whether it came to post-copy is not recorded
    late = course.downtime - course.downtime_reported
    return (
        _factor(seen.downtime_reported, course.downtime_reported, stop),
        _factor(seen.downtime - seen.downtime_reported, late, load),
    )


def _expected_downtime(past: _Past, rules: QemuRules) -> float | None:
    """Return the simulated downtime for the bytes that really were left; None: not known."""
    course, tuning = past.course, past.record.tuning
    left = past.record.observed.remaining
    if left is None or not course.completed:
        return None
    page = costs(past.survey, tuning, rules, draw(past.survey, tuning)).later
    more = (left - course.passes[-1].remaining) / PAGE
    return course.downtime + more * float(page.seconds[0])


def _factor(seen: float, expected: float | None, part: float) -> float | None:
    """Return the factor on a part of what was expected that explains what was seen."""
    if expected is None or part <= 0:
        return None
    return 1 + (seen - expected) / part


def _copied(tuning: Tuning) -> bool:
    """Tell whether a page costs its copying and nothing else."""
    plain = tuning.compression is None and tuning.xbzrle_cache is None
    return plain and tuning.transport is Transport.TCP


def _source_page(past: _Past) -> float | None:
    """Return observed over expected CPU to copy a page, zero pages taken as expected."""
    record, survey = past.record, past.survey
    seen, pages = record.observed.source_cpu_seconds, record.observed.normal_pages
    copying = survey.source.copy_seconds
    if seen is None or not pages or copying <= 0 or not _copied(record.tuning):
        return None
    marks = past.course.source_cpu_seconds - past.course.normal_pages * copying
    return (seen - marks) / (pages * copying)


def _destination_page(past: _Past) -> float | None:
    """Return observed over expected CPU to receive a page, where none is touched first."""
    record, survey = past.record, past.survey
    seen, pages = record.observed.destination_cpu_seconds, record.observed.normal_pages
    receiving = survey.destination.receive_seconds
    if seen is None or not pages or receiving <= 0 or not _copied(record.tuning):
        return None
    return None if record.tuning.prepared_memory is None else seen / (pages * receiving)


def _first_touch(past: _Past, receiving: float) -> float | None:
    """Return observed over expected CPU of a first touch, receiving taken as corrected."""
    record, survey = past.record, past.survey
    seen, pages = record.observed.destination_cpu_seconds, record.observed.normal_pages
    touching = survey.destination.touch_seconds
    if seen is None or not pages or touching <= 0 or not _copied(record.tuning):
        return None
    touched = min(pages, survey.memory.pages * (1 - survey.memory.zero_share))
    if record.tuning.prepared_memory is not None or touched <= 0:
        return None
    received = pages * survey.destination.receive_seconds * receiving
    return (seen - received) / (touched * touching)

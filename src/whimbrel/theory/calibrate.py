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

from whimbrel.model.memory import LinkProfile, Survey
from whimbrel.model.method import Postcopy, StreamKind, Transport, Tuning
from whimbrel.model.prediction import Course
from whimbrel.model.record import MoveRecord
from whimbrel.theory.corrections import DOUBT, WIDEST, Corrections
from whimbrel.theory.postcopy import faults
from whimbrel.theory.rules import QemuRules
from whimbrel.theory.simulate import simulate

LONGEST = 1.0
"""Seconds; nothing is corrected by adding or taking more."""

TELLING = 0.005
"""Seconds that a guest must be expected to wait for its first pages to tell how many they are."""

LINK_BOUND = 0.9
"""Share of the goodput from which a simulated move says something about the link."""

_SURELY = frozenset({Postcopy.AFTER_FIRST_PASS, Postcopy.AFTER_FIRST_PASS_PREEMPT})
"""Whether a move that may go over to post-copy did so is not recorded."""

PATIENCE = 3600.0
"""Seconds that a past move is simulated for."""

LAST = 40
"""Past moves that are learnt from, the latest: machines change, and each costs some
milliseconds to simulate again."""

HINTED = 0.1
"""Share of a move's bytes that its guest must call free to tell how much of that was skipped."""

ALIKE = 0.25
"""Two links are taken for one when their goodput differs by less than this factor's exponent."""


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
        _Past(
            each,
            each.survey.along(each.tuning),
            simulate(each.survey, each.tuning, rules, deadline=PATIENCE),
            rules,
        )
        for each in records
        if each.survey is not None and _teaches(each, source, destination, before)
    ]
    channels = [each for each in past if each.record.tuning.channels]
    plain = [each for each in past if not each.record.tuning.channels]
    pages = Corrections(
        copies=_told(map(_copy, past)),
        receipts=_told(map(_receipt, plain)),
        scatters=_told(map(_receipt, channels)),
    )
    return replace(
        pages,
        moves=len(past),
        link=_settled([_link(each) for each in past]),
        stop=_settled([_stop(each) for each in past]),
        load=_added([_load(each) for each in past]),
        waking=_settled([_waking(each) for each in past]),
        start=_added([_start(each) for each in past]),
        first_touch=_settled([_prepared(each) for each in past]),
        pace=_paces([_corrected(each, pages) for each in past]),
        hinted=min(1.0, _settled([_hinted(each) for each in past])),
    )


def learnt(
    past: Sequence[MoveRecord], source: str, destination: str, link: LinkProfile, rules: QemuRules
) -> Corrections:
    """Return what the last moves between two hosts teach about the next one.

    Hosts are the same whatever joins them; about the link only moves over a like one tell.

    Args:
        past: Moves that are over, in the order of time.
        source: Name of the host the guest leaves.
        destination: Name of the host it goes to.
        link: As it was surveyed for the next move.
        rules: The QEMU that moves it.
    """
    here = [each for each in past if (each.source, each.destination) == (source, destination)]
    last = here[-LAST:]
    like = [each for each in last if each.survey and alike(each.survey.link, link)]
    corrections, over_it = (
        calibrate(each, source, destination, before=math.inf, rules=rules) for each in (last, like)
    )
    return replace(corrections, link=over_it.link)


def alike(one: LinkProfile, other: LinkProfile) -> bool:
    """Tell whether two links, as they were surveyed, may be one."""
    return abs(math.log(one.goodput_for(1) / other.goodput_for(1))) < ALIKE


@dataclass(frozen=True)
class _Past:
    """A past move with its own survey, and what that survey says of it today."""

    record: MoveRecord
    survey: Survey
    course: Course
    rules: QemuRules | None


def _teaches(record: MoveRecord, source: str, destination: str, before: float) -> bool:
    return (
        record.ended < before
        and (record.source, record.destination) == (source, destination)
        and bool(record.completed)
    )


def _settled(factors: Sequence[float | None], doubted: float = 1.0) -> float:
    """Return the median of what is known in the company of `DOUBT` moves with another factor.

    Args:
        factors: Of past moves.
        doubted: What is believed without them.
    """
    known = [_within(each) for each in factors if each is not None]
    return float(math.exp(np.median([math.log(each) for each in known + [doubted] * DOUBT])))


def _added(seconds: Sequence[float | None]) -> float:
    """Return the median of what is known in the company of `DOUBT` moves that were right."""
    known = [each for each in seconds if each is not None and math.isfinite(each)]
    middle = float(np.median(known + [0.0] * DOUBT))
    return min(max(middle, -LONGEST), LONGEST)


def _within(factor: float) -> float:
    return min(max(factor, 1 / WIDEST), WIDEST) if math.isfinite(factor) else 1.0


def _link(past: _Past) -> float | None:
    """Return the share of the goodput that the move got, where it wanted all of it."""
    flows = _flows(past)
    if flows is None or past.record.observed.wire_bytes is None:
        return None
    expected, spent, share = flows
    # Devices of their own (RDMA) tell nothing of what TCP gets.
    if share < LINK_BOUND or past.record.tuning.stream is StreamKind.RDMA:
        return None
    return (past.record.observed.wire_bytes / spent) / (past.course.wire_bytes / expected)


def _hinted(past: _Past) -> float | None:
    """Return the factor on free memory with content that makes hints skip what they did."""
    record, memory, tuning = past.record, past.survey.memory, past.record.tuning
    seen, expected = record.observed.wire_bytes, past.course.wire_bytes
    if not tuning.free_page_hints or seen is None:
        return None
    skipped = memory.free_hintable * memory.ratio(tuning.compression).all
    if skipped <= HINTED * expected:
        return None
    return 1 - (seen - expected) / skipped


def _pace(past: _Past) -> float | None:
    """Return observed over expected seconds per byte of a move for which the link did not decide.

    By RDMA no link does: what its devices carry was never measured.
    """
    flows = _flows(past)
    if flows is None or past.record.observed.wire_bytes is None or not past.course.wire_bytes:
        return None
    expected, spent, share = flows
    bound = share >= LINK_BOUND and past.record.tuning.stream is not StreamKind.RDMA
    if bound or past.record.observed.wire_bytes == 0:
        return None
    return (spent / past.record.observed.wire_bytes) / (expected / past.course.wire_bytes)


def _paces(past: Sequence[_Past]) -> dict[StreamKind, float]:
    """Return the factor of each kind of stream; empty where no past move says anything of any.

    What gets into a stream's way (vCPUs, the network stack, the other end on the same cores) gets
    into every kind's: a kind of which little is known is believed to be like all of them. But
    RDMA's devices and TCP say nothing of each other.
    """
    found: dict[StreamKind, list[float | None]] = {kind: [] for kind in StreamKind}
    for each in past:
        if (factor := _pace(each)) is not None:
            found[each.record.tuning.stream].append(factor)
    by_rdma = found.pop(StreamKind.RDMA)
    every = [factor for factors in found.values() for factor in factors]
    believed = _settled(every)
    told = {kind: _settled(factors, believed) for kind, factors in found.items()} if every else {}
    return told | ({StreamKind.RDMA: _settled(by_rdma)} if by_rdma else {})


def _flows(past: _Past) -> tuple[float, float, float] | None:
    """Return expected and observed seconds in which memory flowed, and how full the link was.

    The last is the expected share of its goodput; None where a limit decided.
    """
    survey, tuning = past.survey, past.record.tuning
    seen = past.record.observed.total_time
    if tuning.as_qemu_comes or tuning.bandwidth_limit is not None or seen is None:
        return None
    expected = past.course.total_time - survey.source.setup_seconds
    spent = seen - survey.source.setup_seconds
    if min(expected, spent) <= 0:
        return None
    goodput = survey.link.goodput_for(tuning.channels or 1)
    return expected, spent, past.course.wire_bytes / (goodput * expected)


def _stop(past: _Past) -> float | None:
    """Return the factor on stopping, which the source of a post-copy counts by itself."""
    record, survey, course = past.record, past.survey, past.course
    seen = record.observed.downtime_reported
    if seen is None or record.tuning.postcopy not in _SURELY:
        return None
    part = survey.source.stop_seconds + survey.source.state_bytes / survey.link.goodput_for(1)
    return 1 + (seen - course.downtime_reported) / part if part > 0 else None


def _load(past: _Past) -> float | None:
    """Return by how many seconds the guest of a pre-copy was heard later than expected.

    Counted from where the hypervisor's own account ends: what was left to send when the guest
    stopped is chance, and in both.
    """
    seen, course = past.record.observed, past.course
    if seen.downtime is None or seen.downtime_reported is None:
        return None
    if past.record.tuning.postcopy is not Postcopy.NEVER:
        return None
    expected = course.downtime - course.downtime_reported
    return seen.downtime - seen.downtime_reported - expected


def _waking(past: _Past) -> float | None:
    """Return observed over expected pages that a guest waited for first after the switch."""
    record, seen = past.record, past.record.observed
    if seen.downtime is None or seen.downtime_reported is None:
        return None
    if record.tuning.postcopy not in _SURELY:
        return None
    rest, every = (_standing(past, pages) for pages in (0.0, math.inf))
    longest = every - rest
    expected = faults(past.course.downtime - past.course.downtime_reported - rest, longest)
    if expected < TELLING:
        return None
    return faults(seen.downtime - seen.downtime_reported - rest, longest) / expected


def _standing(past: _Past, pages: float) -> float:
    """Return by how long downtime exceeds what is reported when the guest needs so many pages."""
    needing = replace(past.survey.destination, waking_pages=pages)
    survey = replace(past.survey, destination=needing)
    course = simulate(survey, past.record.tuning, past.rules, deadline=PATIENCE)
    return course.downtime - course.downtime_reported


def _start(past: _Past) -> float | None:
    """Return by how many seconds a destination listened later whose memory was not prepared."""
    seen = past.record.observed.preparation_time
    if seen is None or past.record.tuning.prepared_memory is not None:
        return None
    return seen - past.course.preparation_time


def _copied(tuning: Tuning) -> bool:
    """Tell whether a page costs its copying and nothing else."""
    plain = tuning.compression is None and tuning.xbzrle_cache is None
    plain = plain and not tuning.encrypted and not tuning.zero_copy
    return plain and tuning.transport is Transport.TCP


def _pages(past: _Past) -> float | None:
    """Return how many pages with content a move sent, by the bytes that it sent."""
    if not _copied(past.record.tuning) or not past.course.wire_bytes:
        return None
    counted, sent = past.record.observed.normal_pages, past.record.observed.wire_bytes
    if counted is not None or sent is None:
        return counted
    return past.course.normal_pages * sent / past.course.wire_bytes


def _copy(past: _Past) -> float | None:
    """Return the CPU seconds that a page with content took, zero pages taken as expected."""
    seen, pages, course = past.record.observed.source_cpu_seconds, _pages(past), past.course
    if seen is None or not pages:
        return None
    marks = course.source_cpu_seconds - course.normal_pages * past.survey.source.copy_seconds
    return (seen - marks) / pages


def _receipt(past: _Past) -> float | None:
    """Return the CPU seconds in which a page was received, where none was touched first."""
    seen, pages = past.record.observed.destination_cpu_seconds, _pages(past)
    if seen is None or not pages or past.record.tuning.prepared_memory is None:
        return None
    return seen / pages


def _told(seconds: Iterable[float | None]) -> tuple[float, ...]:
    """Return what moves tell, the least first."""
    return tuple(sorted(each for each in seconds if each is not None and each > 0))


def _corrected(past: _Past, pages: Corrections) -> _Past:
    """Return a past move with its pages' CPU as it is known today."""
    survey = replace(
        past.survey,
        source=pages.on_source(past.survey.source),
        destination=pages.on_destination(past.survey.destination),
    )
    if survey == past.survey:
        return past
    course = simulate(survey, past.record.tuning, past.rules, deadline=PATIENCE)
    return replace(past, survey=survey, course=course)


def _prepared(past: _Past) -> float | None:
    """Return observed over expected seconds to touch memory that is prepared beforehand."""
    if past.record.tuning.prepared_memory is None:
        return None
    seen, start = past.record.observed.preparation_time, past.survey.destination.start_seconds
    expected = past.course.preparation_time - start
    if seen is None or expected <= 0:
        return None
    return max(0.0, seen - start) / expected

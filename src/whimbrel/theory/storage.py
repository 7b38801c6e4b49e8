"""How long disks take to be copied, what they take from the link, and what they add to a stop.

What QEMU does (block/mirror.c of 10.0):

- A bitmap has one bit for 64 KiB (`bdrv_get_default_bitmap_granularity`); one written byte makes
  a whole block dirty. Holes and zeros are told, not sent.
- The first turn copies all data in the order of the disk. What the guest writes behind it is
  dirty again, what it writes before it is copied once. So a turn takes data / rate.
- Then it turns around in what is dirty. With `rate` copied and `dirtying` made dirty per second
  among `area` bytes, of which a share is dirty already,

      d left / dt = dirtying · (1 - left / area) - rate

  which reaches nothing only where dirtying < rate. Else it levels off at
  area · (1 - rate / dirtying), and the guest's writes have to wait for their copies
  (write-blocking): each goes to both sides at once, nothing is dirty anew.
- In step, it looks every 100 ms (`BLOCK_JOB_SLICE_TIME`); what was written since waits.

Memory and disks share the link: memory begins when the disks are in step, and has what the
writes leave of it, yet at least half, since both are TCP flows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from whimbrel.model.prediction import Interval, Prediction, verdict_for
from whimbrel.model.storage import CopyMode, DiskLoad, StoragePrediction

BLOCK = 64 * 1024
"""Bytes of one bit of QEMU's bitmap."""

SLICE = 0.1
"""Seconds between two looks of a copy in step (BLOCK_JOB_SLICE_TIME, blockjob_int.h)."""

LETTING_GO = 0.02
"""Seconds of commands to end the copies of a stopped guest; 12 ms were measured for one disk."""

BEGINNING = (0.1, 0.2, 0.4)
"""Seconds until a copy that has nothing to do is found in step: it is looked for 5 times a second
(practice/copying.py), and commands take their time; 0.24 s were measured for 16 MiB."""

TABLES = 0.01
"""Share by which what arrives may differ from what was there: an image's own tables, and blocks
that were written and hold zeros; an assumption."""

RATE_SPREAD = 1.15
"""Factor on the rate, up and down, that 8 of 10 copies keep to; an assumption, not measured."""


@dataclass(frozen=True)
class StorageCourse:
    """How copying all disks goes.

    Attributes:
        ready: Whether the copies get in step while writes need not wait.
        time: Seconds until they are in step, by write-blocking where they else were not.
        wire_bytes: Bytes sent until then.
        steady_rate: Bytes per second that go on being sent.
        left: Bytes left when the guest stands still.
        handover: Seconds that the stop is longer for it.
    """

    ready: bool
    time: float
    wire_bytes: float
    steady_rate: float
    left: float
    handover: float


def dirtying(load: DiskLoad) -> tuple[float, float]:
    """Return the least and the most bytes per second that writes make dirty.

    The least where they follow one another, the most where each falls on another block.
    """
    count = load.write_rate / max(1.0, load.write_size)
    return load.write_rate, count * max(float(BLOCK), load.write_size)


def course(data: float, area: float, written: float, dirty: float, rate: float) -> StorageCourse:
    """Return how copying goes for one set of figures.

    Args:
        data: Bytes to copy.
        area: Bytes among which writes fall.
        written: Bytes per second that the guest writes.
        dirty: Bytes per second that this makes dirty; at least `written`.
        rate: Bytes per second that link and disks carry; above 0.
    """
    first = data / rate
    hot = max(min(area, data) or area, float(BLOCK))
    left = _left_after(first, hot, dirty)
    settled = hot * (1.0 - rate / dirty) if dirty > 0 else -math.inf
    if settled >= 0:
        return _blocking(data, written, rate)
    turns = hot / dirty * math.log1p(left / -settled) if left > 0 and dirty > 0 else 0.0
    waiting = min(hot, dirty * SLICE)
    return StorageCourse(
        ready=True,
        time=first + turns,
        wire_bytes=rate * (first + turns),
        steady_rate=dirty,
        left=waiting,
        handover=LETTING_GO + waiting / rate,
    )


def _left_after(time: float, hot: float, dirty: float) -> float:
    """Return what a turn of so many seconds finds dirty behind it, spread evenly in its order."""
    if dirty <= 0 or time <= 0 or hot <= 0:
        return 0.0
    turned = dirty * time / hot
    return hot * (1.0 + math.expm1(-turned) / turned)


def _blocking(data: float, written: float, rate: float) -> StorageCourse:
    # Writes and the background share the connection; the background keeps half of it.
    background = max(rate / 2, rate - written)
    time = data / background
    steady = min(written, rate / 2)
    return StorageCourse(
        ready=False,
        time=time,
        wire_bytes=data + steady * time,
        steady_rate=steady,
        left=0.0,
        handover=LETTING_GO,
    )


def predict_storage(loads: Sequence[DiskLoad], rate: float) -> StoragePrediction:
    """Return what copying these disks over one link will do.

    Args:
        loads: Every disk that is copied.
        rate: Bytes per second that link and disks carry; above 0.
    """
    data = float(sum(load.data for load in loads))
    area = float(sum(load.area for load in loads if load.write_rate > 0)) or data
    bounds = [dirtying(load) for load in loads]
    least, most = (sum(bound[side] for bound in bounds) for side in (0, 1))
    middle = math.sqrt(least * most)
    found = [
        course(data, area, least, dirty, rate * factor)
        for dirty, factor in ((least, RATE_SPREAD), (middle, 1.0), (most, 1 / RATE_SPREAD))
    ]
    blocks = not found[1].ready
    times = sorted(each.time for each in found)
    sent = sorted(each.wire_bytes for each in found)
    return StoragePrediction(
        mode=CopyMode.WRITE_BLOCKING if blocks else CopyMode.BACKGROUND,
        reason="the guest writes more than is copied meanwhile" if blocks else "",
        probability=sum(each.ready for each in found) / len(found),
        time=_interval([each + begun for each, begun in zip(times, BEGINNING, strict=True)]),
        wire_bytes=Interval(sent[0] * (1 - TABLES), sent[1], sent[2] * (1 + TABLES)),
        steady_rate=_interval([each.steady_rate for each in found]),
        handover=_interval([each.handover for each in found]),
    )


def rate_for_memory(rate: float, storage: StoragePrediction) -> float:
    """Return the bytes per second that memory finds on a link beside copies in step."""
    return max(rate / 2, rate - storage.steady_rate.p50)


def beside(memory: Prediction, storage: StoragePrediction) -> Prediction:
    """Return a memory's prediction with what the disks add to it.

    The memory should have been predicted with `rate_for_memory`.
    """
    going_on = _product(storage.steady_rate, memory.total_time)
    chance = memory.completion_probability
    if memory.total_time.p50 + storage.time.p50 > memory.deadline:
        chance = min(
            chance, 0.5 if memory.total_time.p10 + storage.time.p10 < memory.deadline else 0
        )
    return replace(
        memory,
        completion_probability=chance,
        verdict=verdict_for(chance),
        total_time=_sum(memory.total_time, storage.time),
        downtime=_sum(memory.downtime, storage.handover),
        wire_bytes=_sum(_sum(memory.wire_bytes, storage.wire_bytes), going_on),
    )


def _interval(values: Sequence[float]) -> Interval:
    # Sorted, since write-blocking may end sooner than a copy that hardly converges.
    low, middle, high = sorted(values)
    return Interval(low, middle, high)


def _sum(one: Interval, other: Interval) -> Interval:
    return Interval(one.p10 + other.p10, one.p50 + other.p50, one.p90 + other.p90)


def _product(one: Interval, other: Interval) -> Interval:
    return Interval(one.p10 * other.p10, one.p50 * other.p50, one.p90 * other.p90)

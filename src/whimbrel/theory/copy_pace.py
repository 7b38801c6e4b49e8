"""What past copies of disks teach of the next one's: which share of the link's goodput they get.

    moves between these hosts, over such a link, with disks, that ended before
      ──► each: the pace it was said with · predicted time / observed time, both without a copy's
          beginning ──► median ──► pace

The pace is a factor on the *surveyed* goodput, so no correction builds on another. Besides the
link, it holds what the survey cannot see of a copy: the disks at both ends, NBD, and one
connection for each disk.
"""

import math
from collections.abc import Iterable

import numpy as np

from whimbrel.model.memory import LinkProfile
from whimbrel.model.record import MoveRecord
from whimbrel.theory.calibrate import LAST, alike
from whimbrel.theory.corrections import DOUBT, WIDEST
from whimbrel.theory.storage import BEGINNING

TELLING = 2.0
"""Seconds that a copy must have taken to teach: a shorter one is mostly its beginning, and the
look at which it is found in step (practice/copying.py looks 5 times a second)."""


def copy_pace(
    records: Iterable[MoveRecord],
    source: str,
    destination: str,
    link: LinkProfile,
    *,
    before: float = math.inf,
    believed: float = 1.0,
) -> float:
    """Return the share of a link's goodput that copies of disks get.

    The median over the last past copies, in the company of `DOUBT` that got what is believed:
    few correct little, one outlier nothing.

    Args:
        records: Moves, in any order.
        source: Name of the host that the disks leave.
        destination: Name of the host that they go to.
        link: As it was surveyed for the next move.
        before: Seconds since 1970-01-01 UTC; moves that ended later teach nothing.
        believed: The share where no copy teaches another one: what memory gets.
    """
    past = [
        each
        for each in records
        if (each.source, each.destination) == (source, destination)
        and each.ended < before
        and each.completed
        and each.survey is not None
        and alike(each.survey.link, link)
    ]
    past.sort(key=lambda each: each.ended)
    told = [factor for each in past if (factor := pace_of(each)) is not None]
    factors = told[-LAST:] + [believed] * DOUBT
    return float(math.exp(np.median([math.log(each) for each in factors])))


def pace_of(record: MoveRecord) -> float | None:
    """Return the share of the goodput that one move's copies got; None where it does not tell."""
    copied = record.copied
    if copied is None or copied.predicted is None or copied.time is None:
        return None
    said, took = copied.predicted, copied.time
    if said.limited or took < TELLING or said.time.p50 <= BEGINNING[1]:
        return None  # it went as fast as it was let, or tells of its beginning only
    ratio = (said.time.p50 - BEGINNING[1]) / (took - BEGINNING[1])
    return min(max(said.pace * ratio, 1 / WIDEST), WIDEST)

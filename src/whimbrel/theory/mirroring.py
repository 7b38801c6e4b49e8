"""Decisions about the copy of a disk on its way: when the guest's writes must wait for it.

    what was copied and what is left, over the last seconds ──► go on, or block writes, and why

`done` and `left` together grow by what the guest writes anew (QEMU: `len` of the job), `done`
by what is copied. So the two rates are known without measuring anything else, once the first
bytes are copied; before, `left` grows while QEMU looks through the disk (mirror_dirty_init).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel.model.storage import Copying, CopyMode
from whimbrel.model.units import MIB, format_rate, format_size

WINDOW = 3.0
"""Seconds that are looked back upon; shorter ones see single writes."""

KEEPS_UP = 0.8
"""Share of the copied bytes that may be written anew: beyond, a copy takes five times as long."""

LEAST = 4 * MIB
"""Bytes left that never matter: a link of 1 Gbit/s sends them in 35 ms."""


@dataclass(frozen=True)
class Seen:
    """One look at a copy.

    Attributes:
        at: Seconds.
        copying: What was seen.
    """

    at: float
    copying: Copying


def must_block_writes(seen: Sequence[Seen], allowed: int = LEAST) -> str:
    """Return why the guest's writes must wait for their copies; empty where they need not.

    Args:
        seen: Looks at one copy, oldest first.
        allowed: Bytes that may be left when the guest stands still.
    """
    # Before the first byte it is still being found out what there is to copy.
    begun = [each for each in seen if each.copying.done > 0]
    if not begun or begun[-1].copying.mode is CopyMode.WRITE_BLOCKING:
        return ""
    window = _window(begun)
    if window is None:
        return ""
    first, last = window[0], window[-1]
    if all(each.copying.ready for each in window):
        return _never_small(window, max(allowed, LEAST))
    span = last.at - first.at
    copied = last.copying.done - first.copying.done
    # What is little is soon copied; where more than that was, and it is not in step, it never is.
    soon = last.copying.left <= LEAST and copied <= first.copying.left
    if last.copying.ready or soon:
        return ""
    written = copied + last.copying.left - first.copying.left
    if written <= KEEPS_UP * copied:
        return ""
    return (
        f"the guest writes {format_rate(written / span)} and {format_rate(copied / span)} is "
        f"copied, so {format_size(last.copying.left)} would never be in step"
    )


def _window(seen: Sequence[Seen]) -> list[Seen] | None:
    """Return the looks of the last seconds; None where they do not reach back far enough."""
    last = seen[-1].at
    if last - seen[0].at < WINDOW:
        return None
    begin = max(index for index, each in enumerate(seen) if last - each.at >= WINDOW)
    return list(seen[begin:])


def _never_small(window: Sequence[Seen], allowed: int) -> str:
    least = min(each.copying.left for each in window)
    if least <= allowed:
        return ""
    return (
        f"at least {format_size(least)} was always left to copy lately, and the guest would have "
        "to stand still for that"
    )


def shares(rate: float | None, ready: Sequence[bool]) -> list[float | None]:
    """Return each copy's share of a bandwidth limit; together they never exceed it.

    Copies in step get an eighth of an equal share, as long as others are not.
    """
    if rate is None:
        return [None] * len(ready)
    weights = [0.125 if is_ready else 1.0 for is_ready in ready]
    return [rate * weight / sum(weights) for weight in weights]

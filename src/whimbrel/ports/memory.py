"""What is asked about a guest's memory while the guest runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Look:
    """What some pages held at one moment.

    Attributes:
        began: When the first page was read, seconds of a clock that all looks share.
        ended: When the last one was; those between were read evenly in between.
        marks: 8 bytes per page in the order they were asked for. Equal marks mean equal
            content, but for one chance in 2^32; all zeros mean a zero page.
    """

    began: float
    ended: float
    marks: bytes


@dataclass(frozen=True)
class Written:
    """Distinct pages written within one window, as the hypervisor counted them.

    Attributes:
        window: Seconds.
        pages: How many.
        error: Standard error of `pages`.
    """

    window: float
    pages: float
    error: float


NEVER_PROVIDED, IN_MEMORY, SWAPPED_OUT = 0, 1, 2
"""What `Inspection.provided` says of a page."""


class Inspection(Protocol):
    """Looks into a guest's memory from outside.

    Nothing here stops or slows the guest, provides it with a page it had not touched, or
    brings back one that was swapped out. Where memory cannot be read (it belongs to another
    user, or another host) `provided`, `look` and `read` raise `Unsupported`; the others work.
    """

    @property
    def pages(self) -> int:
        """Number of pages of guest memory, 4096 bytes each, counted from 0."""

    async def provided(self) -> bytes:
        """Return one byte per page: never provided, in memory, or swapped out."""

    async def look(self, pages: Sequence[int]) -> Look:
        """Mark the content of pages, each of which `provided` called in memory."""

    async def read(self, pages: Sequence[int]) -> bytes:
        """Return the content of such pages, one after the other; meant for a few thousand."""

    async def written(self, window: float) -> Written:
        """Let the hypervisor count for so many seconds (0.05 to 60); coarse.

        A page rewritten with what it held may not count. Raises `Unsupported` where it
        cannot count.
        """

    async def free_bytes(self) -> int | None:
        """Return the bytes that the guest's kernel calls free; None when nobody tells.

        May take two seconds, and leaves the balloon's settings as they were.
        """

    async def vcpu_seconds(self) -> tuple[float, ...]:
        """Return the CPU seconds each vCPU has used; empty where that is not known."""

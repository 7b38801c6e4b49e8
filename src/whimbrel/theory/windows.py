"""What QEMU sends when it is told a bandwidth limit, and what to tell it so that it keeps one.

    limit ─► told first: what it sends at most is within the limit
    what it has sent ─► behind the limit: told more, step by step
                     └► ahead of it:      told less, by what it is ahead

QEMU counts in windows (`WINDOW`, BUFFER_DELAY in migration-stats.h) and looks only between pieces;
what it sent too much is forgotten when the next window begins (migration_rate_reset). So it sends
whole pieces, one more than fit the window, and with channels a packet for each of them besides:
they count a packet when it is written (multifd_send_thread), and by then all have the next one.
"""

from whimbrel.model.units import PAGE
from whimbrel.theory.rates import PACKET, PACKET_PAGES, PAGE_HEADER, WINDOW

BUFFERED_PAGES = 32
"""Pages that a plain stream gathers before it counts them: 64 pieces, of which each page takes two
(MAX_IOV_SIZE in qemu-file.c; QEMU 10.0 was seen to send multiples of 131 kB in each window)."""

AIM = 0.97
"""Share of the limit that is aimed at: a second may begin so that eleven windows are sent in it."""

AIM_OF_CHANNELS = 0.88
"""Likewise with channels, whose packets are larger than what a plain stream sends at once."""

STEP = 0.2
"""Seconds from one look at what was sent to the next."""

HORIZON = 1.0
"""Seconds within which what was sent too much is to be made up for."""

CREDIT = 0.05
"""Seconds of the limit that may be made up for when less was sent."""

LEAST_TOLD = 0.5
"""Share of the limit that a hypervisor is told at least, unless it begins with less."""

BAND = 0.01
"""Share of what it was told below which a change is not worth telling."""

EXACT = 0.9, 1.1
"""What a hypervisor that keeps to what it is told sends of it."""


def piece(channels: int | None) -> float:
    """Return the bytes that QEMU sends at once: a packet, or the buffer of a plain stream."""
    if channels is None:
        return float(BUFFERED_PAGES * (PAGE_HEADER + PAGE))
    return float(PACKET_PAGES * PAGE + PACKET)


def most_sent(told: float, channels: int | None = None) -> float:
    """Return what QEMU sends at most under a limit that it is told, bytes per second.

    Args:
        told: Bytes per second, above 0.
        channels: Number of multifd channels; None for a plain stream.
    """
    each = piece(channels)
    return (told * WINDOW // each + 1 + (channels or 0)) * each / WINDOW


def least_sent(channels: int | None = None) -> float:
    """Return what QEMU sends, bytes per second, however little it is told."""
    return most_sent(1.0, channels)


def too_low(limit: float, channels: int | None) -> bool:
    """Tell whether channels cannot hold a limit; a plain stream, of 10.5 Mbit/s, is taken anyway.

    Two channels that were told 2 MB/s were seen to send 11.8 MB/s.
    """
    return channels is not None and limit < least_sent(channels)


def to_tell(limit: float, channels: int | None = None) -> float:
    """Return what QEMU is told so that it sends no more than a limit, bytes per second.

    Where it sends more than that whatever it is told, this is what it sends least under.
    """
    each = piece(channels)
    pieces = limit * WINDOW // each - 1 - (channels or 0)
    return min(limit, (max(0.0, pieces) + 0.5) * each / WINDOW)  # halfway: headers vary


class Exact:
    """What a hypervisor is told so that it sends what it may.

    What it is ahead of its limit, or behind, decides: the sum of what was sent, not its rate,
    which the windows make jump. So a hypervisor that sends too much by whatever factor comes to
    send its limit, without swinging, as long as the factor is below `HORIZON` / `STEP`.

    Args:
        limit: Bytes per second that it may send.
        channels: Number of multifd channels; None for a plain stream.

    Attributes:
        told: Bytes per second.
    """

    def __init__(self, limit: float, channels: int | None = None) -> None:
        self._limit, self._channels = limit, channels
        self._first = self._base = self.told = to_tell(limit, channels)
        self._floor = min(self.told, LEAST_TOLD * limit)
        each = piece(channels) / WINDOW
        self._aim = (AIM if channels is None else AIM_OF_CHANNELS) * limit
        self._credit = max(CREDIT * limit, STEP * each * (2 if channels is None else 1))
        self._ahead = 0.0
        self._seen: tuple[float, int] | None = None

    def hear(self, at: float, sent: int) -> float | None:
        """Take what was sent until now, and return what is to be told from now on; None: the same.

        Args:
            at: Seconds of one clock.
            sent: Bytes in all.
        """
        if self._seen is None:
            self._seen = at, sent
            return None
        began, before = self._seen
        if at - began < STEP:
            return None
        self._seen = at, sent
        rate = (sent - before) / (at - began)
        ahead = self._ahead + (rate - self._aim) * (at - began)
        self._ahead = max(-self._credit, ahead)
        low, high = EXACT
        if ahead <= -self._credit and low <= rate / self.told <= high:
            # It keeps to what it is told: nothing was to be taken off.
            more = piece(self._channels) / WINDOW / 2
            self._base = max(self._base, min(self._aim, self._base + more))
        elif ahead > self._credit:
            self._base = self._first
        wanted = self._wanted()
        if abs(wanted - self.told) <= BAND * self.told:
            return None
        self.told = wanted
        return wanted

    def _wanted(self) -> float:
        if self._ahead <= 0:
            more = min(self._limit - self._base, piece(self._channels) / WINDOW)
            return self._base - more * self._ahead / self._credit
        return max(self._floor, self._base - self._ahead / HORIZON)

"""The nouns of storage on the move: images, copies on their way, and where a copy goes."""

from dataclasses import dataclass
from enum import StrEnum

from whimbrel.model.prediction import Interval

EXPORT_PORTS = range(49152, 49216)
"""Where disks are exported unless ports are named; the range that libvirt's migrations use."""


@dataclass(frozen=True)
class Image:
    """One image of a disk's chain.

    Attributes:
        path: Where it lies, as its hypervisor names it.
        format: "raw" or "qcow2".
        allocated: Bytes that it takes; its virtual size where that is not told.
    """

    path: str
    format: str
    allocated: int


@dataclass(frozen=True)
class DiskFacts:
    """One disk of a running VM, as its hypervisor sees it.

    Attributes:
        name: The disk's name in the VM.
        size: Virtual bytes.
        chain: Its images, the one that is written to first, then what it rests on.
        read_only: Whether the guest may not write to it.
        busy: What works on it already (a mirror, a backup), in words; empty: nothing.
    """

    name: str
    size: int
    chain: tuple[Image, ...]
    read_only: bool = False
    busy: str = ""

    @property
    def top(self) -> Image:
        """The image that is written to."""
        return self.chain[0]

    @property
    def allocated(self) -> int:
        """Bytes that all its images take together, at most its size."""
        return min(self.size, sum(image.allocated for image in self.chain))


class Extent(StrEnum):
    """How much of a chain is copied."""

    WHOLE = "whole"  # everything, into one image
    TOP = "top"  # the image that is written to; what it rests on is there already


class CopyMode(StrEnum):
    """What happens to a block that the guest writes while a copy is made.

    QEMU's MirrorCopyMode: `background` sends it again later; `write-blocking` sends it at once
    and lets the guest wait, so that what is left can only shrink.
    """

    BACKGROUND = "background"
    WRITE_BLOCKING = "write-blocking"


@dataclass(frozen=True)
class Copying:
    """How far the copy of one disk is.

    Attributes:
        done: Bytes copied so far, those again and again included.
        left: Bytes that still differ.
        ready: Whether it was once the same, and follows every write since.
        mode: What happens to blocks that are written now.
        failure: Why it ended; empty while it goes on, and when it was let go.
    """

    done: int
    left: int
    ready: bool = False
    mode: CopyMode = CopyMode.BACKGROUND
    failure: str = ""


@dataclass(frozen=True)
class DiskWrites:
    """What a guest wrote to one disk since its machine began.

    Attributes:
        size: Bytes.
        count: Writes.
    """

    size: int
    count: int


@dataclass(frozen=True)
class DiskLoad:
    """What theory must know of one disk.

    Attributes:
        data: Bytes to be copied, holes left out.
        area: Bytes among which the guest's writes fall; at most the disk's size.
        write_rate: Bytes per second that the guest writes.
        write_size: Bytes of one write, on average.
    """

    data: int
    area: int
    write_rate: float = 0.0
    write_size: float = 64 * 1024.0


@dataclass(frozen=True)
class StoragePrediction:
    """What the disks of a move will do, with intervals.

    Attributes:
        mode: Whether the guest's writes will have to wait.
        reason: Why; empty for background copies.
        probability: The chance that they are in step at all without it, 0 to 1.
        time: Seconds until the copies are in step.
        wire_bytes: Bytes sent until then.
        steady_rate: Bytes per second afterwards, taken from the memory's link.
        handover: Seconds by which the guest stands still longer.
        pace: Which share of the link's surveyed goodput it was reckoned with, as past copies
            between these hosts taught (theory/copy_pace.py).
        limited: Whether a bandwidth limit below that decided the rate.
    """

    mode: CopyMode
    reason: str
    probability: float
    time: Interval
    wire_bytes: Interval
    steady_rate: Interval
    handover: Interval
    pace: float = 1.0
    limited: bool = False


@dataclass(frozen=True)
class DiskCopied:
    """One disk that was copied along with its VM.

    Attributes:
        name: The disk's name.
        old: Where it was.
        new: Where it is.
        data: Bytes that its image took when it was in step; None: not told.
        time: Seconds from the first copy's beginning until it was in step; None: not told.
        writes_waited: Whether the guest's writes had to wait for their copies.
        note: What became of the old image, a sentence.
    """

    name: str
    old: str
    new: str
    data: int | None = None
    time: float | None = None
    writes_waited: bool = False
    note: str = ""


@dataclass(frozen=True)
class StorageCopied:
    """All disks of a move that have arrived, and what was said of them beforehand.

    Attributes:
        disks: Each disk.
        predicted: What was said; None where nothing was.
    """

    disks: tuple[DiskCopied, ...] = ()
    predicted: StoragePrediction | None = None

    @property
    def time(self) -> float | None:
        """Seconds until all were in step; None where that is not told of all."""
        times = [each.time for each in self.disks]
        return None if not times or None in times else max(each or 0.0 for each in times)

    @property
    def data(self) -> int | None:
        """Bytes of all of them; None where that is not told of all."""
        sizes = [each.data for each in self.disks]
        return None if not sizes or None in sizes else sum(each or 0 for each in sizes)


@dataclass(frozen=True)
class StorageProgress:
    """How far the disks of one move are, all together.

    Attributes:
        at: Seconds since the first copy began.
        copied: Bytes that have arrived.
        total: Bytes that are to arrive.
        rate: Bytes per second, lately.
        eta: Seconds until all copies are in step; None where nobody can tell.
        disks: Each disk's copy, by name.
    """

    at: float
    copied: int
    total: int
    rate: float
    eta: float | None
    disks: tuple[tuple[str, Copying], ...] = ()

    @property
    def ready(self) -> bool:
        """Whether every copy is in step."""
        return all(copying.ready for _, copying in self.disks)

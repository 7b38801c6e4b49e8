"""A guest without an operating system that writes pages at a known rate.

It is firmware of our own (guest/paced.S), so it runs even where KVM opens but boots no Linux.
What it writes is exactly known, hence rules of QEMU and KVM can be checked with it.
"""

import hashlib
import struct
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from whimbrel.errors import ConfigError, LabError
from whimbrel.lab.kernel import cache_folder, published
from whimbrel.model.units import GIB, MIB, PAGE

ASSEMBLE = (
    *("gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"),
    *("-Wl,-Ttext=0xFFFF0000", "-Wl,--oformat=binary"),
)
"""Firmware lies where it runs: in the last 64 KiB below 4 GiB."""

COUNTED_IN = 0x7000 // PAGE
"""The page that begins with the number of writes, see `writes`."""

SIZE = 64 * 1024
_LOWEST, _HIGHEST = MIB, 2 * GIB
_SOURCE = resources.files("whimbrel.lab") / "guest" / "paced.S"
_BUILD_SECONDS = 60.0


@dataclass(frozen=True)
class Pacing:
    """What the guest writes: one word of each page in turn, in a scattered order.

    Attributes:
        first: Address of the first page; a multiple of 4096, from 1 MiB on.
        pages: How many pages, a power of two; the last must end within 2 GiB.
        rate: Writes per second, at least 1.
    """

    first: int
    pages: int
    rate: int

    def __post_init__(self) -> None:
        """Refuse what the guest cannot do."""
        end = self.first + self.pages * PAGE
        if self.first % PAGE or self.first < _LOWEST or end > _HIGHEST:
            raise ConfigError("The paced guest writes whole pages from 1 MiB to 2 GiB.")
        if self.pages < 1 or self.pages & (self.pages - 1) or self.rate < 1:
            raise ConfigError("The paced guest needs a power of two of pages and a rate above 0.")


def firmware(pacing: Pacing, folder: Path) -> Path:
    """Write the guest's firmware, for QEMU's `-bios`, into a folder and return its path.

    The guest first fills its pages, then measures its clock for 50 ms, then writes for ever.

    Raises:
        LabError: There is no compiler, or it refused the source.
    """
    code = bytearray(_assembled().read_bytes())
    struct.pack_into("<3I", code, 0, pacing.first, pacing.pages - 1, pacing.rate)
    place = folder / "paced.bin"
    place.write_bytes(code)
    return place


def writes(page: bytes) -> int:
    """Return the writes so far from what page `COUNTED_IN` holds; 0: the guest still fills."""
    return int.from_bytes(page[:4], "little")


def _assembled() -> Path:
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(repr((source, ASSEMBLE)).encode()).hexdigest()[:16]
    code = cache_folder() / "paced" / f"paced-{key}.bin"
    if not code.exists():
        with published(code) as place:
            _assemble(source, place)
    return code


def _assemble(source: bytes, code: Path) -> None:
    text = code.with_suffix(".S")
    text.write_bytes(source)
    try:
        subprocess.run(
            [*ASSEMBLE, "-o", str(code), str(text)],
            capture_output=True,
            timeout=_BUILD_SECONDS,
            check=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise LabError(f"gcc failed: {error.stderr.strip()[:500]}", "Install binutils.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"gcc could not be run: {error}.", "Install gcc.") from error

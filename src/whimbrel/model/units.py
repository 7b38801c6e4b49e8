"""One unit system inside: bytes, seconds, bytes per second; people read and write the rest.

Sizes and rates of memory are binary ("4 GiB", "50 MiB/s"); rates of links are decimal
bits ("1 Gbit/s", IEEE 802.3). A decimal byte unit ("5 GB") is read as written.
"""

import math
import re

from whimbrel.errors import ConfigError

Bytes = int
Seconds = float
BytesPerSecond = float

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096
"""Bytes in one page of guest memory as QEMU tracks it on x86 (TARGET_PAGE_SIZE)."""

_SIZES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": 1 << 40,
}
_BITS = {"bit": 1, "kbit": 1000, "Kbit": 1000, "Mbit": 1000**2, "Gbit": 1000**3, "Tbit": 1000**4}
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-zµ/]*)\s*")


def parse_size(text: str) -> int:
    """Read a size such as "4 GiB" as bytes; raise `ConfigError` without a known unit."""
    number, unit = _split(text, "a size", _SIZES, 'such as "512 MiB" or "4 GiB"')
    return round(number * _SIZES[unit])


def parse_rate(text: str) -> float:
    """Read a rate such as "1 Gbit/s" or "50 MiB/s" as bytes per second."""
    per_second = {f"{unit}/s": float(size) for unit, size in _SIZES.items()}
    per_second |= {f"{unit}/s": bits / 8 for unit, bits in _BITS.items()}
    number, unit = _split(text, "a rate", per_second, 'such as "1 Gbit/s" or "50 MiB/s"')
    return number * per_second[unit]


def parse_time(text: str) -> float:
    """Read a time such as "300 ms" or "2 min" as seconds."""
    number, unit = _split(text, "a time", _TIMES, 'such as "300 ms" or "120 s"')
    return number * _TIMES[unit]


def _split(
    text: str, kind: str, units: dict[str, float] | dict[str, int], example: str
) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        missing = match is not None and not match[2]
        problem = "has no unit" if missing else f"is not {kind}"
        raise ConfigError(
            f'"{text}" {problem}.', f"Write {kind} {example}; units: {', '.join(units)}."
        )
    number = float(match[1])
    if not math.isfinite(number * units[match[2]]):
        raise ConfigError(f'"{text[:20]}..." is too large.', f"Write {kind} {example}.")
    return number, match[2]


def format_size(size: float) -> str:
    """Print bytes for people: "3.5 GiB"."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(size) >= factor:
            return f"{_short(size / factor)} {unit}"
    return f"{_short(size)} B"


def format_link(rate: float) -> str:
    """Print a link's rate in bits: "1 Gbit/s"."""
    bits = rate * 8
    for unit, factor in (("Tbit", 1e12), ("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)):
        if abs(bits) >= factor:
            return f"{_short(bits / factor)} {unit}/s"
    return f"{_short(bits)} bit/s"


def format_rate(rate: float) -> str:
    """Print a rate of memory: "50 MiB/s"."""
    return f"{format_size(rate)}/s"


def format_time(seconds: float) -> str:
    """Print a time: "17 ms", "2.31 s", "3 min 5 s"."""
    if abs(seconds) < 1:
        return f"{_short(seconds * 1000)} ms"
    if abs(seconds) < 120:  # noqa: PLR2004 - up to two minutes seconds read better
        return f"{_short(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _short(number: float) -> str:
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2  # noqa: PLR2004
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

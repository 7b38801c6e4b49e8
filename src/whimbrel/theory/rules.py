"""QEMU's rules by version and accelerator, as data (docs/theory.md, "Versions")."""

import re
from dataclasses import dataclass

from whimbrel.model.units import GIB, PAGE

CHUNK_PAGES = GIB // PAGE
"""Pages per dirty-log clear: 2^18 by default (migration.h 55-65, x-clear-bitmap-shift)."""

DEFAULT_BANDWIDTH_LIMIT = 128 * 1024 * 1024.0
"""Bytes per second that QEMU sends at most unless told otherwise (options.c 38)."""

WINDOW = 0.1
"""Seconds of QEMU's bandwidth window (BUFFER_DELAY, migration.c 3387-3446)."""

ITERATION = 0.05
"""Seconds one call of ram_save_iterate lasts at most (MAX_WAIT, ram.c 2521)."""

THROTTLE_SYNC = 5.0
"""Seconds between forced synchronisations under throttling (cpu-throttle.c 46)."""


@dataclass(frozen=True)
class QemuRules:
    """What one QEMU build does.

    Attributes:
        chunk_pages: Pages whose dirty log is cleared together just before the first of them
            is sent; None: every write since the synchronisation counts (TCG).
        completes_at_threshold: Compare pending with the threshold by <= rather than <.
        raw_accounting: multifd counts raw instead of wire bytes (up to 8.0).
        zero_pages_in_channels: multifd's threads find zero pages (from 9.0).
        flush_per_pass: multifd synchronises its channels once per pass (from 8.1) and not
            after every iteration.
        forced_throttle_sync: A synchronisation at least every 5 s under throttling (from 9.2).
        clears_log_when_stopped: The stopped phase still clears the dirty log (before 10.1).
        postcopy_with_channels: Post-copy is allowed beside multifd (from 10.1, e274188612;
            refused before, b405dfff1e).
    """

    chunk_pages: int | None = CHUNK_PAGES
    completes_at_threshold: bool = False
    raw_accounting: bool = False
    zero_pages_in_channels: bool = True
    flush_per_pass: bool = True
    forced_throttle_sync: bool = True
    clears_log_when_stopped: bool = True
    postcopy_with_channels: bool = False

    @classmethod
    def of(
        cls, version: tuple[int, int], accelerator: str, chunk_pages: int = CHUNK_PAGES
    ) -> "QemuRules":
        """Return the rules of a QEMU version such as (10, 0) with "kvm" or "tcg"."""
        return cls(
            chunk_pages=None if accelerator == "tcg" else chunk_pages,
            completes_at_threshold=version >= (10, 2),
            raw_accounting=version <= (8, 0),
            zero_pages_in_channels=version >= (9, 0),
            flush_per_pass=version >= (8, 1),
            forced_throttle_sync=version >= (9, 2),
            clears_log_when_stopped=version < (10, 1),
            postcopy_with_channels=version >= (10, 1),
        )

    @classmethod
    def named(cls, version: str, accelerator: str) -> "QemuRules":
        """Return the rules of a QEMU that prints its version as "10.0.2 (Debian …)".

        Those of 10.0 where nothing can be read from it.
        """
        match = re.match(r"(\d+)\.(\d+)", version)
        return cls.of((int(match[1]), int(match[2])) if match else (10, 0), accelerator)

"""Charts as bytes: what drawing hands to whoever writes files or pages.

Apart from the drawing itself, so that a page can be made, and commands can run, without
matplotlib in memory.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from whimbrel.model.scenario import LabResult


class Chart(StrEnum):
    """The kinds of charts."""

    TIMES = "times"
    DOWNTIME = "downtime"
    BYTES = "bytes"
    TIMELINE = "timeline"


@dataclass(frozen=True)
class Image:
    """One chart, in both themes.

    Attributes:
        chart: Its kind.
        scenario: Index of its scenario in the `LabResult`.
        run: Index of its run in the scenario, for time lines; else None.
        name: A file name without its end, unique in one result.
        alt: What it shows, in words.
        light: PNG for a light page.
        dark: PNG for a dark page.
    """

    chart: Chart
    scenario: int
    run: int | None
    name: str
    alt: str
    light: bytes
    dark: bytes


def image_names(result: LabResult) -> list[str]:
    """Return a file name for each scenario: lower case, digits, hyphens; no two alike."""
    names: list[str] = []
    for part in result.scenarios:
        plain = re.sub(r"[^a-z0-9]+", "-", part.scenario.name.lower()).strip("-") or "scenario"
        taken = {plain, *(f"{plain}-{number}" for number in range(2, len(result.scenarios) + 2))}
        free = sorted(taken - set(names), key=lambda name: (len(name), name))
        names.append(free[0])
    return names

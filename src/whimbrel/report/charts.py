"""Every chart of a result, drawn one at a time so that memory stays small.

Importing this module imports matplotlib: commands do so only when charts are wanted.
"""

import gc
from collections.abc import Callable, Iterator

from whimbrel.model.scenario import LabResult, Run, ScenarioResult
from whimbrel.report.bars import downtime, times, wire_bytes
from whimbrel.report.canvas import DARK, LIGHT, Theme
from whimbrel.report.images import Chart, Image, image_names
from whimbrel.report.timeline import timeline
from whimbrel.report.words import headline

__all__ = ["DARK", "LIGHT", "Theme", "downtime", "draw_all", "timeline", "times", "wire_bytes"]


def draw_all(result: LabResult) -> Iterator[Image]:
    """Yield each scenario's comparisons, then the time line of every run with tracks.

    Nothing is kept between two images: at any moment one figure is in memory.
    """
    for index, (part, name) in enumerate(zip(result.scenarios, image_names(result), strict=True)):
        yield from _comparisons(part, index, name)
        for number, run in enumerate(part.runs):
            if run.tracks:
                yield _timeline(part, run, index, number, name)
                # matplotlib's figures are cycles: left to themselves, dozens would pile up.
                gc.collect()


def _comparisons(part: ScenarioResult, index: int, name: str) -> Iterator[Image]:
    kinds: tuple[tuple[Chart, Callable[[ScenarioResult, Theme], bytes], str], ...] = (
        (Chart.TIMES, times, f"Times from start to finish by method. {headline(part)}"),
        (Chart.DOWNTIME, downtime, "Downtime by method, observed and reported"),
        (Chart.BYTES, wire_bytes, "Bytes on the wire by method"),
    )
    for chart, paint, alt in kinds:
        light, dark = paint(part, LIGHT), paint(part, DARK)
        yield Image(chart, index, None, f"{name}-{chart}", alt, light, dark)


def _timeline(part: ScenarioResult, run: Run, index: int, number: int, name: str) -> Image:
    shown = run.preset or run.method.value
    return Image(
        Chart.TIMELINE,
        index,
        number,
        f"{name}-{shown.replace(' ', '-')}-{run.repeat}",
        f"Counters over the time of {shown}, run {run.repeat}",
        timeline(run, part.scenario, LIGHT),
        timeline(run, part.scenario, DARK),
    )

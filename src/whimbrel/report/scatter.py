"""The chart of a suite: what was said beside what happened, and how often it was how far off."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from whimbrel.model.method import Method
from whimbrel.model.record import MoveRecord
from whimbrel.model.units import format_time
from whimbrel.report.canvas import SMALL, Theme, draw, heading, panel, write
from whimbrel.theory.accuracy import DOWNTIME, TOTAL_TIME, Pick
from whimbrel.theory.assessment import OURS, PROMISED, time_errors

_HEIGHT = 4.1
_PANELS = ((0.7, 0.62, 2.55, 2.55), (3.95, 0.62, 2.55, 2.55), (7.15, 0.62, 2.2, 2.55))
"""Left, bottom, width, height in inches: time, downtime, errors."""

_WORST = 0.5
"""Largest error on the third panel's axis."""

_MARKS = ("o", "s")
"""Of the methods for which there are colours, and of the others, which take them again."""

_LEAST = 1e-3
"""Seconds; below, a logarithmic axis has no place."""


def accuracy_chart(records: Sequence[MoveRecord], theme: Theme) -> bytes:
    """Return the chart as PNG; moves that did not complete, or were not predicted, are not in it.

    Raises nothing where there is no such move: the axes are empty then.
    """
    done = [each for each in records if each.prediction and each.completed]

    def paint(figure: Figure) -> None:
        heading(
            figure,
            "Theory next to practice",
            f"{len(done)} moves; each line is the forecast's band, 10th to 90th percentile",
            theme,
        )
        time, still, errors = (panel(figure, box, theme) for box in _PANELS)
        _pairs(time, done, TOTAL_TIME, theme)
        _label(time, "total time said", "observed", theme)
        _pairs(still, done, DOWNTIME, theme)
        _label(still, "downtime said", "observed", theme)
        _curves(errors, done, theme)
        _label(errors, "error of total time", "share of moves", theme)
        _key(figure, [each.method for each in done], theme)

    return draw(_HEIGHT, theme, paint)


def _pairs(axes: Axes, records: Sequence[MoveRecord], pick: Pick, theme: Theme) -> None:
    said_of, seen_of = pick
    pairs = [
        (each.method, said_of(each.prediction), seen_of(each.observed))
        for each in records
        if each.prediction
    ]
    known = [(method, said, seen) for method, said, seen in pairs if seen and said.p50 > 0]
    axes.set_xscale("log")
    axes.set_yscale("log")
    values = [v for _, said, seen in known for v in (said.p50, seen)] or [0.1, 1.0]
    low, high = max(min(values), _LEAST) / 1.5, max(values) * 1.5
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.plot((low, high), (low, high), color=theme.stripe, linewidth=0.8, zorder=1)
    for method, said, seen in known:
        colour = _colour(method, theme)
        axes.plot((max(said.p10, low), said.p90), (seen, seen), color=colour, alpha=0.45, lw=0.9)
        mark = _MARKS[list(Method).index(method) // len(theme.series)]
        axes.plot((said.p50,), (seen,), mark, color=colour, markersize=2.9, markeredgewidth=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_time(float(value))))
    axes.grid(color=theme.faint, linewidth=0.6)


def _curves(axes: Axes, records: Sequence[MoveRecord], theme: Theme) -> None:
    """Draw, for every model, the share of moves whose time it missed by less than x."""
    found = time_errors([each for each in records if each.method in PROMISED])
    axes.set_xlim(0, _WORST)
    axes.set_ylim(0, 1.02)
    axes.grid(color=theme.faint, linewidth=0.6)
    colours = (theme.accent, *theme.series[2:])
    for index, (name, errors) in enumerate(found.items()):
        if errors:
            steps = np.sort(errors)
            share = np.arange(1, len(steps) + 1) / len(steps)
            width = 1.8 if name == OURS else 1.0
            axes.step(steps, share, where="post", color=colours[index], linewidth=width)
            place = (0.97, 0.30 - 0.085 * index)
            write(axes, name, place, coords="axes fraction", color=colours[index], ha="right")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))


def _label(axes: Axes, across: str, up: str, theme: Theme) -> None:
    axes.set_xlabel(across, size=SMALL, color=theme.muted, labelpad=6)
    axes.set_title(f"{up} \N{UPWARDS ARROW}", size=SMALL, color=theme.muted, loc="left", pad=5)


def _key(figure: Figure, methods: Sequence[Method], theme: Theme) -> None:
    width, height = figure.get_size_inches()
    left = 0.7
    for method in dict.fromkeys(sorted(methods, key=list(Method).index)):
        colour = _colour(method, theme)
        again = list(Method).index(method) >= len(theme.series)
        mark = "\N{BLACK SQUARE}" if again else "\N{BLACK CIRCLE}"
        text = f"{mark} {method.value}"
        figure.text(left / width, 0.12 / height, text, size=SMALL, color=colour)
        left += 0.3 + 0.068 * len(text)


def _colour(method: Method, theme: Theme) -> str:
    return theme.series[list(Method).index(method) % len(theme.series)]

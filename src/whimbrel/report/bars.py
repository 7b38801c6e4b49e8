"""The charts that compare methods: times, downtime, and bytes on the wire."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator

from whimbrel.model.method import Method
from whimbrel.model.scenario import ScenarioResult
from whimbrel.model.units import GIB, format_size, format_time
from whimbrel.report.canvas import Theme, write
from whimbrel.report.lines import THICK, beside, chart, rule, span, stripes, value
from whimbrel.report.rows import Memory, Row, Spread
from whimbrel.report.words import NOTHING, TIMES, describe_scenario

_ROOM = 1.17
"""Length of an axis in lengths of its longest bar: the rest is for the figures."""
_EARLY = 0.98
"""Share of its wall time before which a guest must have arrived for the chart to say so."""
_SHORTEST = 1e-3
"""Seconds; QEMU counts whole milliseconds, and a logarithmic axis needs an end."""
_COLUMNS = (0.85, 1.65)
"""Inches from the end of the axis to the ends of the two columns of figures."""
_TITLES = ("\N{BLACK CIRCLE} observed", "\N{WHITE CIRCLE} QEMU")
_STEPS = (0.1, 0.2, 0.25, 0.5, 1, 2, 4, 5, 8, 10, 16, 32, 64, 128, 256, 512, 1024)
_TICKS = 8
"""Ticks on an axis of sizes, at most, where its length allows."""


def times(result: ScenarioResult, theme: Theme) -> bytes:
    """Return the chart of times from the request until the guest runs at the destination."""
    subtitle = describe_scenario(result.scenario)
    axis = "seconds from the request until the guest runs at the destination, complete"

    def paint(axes: Axes, table: Sequence[Row]) -> None:
        axes.set_xlim(0, _ROOM * _most([row.wall_time for row in table], 1.0))
        for place, row in enumerate(table):
            if row.wall_time is None:
                stripes(axes, place, row, theme)
            else:
                _time_bar(axes, place, row, row.wall_time, theme)
        if any(row.wall_time for row in table):
            _time_key(axes, table, theme)

    return chart(result, theme, ("Start to finish", subtitle, axis), paint)


def downtime(result: ScenarioResult, theme: Theme) -> bytes:
    """Return the chart of downtimes, observed by the guest's heartbeat and told by QEMU."""
    subtitle = "how long the guest stood still: by its own heartbeat, and by QEMU's account"
    axis = "milliseconds, logarithmic"
    limit = result.scenario.settings.downtime_limit

    def paint(axes: Axes, table: Sequence[Row]) -> None:
        seen = [s for row in table for s in (row.downtime_observed, row.downtime_reported)]
        lowest = min([limit, *(s.lowest for s in seen if s)])
        axes.set_xscale("log")
        axes.set_xlim(max(lowest, _SHORTEST) / 1.6, max(limit, _most(seen, limit)) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at * 1000:g}"))
        rule(axes, limit, f"limit asked for, {format_time(limit)}", theme)
        for text, reach in zip(_TITLES, _COLUMNS, strict=True):
            beside(axes, -0.72, reach, text, theme.muted)
        for place, row in enumerate(table):
            _dots(axes, place, row, theme)

    return chart(result, theme, ("Downtime", subtitle, axis), paint, beside=_COLUMNS[1])


def wire_bytes(result: ScenarioResult, theme: Theme) -> bytes:
    """Return the chart of bytes at the network interfaces."""
    memory = result.scenario.guest.memory
    subtitle = "everything that left the source's network interfaces, headers included"

    def paint(axes: Axes, table: Sequence[Row]) -> None:
        most = _most([row.wire_bytes for row in table], memory)
        axes.set_xlim(0, max(most * 1.04, memory * 1.12))
        axes.xaxis.set_major_locator(MultipleLocator(_step(axes.get_xlim()[1])))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size / GIB:g}"))
        rule(axes, memory, f"the guest's memory, {format_size(memory)}", theme)
        for place, row in enumerate(table):
            if row.wire_bytes is None:
                stripes(axes, place, row, theme)
                continue
            axes.barh(place, row.wire_bytes.median, THICK, color=theme.main, linewidth=0)
            span(axes, place, row.wire_bytes, theme)
            beside(axes, place, _COLUMNS[0], format_size(row.wire_bytes.median), theme.ink)

    words = ("On the wire", subtitle, "GiB")
    return chart(result, theme, words, paint, beside=_COLUMNS[0])


def _most(spreads: Sequence[Spread | None], otherwise: float) -> float:
    return max((s.highest for s in spreads if s is not None), default=otherwise) or otherwise


def _step(length: float) -> float:
    """Return a distance of ticks, in bytes, that is round in GiB."""
    return next((s * GIB for s in _STEPS if length / (s * GIB) <= _TICKS), length / _TICKS)


def _time_bar(axes: Axes, place: int, row: Row, wall: Spread, theme: Theme) -> None:
    preparation = row.preparation_time.median if row.preparation_time else 0.0
    preparation = min(preparation, wall.median)
    axes.barh(place, preparation, THICK, color=theme.tint, linewidth=0)
    rest = wall.median - preparation
    axes.barh(place, rest, THICK, left=preparation, color=theme.main, linewidth=0)
    if _early(row):
        axes.vlines(_arrival(row), place - THICK / 2, place + THICK / 2, color=theme.paper, lw=2.2)
    span(axes, place, wall, theme)
    baseline = row.method is Method.QEMU_DEFAULT
    words = [] if row.faster is None or baseline else [f"{row.faster:.1f}{TIMES}"]
    words += [row.memory.value] if row.memory is Memory.CORRUPT else []
    words += [f"{row.completed} of {row.runs} runs"] if row.completed != row.runs else []
    value(axes, (wall.highest, place), format_time(wall.median), theme, "  ".join(words))


def _arrival(row: Row) -> float:
    return row.arrival_time.median if row.arrival_time else float("inf")


def _early(row: Row) -> bool:
    """Tell whether the guest ran at the destination well before its memory was complete."""
    return row.wall_time is not None and _arrival(row) < _EARLY * row.wall_time.median


def _time_key(axes: Axes, table: Sequence[Row], theme: Theme) -> None:
    """Name the parts of a bar once, above the first line."""
    square = "\N{BLACK SQUARE}"
    parts = [(square, "preparation", theme.tint), (square, "transfer", theme.main)]
    if any(_early(row) for row in table):
        parts.append(("\N{BOX DRAWINGS HEAVY VERTICAL}", "guest already there", theme.stripe))
    for left, (sign, text, color) in zip((0, 78, 138), parts, strict=False):
        write(axes, sign, (0, 1), (left, 8), coords="axes fraction", color=color)
        write(axes, text, (0, 1), (left + 10, 8), coords="axes fraction", color=theme.muted)


def _dots(axes: Axes, place: int, row: Row, theme: Theme) -> None:
    pair = (row.downtime_observed, row.downtime_reported)
    ends = [max(spread.median, _SHORTEST) for spread in pair if spread is not None]
    if not ends:
        stripes(axes, place, row, theme)
        return
    axes.hlines(place, min(ends), max(ends), color=theme.tint, linewidth=2.2, zorder=2)
    inks, fills = (theme.ink, theme.muted), (theme.main, theme.paper)
    for spread, reach, ink, fill in zip(pair, _COLUMNS, inks, fills, strict=True):
        beside(axes, place, reach, format_time(spread.median) if spread else NOTHING, ink)
        if spread is not None:
            span(axes, place, spread, theme)
            _dot(axes, place, spread, fill, theme)


def _dot(axes: Axes, place: int, spread: Spread, fill: str, theme: Theme) -> None:
    at = max(spread.median, _SHORTEST)
    axes.plot(at, place, "o", ms=7.5, mfc=fill, mec=theme.main, mew=1.6, zorder=5)

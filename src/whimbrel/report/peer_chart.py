"""The chart of a peers suite: everyone's time, downtime and bytes beside the reference."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from whimbrel.report.canvas import NORMAL, SMALL, Theme, draw, heading, panel
from whimbrel.theory.peers import Comparison, Standing

_TOP, _BOTTOM, _LINE = 1.15, 0.6, 0.3
"""Inches: room for the title, for the axis, one line."""

_PANELS = ((1.85, 3.3), (5.4, 1.85), (7.5, 1.85))
"""Left and width in inches: time, downtime, bytes."""

_MOST, _LEAST = 60.0, 1 / 60
"""Ratios beyond are drawn at the edge."""

_FILLED, _HOLLOW = "o", ">"

Pick = Callable[[Standing], float | None]


def peers_chart(found: Comparison, theme: Theme) -> bytes:
    """Return the chart as PNG; whoever could not be had here has a line without a mark."""
    standings = found.standings
    height = _TOP + _BOTTOM + _LINE * max(1, len(standings))
    reference = found.best.name if found.best else "nobody"

    def paint(figure: Figure) -> None:
        heading(
            figure,
            "Whimbrel beside others",
            f"ratios to {reference}, geometric means over {len(found.guests)} guests; an arrow: "
            "longer than this, since a move did not complete",
            theme,
        )
        picks: tuple[tuple[str, Pick], ...] = (
            ("time", lambda each: each.time),
            ("downtime", lambda each: each.downtime),
            ("bytes", lambda each: each.sent),
        )
        for number, ((left, across), (title, pick)) in enumerate(zip(_PANELS, picks, strict=True)):
            box = (left, _BOTTOM, across, _LINE * max(1, len(standings)))
            axes = panel(figure, box, theme)
            _marks(axes, standings, pick, found.ours, theme)
            axes.set_title(title, size=NORMAL, color=theme.muted, loc="left", pad=6)
            _names(axes, standings if number == 0 else (), theme)

    return draw(height, theme, paint)


def _marks(axes: Axes, standings: Sequence[Standing], pick: Pick, ours: str, theme: Theme) -> None:
    values = [value for each in standings if (value := pick(each)) is not None]
    axes.set_xscale("log")
    axes.set_xlim(max(min([0.5, *values]) / 1.5, _LEAST), min(max([2.0, *values]) * 1.5, _MOST))
    axes.set_ylim(max(1, len(standings)) - 0.5, -0.5)
    axes.axvline(1.0, color=theme.accent, linewidth=1.0, zorder=1)
    axes.grid(axis="x", color=theme.faint, linewidth=0.8)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for place, each in enumerate(standings):
        value = pick(each)
        if value is None:
            continue
        at = min(max(value, _LEAST), _MOST)
        colour = theme.main if each.peer.name == ours else theme.muted
        axes.hlines(place, min(1.0, at), max(1.0, at), color=theme.tint, linewidth=2.0, zorder=2)
        mark = _HOLLOW if each.bound and pick(each) == each.time else _FILLED
        axes.plot((at,), (place,), mark, color=colour, markersize=6, zorder=3)


def _names(axes: Axes, standings: Sequence[Standing], theme: Theme) -> None:
    labels = [f"{each.peer.name}{' *' if each.peer.default else ''}" for each in standings]
    axes.set_yticks(range(len(standings)), labels, size=SMALL)
    for label, each in zip(axes.get_yticklabels(), standings, strict=True):
        label.set_color(theme.muted if each.missing else theme.ink)

"""What the charts that compare methods share: one line per method, with stripes for gaps.

Every method asked for has its line. One without figures shows stripes and the reason, so
that what could not be measured is not mistaken for what was fast.
"""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whimbrel.model.method import Method
from whimbrel.model.scenario import ScenarioResult
from whimbrel.report.canvas import (
    NORMAL,
    SMALL,
    WIDTH,
    Theme,
    draw,
    heading,
    panel,
    shorten,
    write,
)
from whimbrel.report.rows import Row, Spread, rows

THICK = 0.56
"""Share of a line's height that its bar fills."""

_MARGIN, _NAMES, _TOP, _BOTTOM, _LINE = 0.25, 1.45, 0.98, 0.62, 0.37
"""Inches: outer margin, room for the methods' names, for the title, for the axis, one line."""
_REASON = 88
"""Characters of a reason that fit into a line."""

Paint = Callable[[Axes, Sequence[Row]], None]


def chart(
    result: ScenarioResult,
    theme: Theme,
    words: tuple[str, str, str],
    paint: Paint,
    beside: float = 0.0,
) -> bytes:
    """Return a PNG whose lines `paint` fills.

    `words` are the title, the subtitle and the axis' label; `beside` keeps so many inches
    free to the right of the lines.
    """
    table = rows(result)
    height = _TOP + _BOTTOM + _LINE * len(table)

    def compose(figure: Figure) -> None:
        heading(figure, words[0], words[1], theme)
        across = WIDTH - _NAMES - _MARGIN - beside
        axes = panel(figure, (_NAMES, _BOTTOM, across, _LINE * len(table)), theme)
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.grid(axis="x", color=theme.faint, linewidth=0.8)
        axes.set_xlabel(words[2], size=SMALL, color=theme.muted, labelpad=7)
        _names(axes, table, theme)
        paint(axes, table)

    return draw(height, theme, compose)


def _names(axes: Axes, table: Sequence[Row], theme: Theme) -> None:
    axes.set_yticks(range(len(table)), [row.name for row in table], size=NORMAL)
    for label, row in zip(axes.get_yticklabels(), table, strict=True):
        label.set_color(theme.ink if row.completed else theme.muted)
        if row.method is Method.QEMU_DEFAULT:
            label.set_fontweight("bold")


def stripes(axes: Axes, place: int, row: Row, theme: Theme) -> None:
    """Fill a line with stripes, and say why there is no figure."""
    low, high = axes.get_xlim()
    axes.barh(
        place,
        high - low,
        THICK,
        left=low,
        facecolor="none",
        edgecolor=theme.stripe,
        hatch="/////",
        linewidth=0,
    )
    write(
        axes,
        shorten(row.note or "not measured", _REASON),
        (0, place),
        (1, 0),
        coords=("axes fraction", "data"),
        color=theme.ink,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 5},
    )


def span(axes: Axes, place: int, spread: Spread, theme: Theme) -> None:
    """Show the range over repeats as a thin line; nothing where there is one run."""
    if spread.highest > spread.lowest:
        axes.hlines(place, spread.lowest, spread.highest, color=theme.ink, linewidth=1.1, zorder=4)


def value(axes: Axes, at: tuple[float, int], text: str, theme: Theme, note: str = "") -> None:
    """Write a figure to the right of its bar, and a muted note beside it."""
    paper = {"facecolor": theme.paper, "edgecolor": "none", "pad": 1.5}
    figure = write(axes, text, at, (6, 0), size=NORMAL, color=theme.ink, bbox=paper, zorder=6)
    if note:
        write(axes, note, (1, 0.5), (6, 0), coords=figure, color=theme.muted, zorder=6)


def beside(axes: Axes, place: float, inches: float, text: str, color: str) -> None:
    """Write into a column to the right of the lines that ends so many inches from them."""
    size = NORMAL if place >= 0 else SMALL
    coords = ("axes fraction", "data")
    write(
        axes, text, (1, place), (inches * 72, 0), coords=coords, ha="right", size=size, color=color
    )


def rule(axes: Axes, at: float, text: str, theme: Theme) -> None:
    """Draw a line across all methods, with its name above."""
    axes.axvline(at, color=theme.accent, linewidth=1.0, zorder=3)
    coords = ("data", "axes fraction")
    write(axes, text, (at, 1), (0, 8), coords=coords, ha="center", color=theme.accent)

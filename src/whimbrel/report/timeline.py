"""One run over time: every counter that was kept, in panels above one axis of seconds.

Passes are thin lines through all panels; switchover or post-copy is marked and named; the
time before the destination listened is shaded.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whimbrel.model.migration import Phase
from whimbrel.model.scenario import Run, Scenario
from whimbrel.model.units import format_time
from whimbrel.report.canvas import NORMAL, SMALL, WIDTH, Theme, draw, heading, panel, shorten, write
from whimbrel.report.panels import panels

_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 0.68, 0.98, 1.12, 0.5, 0.4
"""Inches: margins, and the distance of two panels."""
_SUBTITLE = 110
"""Characters of a subtitle that fit into the width."""
_MARKED = {Phase.SWITCHOVER: "switchover", Phase.POSTCOPY: "post-copy"}


def timeline(run: Run, scenario: Scenario, theme: Theme) -> bytes:
    """Return the chart of one run."""
    parts = panels(run, scenario.link)
    height = _TOP + sum(part.height for part in parts) + _GAP * max(0, len(parts) - 1) + _BOTTOM
    name = run.preset or run.method.value
    title = name if scenario.repeats == 1 else f"{name}, run {run.repeat}"

    def compose(figure: Figure) -> None:
        heading(figure, title, shorten(_subtitle(run), _SUBTITLE), theme)
        top = height - _TOP
        for part in parts:
            box = (_LEFT, top - part.height, WIDTH - _LEFT - _RIGHT, part.height)
            axes = panel(figure, box, theme)
            axes.set_xlim(_span(run))
            write(axes, part.title, (0, 1), (0, 9), coords="axes fraction", color=theme.ink)
            part.paint(axes, theme)
            _mark(axes, run, theme, named=part is parts[0])
            _seconds(axes, theme, named=part is parts[-1])
            top -= part.height + _GAP

    return draw(height, theme, compose)


def _subtitle(run: Run) -> str:
    seen = run.observed
    words = [f"{run.ending.value}: {run.reason}" if run.reason else run.ending.value]
    if seen.wall_time is not None:
        words.append(f"{format_time(seen.wall_time)} in all")
    if seen.downtime_observed is not None:
        words.append(f"the guest stood still for {format_time(seen.downtime_observed)}")
    if seen.passes is not None:
        words.append("1 pass" if seen.passes == 1 else f"{seen.passes} passes (thin lines)")
    return ", ".join(words)


def _span(run: Run) -> tuple[float, float]:
    """Return the first and the last second that anything was seen at."""
    ends = [t for track in run.tracks for t in (track.times[:1] + track.times[-1:])]
    ends += [0.0, run.observed.wall_time or 0.0]
    return min(ends), max(ends) or 1.0


def _mark(axes: Axes, run: Run, theme: Theme, *, named: bool) -> None:
    """Draw what happened when through a panel; only the first panel has room for names."""
    for one in run.passes:
        axes.axvline(one.at, color=theme.muted, linewidth=0.5, alpha=0.7, zorder=1)
    for change in run.phases:
        if change.phase in _MARKED:
            axes.axvline(change.at, color=theme.accent, linewidth=1.1, zorder=3)
            if named:
                _name(axes, change.at, _MARKED[change.phase], theme)
    postcopy = [change.at for change in run.phases if change.phase is Phase.POSTCOPY]
    if postcopy and run.observed.wall_time:
        axes.axvspan(
            postcopy[0], run.observed.wall_time, color=theme.accent, alpha=0.12, lw=0, zorder=-1
        )
    if run.observed.preparation_time:
        axes.axvspan(
            0, run.observed.preparation_time, color=theme.muted, alpha=0.16, lw=0, zorder=-1
        )


def _name(axes: Axes, at: float, word: str, theme: Theme) -> None:
    """Write what a mark is above the panel, towards the side that has room."""
    low, high = axes.get_xlim()
    left = at > (low + high) / 2
    text, coords = f"{word} at {format_time(at)}", ("data", "axes fraction")
    offset, align = ((2, 22), "right") if left else ((-2, 22), "left")
    write(axes, text, (at, 1), offset, coords=coords, ha=align, size=NORMAL, color=theme.accent)
    axes.plot(
        (at, at),
        (1, 1 + 16 / (axes.bbox.height / axes.figure.dpi * 72)),
        color=theme.accent,
        linewidth=1.1,
        clip_on=False,
        transform=axes.get_xaxis_transform(),
    )


def _seconds(axes: Axes, theme: Theme, *, named: bool) -> None:
    if not named:
        axes.xaxis.set_visible(False)
        return
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 5, 10]))
    axes.set_xlabel("seconds since the request", size=SMALL, color=theme.muted, labelpad=6)

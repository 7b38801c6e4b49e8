"""The panels of a run's time line: one for each kind of counter that the run has.

Labels stand at the right, in their line's colour, at the height where the line mostly is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from whimbrel.model.prediction import Interval
from whimbrel.model.scenario import LinkSpec, Measure, Run, Track
from whimbrel.model.units import GIB, MIB, format_link, format_time
from whimbrel.report.canvas import NORMAL, Theme, write

TALL = 0.92
"""Inches of a panel of lines."""
_STRIP, _STRIPS = 0.17, 2.6
"""Inches of one processor's strip, and of all of them at most."""
_STRIP_NAMES = 18
"""Names that fit beside the strips."""
_POINTS = 1500
"""Points that a dense line is thinned to, about one per pixel."""
_BITS = 8 / 1e6
"""Mbit/s in one byte per second."""
_APART = 0.13
"""Distance of two labels, in heights of a panel."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """A panel: its title with the unit, its height in inches, and what fills it."""

    title: str
    height: float
    paint: Callable[[Axes, Theme], None]


@dataclass(frozen=True)
class Line:
    """A track to be drawn: its label, the factor to the panel's unit, its place in the palette."""

    track: Track
    label: str
    factor: float
    color: int


def panels(run: Run, link: LinkSpec) -> list[Panel]:
    """Return the panels of a run, from the machine down to the guest."""

    def of(*measures: Measure) -> list[Track]:
        return [t for m in measures for t in run.tracks if t.measure is m and t.times]

    cpu = _hosts(of(Measure.CPU_HOST), run.source, 1.0)
    memory = _hosts(of(Measure.RESIDENT), run.source, 1 / GIB)
    sent = [Line(track, "sent", 1 / MIB, 2) for track in of(Measure.BANDWIDTH)]
    dirtied = [Line(track, "dirtied", 1 / MIB, 4) for track in of(Measure.DIRTY_RATE)]
    found = (
        _strips(of(Measure.CPU_CORE, Measure.CPU_NUMA)),
        _lines("QEMU: cores kept busy", cpu),
        _network(of(Measure.SENT), of(Measure.RECEIVED), run.source, link),
        _lines("QEMU: memory held, GiB", memory),
        _remaining(of(Measure.REMAINING), run),
        _lines("By QEMU's account, MiB/s", sent + dirtied),
        _heartbeat(of(Measure.HEARTBEAT_GAP)),
    )
    return [one for one in found if one is not None]


def _hosts(tracks: Sequence[Track], source: str, factor: float) -> list[Line]:
    """Give the source the first colour and name each host's part in the move."""
    parts = ("destination", "source")
    ordered = sorted(tracks, key=lambda track: (_plain(track.label) != source, track.label))
    return [
        Line(
            track,
            f"{_plain(track.label)} {parts[_plain(track.label) == source] if source else ''}",
            factor,
            i,
        )
        for i, track in enumerate(ordered)
    ]


def _plain(label: str) -> str:
    """Leave out what every label says, since room is scarce: "host a" is a."""
    return label.removeprefix("host ")


def _lines(title: str, lines: Sequence[Line]) -> Panel | None:
    def paint(axes: Axes, theme: Theme) -> None:
        most = max(_draw(axes, line, theme) for line in lines)
        axes.set_ylim(0, most * 1.12 or 1)
        _label(axes, lines, theme)

    return Panel(title, TALL, paint) if lines else None


def _network(
    sent: Sequence[Track], received: Sequence[Track], source: str, link: LinkSpec
) -> Panel | None:
    """Draw what interfaces sent above the line and what they received below it."""
    names = {_plain(track.label) for track in (*sent, *received)}
    order = sorted(names, key=lambda name: (not source or not name.startswith(source), name))
    above = [Line(t, _plain(t.label), _BITS, order.index(_plain(t.label))) for t in sent]
    below = [Line(t, _plain(t.label), -_BITS, order.index(_plain(t.label))) for t in received]
    rates = sorted({rate for rate in link.each if rate})
    limit = f"; lines: {' and '.join(map(format_link, rates))}" if rates else ""

    def paint(axes: Axes, theme: Theme) -> None:
        most = max(_draw(axes, line, theme) for line in (*above, *below))
        axes.axhline(0, color=theme.muted, linewidth=0.6)
        most = max(most, *(rate * _BITS for rate in rates), 0.0)
        for rate in rates:
            for edge in (rate * _BITS, -rate * _BITS):
                axes.axhline(edge, color=theme.muted, linewidth=0.6)
        axes.set_ylim(-most * 1.15 or -1, most * 1.15 or 1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda flow, _: f"{abs(flow):g}"))
        _label(axes, _busiest(above, below), theme)

    title = f"Network, Mbit/s: sent above, received below{limit}"
    return Panel(title, TALL * 1.25, paint) if above or below else None


def _busiest(above: Sequence[Line], below: Sequence[Line]) -> list[Line]:
    """Choose each interface's busier direction, so that its name stands once."""
    best: dict[str, Line] = {}
    for line in (*above, *below):
        other = best.get(line.label)
        if other is None or abs(_mostly(line)) > abs(_mostly(other)):
            best[line.label] = line
    return list(best.values())


def _remaining(tracks: Sequence[Track], run: Run) -> Panel | None:
    """Draw what was left to send, and on top what each pass was said to begin with."""
    foretold = _foretold(run)

    def paint(axes: Axes, theme: Theme) -> None:
        for track in tracks:
            times, values = _figures(track)
            axes.fill_between(times, values / GIB, color=theme.tint, alpha=0.55, linewidth=0)
        most = max(_draw(axes, Line(track, "", 1 / GIB, 0), theme) for track in tracks)
        for at, left in foretold:
            color = theme.accent
            axes.plot((at.p10, at.p90), (left.p50 / GIB,) * 2, color=color, linewidth=1.6, zorder=4)
            axes.plot((at.p50,) * 2, (left.p10 / GIB, left.p90 / GIB), color=color, linewidth=1.6)
            axes.plot(at.p50, left.p50 / GIB, "o", color=color, markersize=3.5, zorder=5)
        axes.set_ylim(0, most * 1.12 or 1)

    said = "; dots and bars: passes as predicted" if foretold else ""
    return Panel(f"Memory left to send, GiB{said}", TALL, paint) if tracks else None


def _foretold(run: Run) -> list[tuple[Interval, Interval]]:
    """Return when each predicted pass begins, with what it begins; since the request."""
    if run.predicted is None:
        return []
    late = run.predicted.preparation_time.p50
    return [
        (Interval(b.at.p10 + late, b.at.p50 + late, b.at.p90 + late), b.remaining)
        for b in run.predicted.band
        if b.number > 1
    ]


def _heartbeat(tracks: Sequence[Track]) -> Panel | None:
    """Draw the guest's gaps in milliseconds on a logarithmic axis, and name the longest."""

    def paint(axes: Axes, theme: Theme) -> None:
        axes.set_yscale("log")
        longest = 0.0
        for track in tracks:
            times, values = _thinned(*_figures(track))
            axes.plot(times, np.maximum(values, 1e-4) * 1e3, color=theme.ink, linewidth=0.7)
            longest = max(longest, float(values.max(initial=0)))
            at = float(times[int(values.argmax())]) if values.size else 0.0
            _peak(axes, at, float(values.max(initial=0)), theme)
        axes.set_ylim(1, max(100, longest * 3e3))
        axes.grid(axis="y", color=theme.faint, linewidth=0.7)
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda gap, _: f"{gap:g}"))

    return Panel("Gaps in the guest's heartbeat, ms", TALL, paint) if tracks else None


def _peak(axes: Axes, at: float, gap: float, theme: Theme) -> None:
    low, high = axes.get_xlim()
    left = at > (low + high) / 2
    place = (-5, 0) if left else (5, 0)
    align = "right" if left else "left"
    paper = {"facecolor": theme.paper, "edgecolor": "none", "pad": 1}
    text = f"longest {format_time(gap)}"
    write(axes, text, (at, gap * 1e3), place, ha=align, color=theme.ink, size=NORMAL, bbox=paper)


def _strips(tracks: Sequence[Track]) -> Panel | None:
    """Draw a strip for each core and NUMA node: as readable with 128 cores as with two."""

    def paint(axes: Axes, theme: Theme) -> None:
        shades = LinearSegmentedColormap.from_list("busy", [theme.faint, theme.main])
        low, high = axes.get_xlim()
        grid = np.linspace(low, high, _POINTS // 2)
        busy = np.array([np.interp(grid, *_figures(track)) for track in tracks])
        size = {"extent": (low, high, len(tracks), 0), "aspect": "auto"}
        axes.imshow(busy, cmap=shades, vmin=0, vmax=1, interpolation="nearest", **size)  # type: ignore[arg-type]
        axes.set_xlim(low, high)
        axes.hlines(range(1, len(tracks)), low, high, color=theme.paper, linewidth=1.2)
        _strip_names(axes, tracks, busy, theme)

    height = min(_STRIPS, _STRIP * len(tracks))
    title = "Processors, from idle (pale) to busy (full colour), and their mean"
    return Panel(title, height, paint) if tracks else None


def _strip_names(axes: Axes, tracks: Sequence[Track], busy: Floats, theme: Theme) -> None:
    every = -(-len(tracks) // _STRIP_NAMES)
    shown = range(0, len(tracks), every)
    axes.set_yticks([i + 0.5 for i in shown], [_processor(tracks[i]) for i in shown])
    for i in shown:
        mean = f"{busy[i].mean():.0%}"
        write(axes, mean, (1, i + 0.5), (6, 0), coords=_RIGHT, color=theme.muted)


def _processor(track: Track) -> str:
    kind = "node" if track.measure is Measure.CPU_NUMA else "core"
    return f"{kind} {track.label}" if track.label.isdigit() else track.label


_RIGHT = ("axes fraction", "data")


def _draw(axes: Axes, line: Line, theme: Theme) -> float:
    """Draw a line; return the greatest distance from zero that it reaches."""
    times, values = _figures(line.track)
    color = theme.series[line.color % len(theme.series)]
    axes.plot(times, values * line.factor, color=color, linewidth=1.2, solid_capstyle="round")
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.grid(axis="y", color=theme.faint, linewidth=0.7)
    return float(np.abs(values * line.factor).max(initial=0))


def _label(axes: Axes, lines: Sequence[Line], theme: Theme) -> None:
    """Write the lines' names at the right, moved apart where they would touch."""
    low, high = axes.get_ylim()
    ordered = sorted(lines, key=lambda line: (round(_mostly(line), 1), -line.color))
    places = apart([(_mostly(line) - low) / (high - low) for line in ordered], _APART)
    for line, place in zip(ordered, places, strict=True):
        color = theme.series[line.color % len(theme.series)]
        write(axes, line.label.strip(), (1, place), (6, 0), coords="axes fraction", color=color)


def apart(places: Sequence[float], distance: float) -> list[float]:
    """Move ascending places so far apart that each is `distance` above the one before."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + distance) if moved else place)
    excess = max(0.0, moved[-1] - 1) if moved else 0.0
    return [place - excess for place in moved]


def _mostly(line: Line) -> float:
    """Return where a line mostly is while something happens, in the panel's unit."""
    _, values = _figures(line.track)
    busy = values[values > 0]
    return float(np.median(busy)) * line.factor if busy.size else 0.0


def _figures(track: Track) -> tuple[Floats, Floats]:
    times = np.asarray(track.times, dtype=np.float64)
    values = np.asarray(track.values, dtype=np.float64)
    known = np.isfinite(times) & np.isfinite(values)
    return times[known], values[known]


def _thinned(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Keep the highest value of every bin: no peak may be lost."""
    width = -(-values.size // _POINTS)
    if width <= 1:
        return times, values
    starts = np.arange(0, values.size, width)
    return times[starts], np.maximum.reduceat(values, starts)

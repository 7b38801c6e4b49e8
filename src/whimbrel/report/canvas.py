"""The look of every chart: themes, type, and figures that leave nothing behind.

`Figure` objects are used directly: pyplot would keep each figure alive and hold global state.
The type is DejaVu Sans because matplotlib brings it, so charts look alike everywhere.
"""

import gc
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image, ImageColor

WIDTH = 9.6
"""Inches; at `DPI` twice as many pixels as the page gives a chart, for sharp screens."""
DPI = 150

_COLOURS = 255

SMALL, NORMAL, TITLE = 7.5, 8.5, 11.0
"""Type sizes in points."""


@dataclass(frozen=True)
class Theme:
    """Colours; `series` stays distinct to colour-blind eyes (after Okabe and Ito)."""

    paper: str
    ink: str
    muted: str
    faint: str
    stripe: str
    main: str
    tint: str
    accent: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2530",
    muted="#68737f",
    faint="#e6e9ed",
    stripe="#cfd5db",
    main="#2469a6",
    tint="#a8c9e6",
    accent="#c2540a",
    series=("#2469a6", "#d9770b", "#1f8f74", "#8b5bb0", "#b8446e", "#6b7681"),
)
DARK = Theme(
    paper="#12161b",
    ink="#e9edf1",
    muted="#9aa6b2",
    faint="#272f38",
    stripe="#3d4854",
    main="#5fa8e3",
    tint="#2c557a",
    accent="#f29a4a",
    series=("#5fa8e3", "#f2a450", "#56c2a8", "#bd97de", "#e988ac", "#a7b2bd"),
)


def draw(height: float, theme: Theme, paint: Callable[[Figure], None]) -> bytes:
    """Return a PNG of `WIDTH` by `height` inches that `paint` fills; the figure is let go."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "hatch.linewidth": 0.7}):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=theme.paper)
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels: Any = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        image = Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB")
        del pixels, canvas.renderer, canvas, figure
    # matplotlib's figures are reference cycles: left to themselves, they pile up.
    gc.collect()
    return _png(image, theme)


def _png(image: Image.Image, theme: Theme) -> bytes:
    """Return a PNG with a palette: a third of the size, and no eye sees the difference."""
    few = image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette = few.getpalette() or []
    place = few.getpixel((0, 0))
    if isinstance(place, int):
        # The corner is paper, and must be exactly the colour of the page around it.
        palette[3 * place : 3 * place + 3] = ImageColor.getrgb(theme.paper)[:3]
        few.putpalette(palette)
    png = io.BytesIO()
    few.save(png, "png")
    return png.getvalue()


def panel(figure: Figure, box: tuple[float, float, float, float], theme: Theme) -> Axes:
    """Add bare axes; `box` is left, bottom, width, height in inches."""
    width, height = figure.get_size_inches()
    left, bottom, across, up = box
    axes = figure.add_axes((left / width, bottom / height, across / width, up / height))
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=theme.muted, pad=4)
    axes.set_axisbelow(True)
    return axes


def heading(figure: Figure, title: str, subtitle: str, theme: Theme, left: float = 0.25) -> None:
    """Write title and subtitle into the top left corner."""
    width, height = figure.get_size_inches()
    styles: tuple[dict[str, Any], ...] = (
        {"size": TITLE, "color": theme.ink, "weight": "bold"},
        {"size": NORMAL, "color": theme.muted},
    )
    for text, down, style in zip((title, subtitle), (0.16, 0.42), styles, strict=True):
        figure.text(left / width, 1 - down / height, plain(text), va="top", **style)


def write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float] = (0, 0),
    **style: Any,
) -> Annotation:
    """Write text `offset` points from a place; `coords` says what the place counts in."""
    coords = style.pop("coords", "data")
    kept: dict[str, Any] = {"size": SMALL, "va": "center", "annotation_clip": False}
    return axes.annotate(
        plain(text), at, xycoords=coords, xytext=offset, textcoords="offset points", **kept | style
    )


def plain(text: str) -> str:
    """Keep a dollar sign in foreign words from starting a formula."""
    return text.replace("$", r"\$")


def shorten(text: str, length: int) -> str:
    """Cut a text at a word so that it fits into so many characters."""
    flat = " ".join(text.split())
    if len(flat) <= length:
        return flat
    return flat[:length].rsplit(" ", 1)[0].rstrip(",;:.") + " \N{HORIZONTAL ELLIPSIS}"

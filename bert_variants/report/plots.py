"""Curves as inline SVG, made with matplotlib: small, and the same bytes every time.

Colours are CSS variables of the page (``--ink``, ``--line``, ``--s0`` ... ``--s5``), so one picture
is readable in the dark and in the light.
"""

from __future__ import annotations

import dataclasses
import html
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from bert_variants.report.cells import printable
from bert_variants.report.run import Points

MOST_POINTS = 2000
SERIES = 6  # colours that the page has for curves
# what matplotlib writes -> what stands in the page; any colours that it does not use by itself
INK, LINE = "#010203", "#010204"
_COLOURS = {INK: "var(--ink)", LINE: "var(--line)"} | {
    f"#01030{i}": f"var(--s{i})" for i in range(SERIES)
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        label: for the legend.
        points: (step, value).
        colour: 0 .. 5, the page's.
        dashed: for what was not trained on, or is a baseline.
        marked: dots where values were measured, for the few ones of evaluations.
        faint: for what lies behind a smoothed curve.
        band: (step, lowest, highest) around the points, drawn behind them.
    """

    label: str
    points: Points
    colour: int = 0
    dashed: bool = False
    marked: bool = False
    faint: bool = False
    band: Sequence[tuple[float, float, float]] = ()


def plot(
    name: str,
    curves: Sequence[Curve],
    *,
    title: str,
    unit: str,
    levels: Sequence[tuple[str, float, int]] = (),
    log: bool = False,
    from_zero: bool = False,
    size: tuple[float, float] = (6.2, 3.1),
) -> str:
    """An SVG element with ``curves`` over training steps.

    Args:
        name: unique on the page; prefixes the ids inside.
        curves: those without points are left out.
        title: says what is shown, also to screen readers.
        unit: label of the vertical axis.
        levels: (label, value, colour) of horizontal dashed lines, such as a baseline's loss.
        log: logarithmic vertical axis, if every value is positive.
        from_zero: the vertical axis begins at 0.
        size: width and height in inches.

    Returns:
        SVG text; empty if no curve has points.
    """
    curves = [dataclasses.replace(c, points=thinned(c.points)) for c in curves if c.points]
    if not curves:
        return ""

    def draw(axes: Any) -> None:
        _draw(axes, curves, levels)
        _dress(axes, unit, curves, log=log, from_zero=from_zero)

    return drawn(name, draw, title=title, size=size)


def drawn(
    name: str,
    draw: Callable[[Any], None],
    *,
    title: str,
    size: tuple[float, float] = (6.2, 3.1),
) -> str:
    """An SVG element with what ``draw`` puts on a pair of matplotlib's axes.

    Args:
        name: unique on the page; prefixes the ids inside.
        draw: given the axes; colours are ``INK``, ``LINE`` and ``colour_of(i)``.
        title: says what is shown, also to screen readers.
        size: width and height in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # no global state: neither the backend nor rcParams of a notebook are touched
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # the page's font draws the text; matplotlib's own only measures it
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, title)


def colour_of(number: int) -> str:
    """What a curve's colour is called while it is drawn; the page has six."""
    return f"#01030{number % SERIES}"


def _draw(axes: Any, curves: Sequence[Curve], levels: Sequence[tuple[str, float, int]]) -> None:
    for curve in curves:
        if curve.band:
            steps, low, high = zip(*curve.band, strict=True)
            shade = {"color": colour_of(curve.colour), "alpha": 0.16, "linewidth": 0}
            axes.fill_between(steps, low, high, **shade)
        x, y = zip(*curve.points, strict=True)
        axes.plot(
            x,
            y,
            color=colour_of(curve.colour),
            label="_nolegend_" if curve.faint else printable(curve.label),
            linewidth=0.8 if curve.faint else 1.6,
            alpha=0.35 if curve.faint else 1.0,
            linestyle="--" if curve.dashed else "-",
            marker="o" if curve.marked or len(x) == 1 else "",
            markersize=3.5,
        )
    last = max(step for curve in curves for step, _ in curve.points)
    for label, value, colour in levels:
        line = {"linewidth": 1.3, "linestyle": ":", "label": printable(label)}
        axes.plot([0, last], [value, value], color=colour_of(colour), **line)
    axes.margins(x=0.02, y=0.08)


def _dress(axes: Any, unit: str, curves: Sequence[Curve], *, log: bool, from_zero: bool) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator

    values = [v for c in curves for _, v in c.points]
    thousands, plain = EngFormatter(sep=""), FuncFormatter(lambda value, _: f"{value:.12g}")
    if log and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(LogLocator(subs=()))
    elif from_zero:
        axes.set_ylim(0, max(values) * 1.08 or 1)
    axes.yaxis.set_major_formatter(thousands if max(values) >= 10_000 else plain)
    axes.xaxis.set_major_formatter(thousands)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlim(left=0)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel(unit, color=INK)
    framed(axes)
    shown = len(axes.get_legend_handles_labels()[0])
    if shown > 4:  # so many would cover the curves
        axes.figure.legend(loc="outside right center", frameon=False, labelcolor=INK, fontsize=9)
    elif shown > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def framed(axes: Any, ink: str = INK, line: str = LINE) -> None:
    """A grid behind the curves, a line below and no box: in colours that the page replaces, or in
    the given ones where a plot stands for itself."""
    axes.grid(True, color=line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=ink, length=0, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(line)


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most ``most`` points with the same outline: of each stretch the lowest and the highest.

    Short peaks stay visible, which an average or every n-th point would hide.
    """
    if len(points) <= most:
        return list(points)
    stretches = max(1, (most - 2) // 2)
    kept = {0, len(points) - 1}
    for i in range(stretches):
        first = i * len(points) // stretches
        end = (i + 1) * len(points) // stretches
        inside = range(first, end)
        kept.add(min(inside, key=lambda j: points[j][1]))
        kept.add(max(inside, key=lambda j: points[j][1]))
    return [points[j] for j in sorted(kept)]


def smoothed(points: Points, window: int) -> Points:
    """The mean of each point and up to ``window - 1`` before it; never of points to come."""
    total, found = 0.0, []
    for i, (step, value) in enumerate(points):
        total += value
        if i >= window:
            total -= points[i - window][1]
        found.append((step, total / min(i + 1, window)))
    return found


def with_trend(label: str, points: Points, colour: int) -> list[Curve]:
    """A noisy curve: faint as it is, and its running mean over 1/40 of its length in front."""
    window = math.ceil(len(points) / 40)
    if window < 2:
        return [Curve(label, points, colour)]
    return [
        Curve(label, points, colour, faint=True),
        Curve(f"{label} (mean of {window})", smoothed(points, window), colour),
    ]


def _inline(svg: str, name: str, title: str) -> str:
    """The ``<svg>`` alone: the page's colours and font, ids that are unique, a title, no size."""
    svg = svg[svg.index("<svg") :]
    # matplotlib's style sheet would apply to the whole page
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # inside of tags alone: a label may hold anything
    svg = re.sub(r"<[^>]*>", lambda tag: _tag(tag.group(), name), svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)  # one line: matplotlib breaks paths at every point
    label = html.escape(printable(title), quote=True)
    viewbox = re.search(r'viewBox="[^"]*"', svg).group()
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {viewbox} role="img" aria-label="{label}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip()


def _tag(tag: str, name: str) -> str:
    for written, stands in _COLOURS.items():
        tag = tag.replace(written, stands)
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-")
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', tag)
    tag = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", tag)
    tag = re.sub(r"font: (\d+(?:\.\d+)?px) [^;\"]*", r"font: \1 var(--sans)", tag)
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}", tag)

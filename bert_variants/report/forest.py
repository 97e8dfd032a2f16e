"""A forest plot: differences to a baseline, one below the other, with their intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from bert_variants.report.cells import printable
from bert_variants.report.plots import INK, LINE, colour_of, drawn


@dataclasses.dataclass(frozen=True)
class Difference:
    """A line of the plot.

    Attributes:
        label: stands at the left.
        value: the difference; not finite: nothing is drawn but the label and ``remark``.
        inner: 95 % of this difference alone, drawn thick.
        outer: holds for all lines together, drawn thin.
        colour: 0 .. 5, the page's; None: the ink.
        remark: stands at the right.
    """

    label: str
    value: float
    inner: tuple[float, float]
    outer: tuple[float, float]
    colour: int | None = None
    remark: str = ""


def forest(
    name: str, lines: Sequence[Difference], *, title: str, unit: str, width: float = 9.4
) -> str:
    """An SVG element; empty if no line has a value.

    Args:
        name: unique on the page.
        lines: from the top.
        title: says what is shown, also to screen readers.
        unit: label of the axis; say which side is better.
        width: in inches.
    """
    if not any(math.isfinite(line.value) for line in lines):
        return ""

    def draw(axes: Any) -> None:
        for place, line in enumerate(lines):
            _line(axes, -place, line)
        axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(-len(lines) + 0.4, 0.6)
        axes.set_yticks([-i for i in range(len(lines))], [printable(x.label) for x in lines])
        right = axes.secondary_yaxis("right")
        right.set_yticks([-i for i in range(len(lines))], [printable(x.remark) for x in lines])
        axes.set_xlabel(unit, color=INK)
        axes.grid(True, axis="x", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in (axes, right):
            side.tick_params(colors=INK, length=0, which="both")
            for spine in side.spines.values():
                spine.set_visible(False)
        axes.margins(x=0.06)

    return drawn(name, draw, title=title, size=(width, 0.9 + 0.3 * len(lines)))


def _line(axes: Any, y: int, line: Difference) -> None:
    if not math.isfinite(line.value):
        return
    colour = INK if line.colour is None else colour_of(line.colour)
    for bounds, width in ((line.outer, 1.2), (line.inner, 4.0)):
        if all(map(math.isfinite, bounds)):
            axes.plot(
                bounds, [y, y], color=colour, linewidth=width, solid_capstyle="butt", alpha=0.75
            )
    axes.plot([line.value], [y], color=colour, marker="o", markersize=7)

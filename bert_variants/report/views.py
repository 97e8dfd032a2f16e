"""Views of a corruption: the rows before and after it, in a terminal or on a page."""

from __future__ import annotations

import dataclasses
import html as html_text
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bert_variants.report.cells import Cell, as_dicts, cells, printable
from bert_variants.report.realised import Statistics, describe, statistics
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.types import Corrupted, Vocab

__all__ = [
    "Cell",
    "Statistics",
    "as_dicts",
    "as_json",
    "cells",
    "describe",
    "html",
    "html_rows",
    "printable",
    "statistics",
    "terminal",
    "terminal_rows",
]

# what happened -> (mark below the token, style in a terminal, what the legend says)
MARKS = {
    "masked": ("^", "bold red", "reads the mask token"),
    "replaced": ("~", "bold yellow", "reads another token"),
    "unchanged": ("=", "bold green", "reads the same, is predicted"),
    "moved": (">", "bold cyan", "was moved"),
    "kept": (" ", "", "not touched"),
    "special": (" ", "dim", "special"),
    "padding": (" ", "dim", "padding"),
}
LEGEND = ("masked", "replaced", "unchanged", "moved")
_PIPE_WIDTH = 100  # columns where there is no terminal


def as_json(
    rows: Corrupted, tokenizer: Tokenizer, vocab: Vocab, *, shown: int = 3
) -> dict[str, Any]:
    """What a run keeps as ``views.json``: the first rows, and statistics over all of them."""
    return {
        "rows": as_dicts(rows, tokenizer)[:shown],
        "statistics": dataclasses.asdict(statistics(rows, vocab)),
    }


def terminal(
    rows: Corrupted, tokenizer: Tokenizer, *, width: int | None = None, colour: bool | None = None
) -> str:
    """Rows for a terminal: the original tokens, what the model reads, and a mark below each change.

    Without colour nothing is lost::

        row 1  example 4711  visit 0  2 of 6 tokens predicted
          [CLS]  the  cat   ##s   ran  [SEP]
          [CLS]  the  cat  [MASK] ran  [SEP]
                           ^^^^^^ ===

    Args:
        rows: as numpy arrays.
        tokenizer: for the spellings.
        width: columns; None: the terminal's, or 100.
        colour: None: if standard output is a terminal that shows it.
    """
    dicts = as_dicts(rows, tokenizer)
    headed = [(_heading(number, row), row) for number, row in enumerate(dicts, 1)]
    return terminal_rows(headed, width=width, colour=colour)


def terminal_rows(
    headed: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    width: int | None = None,
    colour: bool | None = None,
) -> str:
    """Rows from ``as_dicts``, each below a heading, with one legend; otherwise as ``terminal``."""
    real = Console()
    if colour is None:
        colour = real.is_terminal and not real.no_color
    if width is None:
        width = real.width if real.is_terminal else _PIPE_WIDTH
    out = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system=(real.color_system or "standard") if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    for heading, row in headed:
        out.print(heading, style="bold", markup=False, overflow="fold")
        for line in _lines(list(_columns(cells(row))), width - 2):
            out.print(Text("  ") + line, no_wrap=True, overflow="ignore", crop=False)
        out.print()
    out.print(_legend([row for _, row in headed]))
    return "\n".join(line.rstrip() for line in out.file.getvalue().rstrip("\n").split("\n"))


def _heading(number: int, row: Mapping[str, Any]) -> str:
    labels = "".join(f"  {name} {value}" for name, value in row["labels"].items())
    return (
        f"row {number}  example {row['example_id']}  visit {row['visit']}{labels}  "
        f"{len(row['positions'])} of {sum(row['valid'])} tokens predicted"
    )


def _columns(row: Sequence[Cell]) -> Iterator[tuple[Text, Text, Text]]:
    """(before, after, mark) of each cell, equally wide; a run of padding is one column."""
    for padding, run in groupby(row, lambda cell: cell.happened == "padding"):
        run = list(run)
        shown = run[:1] if padding else run
        for cell in shown:
            mark, style, _ = MARKS[cell.happened]
            after = f"{cell.shown} x {len(run)}" if padding else cell.shown
            width = max(cell_len(cell.token), cell_len(after), 1)
            above = "" if padding else cell.token
            below = mark * cell_len(after) if mark != " " else ""
            if cell.predicted and cell.happened == "moved":
                below = "=" * cell_len(after)
            yield (
                _padded(above, width, "underline" if cell.predicted else "dim"),
                _padded(after, width, style),
                _padded(below, width, style),
            )


def _padded(text: str, width: int, style: str) -> Text:
    """``text`` in a style, then blanks without it: ``width`` columns in all."""
    return Text(text, style=style) + Text(" " * (width - cell_len(text)))


def _lines(columns: Sequence[tuple[Text, Text, Text]], width: int) -> Iterator[Text]:
    """Columns side by side in blocks of lines that fit ``width``; the third only if it marks."""
    block: list[tuple[Text, Text, Text]] = []
    used = 0
    for column in columns:
        wide = column[0].cell_len + 1
        if block and used + wide > width:
            yield from _block(block)
            block, used = [], 0
        block.append(column)
        used += wide
    if block:
        yield from _block(block)


def _block(block: Sequence[tuple[Text, Text, Text]]) -> Iterator[Text]:
    for parts in zip(*block, strict=True):
        line = Text(" ").join(parts)
        if line.plain.strip():
            yield line


def _legend(rows: Sequence[Mapping[str, Any]]) -> Text:
    happened = {what for row in rows for what in row["happened"]}
    legend = Text("above the text, below it what the model reads;")
    for name in LEGEND:
        if name in happened:
            mark, style, says = MARKS[name]
            legend.append("  ")
            legend.append(mark, style)
            legend.append(f" {says}")
    return legend


def html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows from ``as_dicts`` as HTML, for a page that has ``page.css``; everything is escaped."""
    return html_rows([(_heading(number, row), row) for number, row in enumerate(rows, 1)])


def html_rows(headed: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Rows from ``as_dicts``, each below a heading, with one legend; everything is escaped."""
    parts = [_html_legend([row for _, row in headed])]
    for heading, row in headed:
        parts.append(f'<p class="row-head">{html_text.escape(heading)}</p>')
        parts.append(f'<p class="row">{"".join(_html_cells(cells(row)))}</p>')
    return "\n".join(parts)


def _html_legend(rows: Sequence[Mapping[str, Any]]) -> str:
    happened = {what for row in rows for what in row["happened"]}
    items = [
        f'<span class="tok {name}">{MARKS[name][2]}</span>' for name in LEGEND if name in happened
    ]
    return f'<p class="legend">{" ".join(items)} <span>small: the original token</span></p>'


def _html_cells(row: Sequence[Cell]) -> Iterator[str]:
    escape = html_text.escape
    for padding, run in groupby(row, lambda cell: cell.happened == "padding"):
        run = list(run)
        if padding:
            yield f' <span class="tok padding">{escape(run[0].shown)} × {len(run)}</span>'
            continue
        for cell in run:
            gap = "" if cell.joins else " "
            said = [MARKS[cell.happened][2]]
            said += [f"target {cell.target}"] if cell.predicted else []
            said += [f"word {cell.word}"] if cell.word >= 0 else []
            said += [f"unit {cell.unit}"] if cell.unit >= 0 else []
            title = escape("; ".join(said), quote=True)
            inner = escape(cell.shown)
            if cell.token != cell.shown:
                inner = f"<ruby>{inner}<rt>{escape(cell.token)}</rt></ruby>"
            kind = cell.happened + (" predicted" if cell.predicted else "")
            yield f'{gap}<span class="tok {kind}" title="{title}">{inner}</span>'

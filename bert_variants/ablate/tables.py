"""Results as tables: text for a terminal, CSV for programs, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

from bert_variants.ablate.grid import lower_is_better
from bert_variants.ablate.results import Results
from bert_variants.ablate.statistics import Comparison, Interval

HEAD = ("arm", "seeds", "mean", "sd", "difference", "corrected 95 %", "seeds needed", "verdict")


def text(results: Results) -> str:
    """Every measure as a table to read, the one that decides first, and what went wrong below."""
    grid = results.grid
    cells = len(results.cells)
    parts = [
        f"grid {grid.name}: {len(grid.arms)} arms x {len(grid.seeds)} seeds, "
        f"{results.count('done')} of {cells} cells done, {results.count('failed')} failed"
    ]
    for number, measure in enumerate(grid.judged_by()):
        kind = "decides" if number == 0 else "beside it"
        better = "lower" if lower_is_better(measure) else "higher"
        rows = [row(results.comparisons[measure][arm]) for arm in grid.arms]
        parts.append(f"{measure} ({kind}; {better} is better)\n{aligned([HEAD, *rows])}")
    parts.append(conclusion(results))
    wrong = [f"  {c.cell}: {c.message}" for c in results.cells if c.state == "failed"]
    if wrong:
        parts.append("\n".join(["failed:", *wrong]))
    open_cells = [
        f"  {c.cell}: {c.state}, step {c.step:,}"
        for c in results.cells
        if c.state in ("unfinished", "waiting")
    ]
    if open_cells:
        parts.append("\n".join(["not finished:", *open_cells]))
    return "\n\n".join(parts) + "\n"


def conclusion(results: Results) -> str:
    """What the measure that decides allows to be said, in a sentence or two."""
    grid, found = results.grid, results.primary
    judged = {arm: c for arm, c in found.items() if arm != grid.baseline}
    lines = []
    for verdict in ("better", "worse"):
        names = [arm for arm, c in judged.items() if c.verdict == verdict]
        if names:
            lines.append(f"{verdict.capitalize()} than {grid.baseline}: {', '.join(names)}.")
    if sum(c.verdict == "better" for c in judged.values()) > 1:
        lines.append("Which of the better ones is best was not tested.")
    names = [arm for arm, c in judged.items() if c.verdict == "not shown"]
    if names:
        lines.append(
            f"No difference to {grid.baseline} is shown for {', '.join(names)}: "
            "that is not the same as there being none."
        )
    names = [f"{arm} ({c.reason})" for arm, c in judged.items() if c.verdict == "not judged"]
    if names:
        lines.append(f"Not judged: {', '.join(names)}.")
    return " ".join(lines)


def row(c: Comparison) -> tuple[str, ...]:
    """A comparison as the cells of a table; a dash where there is nothing to say."""
    base = c.reason == "the baseline"
    return (
        c.arm,
        str(len(c.values)),
        number(c.mean),
        number(c.sd),
        "" if base else number(c.difference, "+.4f"),
        "" if base else bounds(c.corrected),
        "" if base else ("–" if c.seeds_needed is None else f"{c.seeds_needed:,}"),
        c.reason if base else said(c),
    )


def said(c: Comparison) -> str:
    """The verdict in words."""
    return c.verdict if not c.reason else f"{c.verdict}: {c.reason}"


def number(value: float, spec: str = ".4f") -> str:
    """A number, or a dash for none."""
    return format(value, spec) if math.isfinite(value) else "–"


def bounds(interval: Interval) -> str:
    """``[-0.0123, +0.0045]``; a dash where there is no bound."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return "–"
    return f"[{interval.low:+.4f}, {interval.high:+.4f}]"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of text: the first and the last to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    lines = []
    for one in rows:
        parts = [
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(one, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(f"  {line}" for line in lines)


# What a comparison is in a CSV file, in full precision.
COLUMNS = (
    *("measure", "decides", "arm", "baseline", "seeds", "mean", "sd", "pairs", "difference"),
    *("spread", "low", "high", "corrected_low", "corrected_high", "bootstrap_low"),
    *("bootstrap_high", "p", "p_holm", "seeds_needed", "verdict", "reason", "tokens", "flops"),
)


def csv_comparisons(results: Results) -> str:
    """One line for each measure and arm; empty where there is nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, measure in enumerate(results.grid.judged_by()):
        for arm, c in results.comparisons[measure].items():
            terms = results.terms.get(arm)
            writer.writerow(
                [
                    *(measure, int(place == 0), arm, results.grid.baseline, len(c.values)),
                    *(_plain(c.mean), _plain(c.sd), len(c.pairs), _plain(c.difference)),
                    *(_plain(c.spread), _plain(c.interval.low), _plain(c.interval.high)),
                    *(_plain(c.corrected.low), _plain(c.corrected.high)),
                    *(_plain(c.bootstrap.low), _plain(c.bootstrap.high)),
                    *(_plain(c.p), _plain(c.p_holm)),
                    "" if c.seeds_needed is None else c.seeds_needed,
                    *(c.verdict, c.reason),
                    "" if terms is None else terms.tokens,
                    "" if terms is None else terms.flops,
                ]
            )
    return out.getvalue()


def csv_cells(results: Results) -> str:
    """One line a cell: where it lies, how it ended, and its result on every measure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    measures = results.grid.judged_by()
    writer.writerow(["arm", "seed", "state", "step", "tokens", "run_dir", "message", *measures])
    for one in results.cells:
        values = [_plain(one.values[m]) if m in one.values else "" for m in measures]
        where = relative(results, one.cell.dir)
        about = (one.cell.arm, one.cell.seed, one.state, one.step, one.tokens, where, one.message)
        writer.writerow([*about, *values])
    return out.getvalue()


def relative(results: Results, folder: Path) -> str:
    """A cell's directory as seen from the grid's."""
    return folder.relative_to(results.grid.dir).as_posix()


def _plain(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def latex(results: Results) -> str:
    """A ``tabular`` for each measure; needs no package."""
    parts = []
    for place, measure in enumerate(results.grid.judged_by()):
        rows = [row(results.comparisons[measure][arm]) for arm in results.grid.arms]
        note = "decides" if place == 0 else "beside it"
        lines = [
            f"% {results.grid.name}: {_comment(measure)} ({note})",
            r"\begin{tabular}{lrrrrrrl}",
            r"\hline",
            _line(HEAD),
            r"\hline",
            *(_line(one) for one in rows),
            r"\hline",
            r"\end{tabular}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(tex(cell) for cell in cells) + r" \\"


def tex(value: str) -> str:
    """Text as LaTeX; a number's sign as a minus."""
    made = "".join(_LATEX.get(c, c) for c in value)
    return re.sub(r"(?<![\w.])([+-])(\d)", r"$\1$\2", made)


def _comment(value: str) -> str:
    return re.sub(r"\s+", " ", value)

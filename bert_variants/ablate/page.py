"""A grid's page: one HTML file that opens offline, and the same results as text, CSV and LaTeX.

Every number stands beside the directories that it was computed from; links are relative, so the
page moves with its directory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from bert_variants import config
from bert_variants.ablate import sections, tables
from bert_variants.ablate.grid import PLL, Grid, lower_is_better
from bert_variants.ablate.results import Results, bands
from bert_variants.ablate.statistics import Comparison
from bert_variants.report.forest import Difference, forest
from bert_variants.report.markup import document, escape, grid, section
from bert_variants.report.plots import SERIES, Curve, plot
from bert_variants.train import record

NAME = "report.html"
BETTER, WORSE = 2, 1  # of the page's colours

METHOD = (
    "Arms are paired by seed: a seed decides initial parameters, order of rows and masks, and its "
    "luck cancels in the difference to the baseline. Intervals are Student’s t on these paired "
    "differences; with so few seeds no resampling has 95 % coverage (three values: the percentile "
    "bootstrap has about 70 %, the studentised one no bound at all). The corrected interval holds "
    "for all arms of a measure together (Bonferroni), and a verdict needs it to exclude 0. Beside "
    "it: the interval of each difference alone, the symmetric bootstrap-t where it has a bound, "
    "and Holm’s adjusted p. Only the first measure decides; the others are shown beside it and "
    "are not corrected for there being several measures. Seeds needed: for a power of 80 % at the "
    "corrected level, were the difference exactly what was seen."
)


def write(results: Results) -> Path:
    """Write the page and the tables into the grid's directory; return the page's path."""
    folder = results.grid.dir
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("table.txt", tables.text(results)),
        ("table.csv", tables.csv_comparisons(results)),
        ("cells.csv", tables.csv_cells(results)),
        ("table.tex", tables.latex(results)),
        (NAME, render(results)),
    ):
        record.write_bytes(folder / name, text.encode())
    return folder / NAME


def render(results: Results) -> str:
    """The page as text. The same results give the same bytes."""
    title = f"ablation: {results.grid.name}"
    body = [
        _header(results, title),
        _verdict(results),
        *(_measure(results, place, m) for place, m in enumerate(results.grid.judged_by())),
        sections.equal_terms(results),
        sections.arms(results),
        sections.cells(results),
        section("How this was judged", f'<p class="note">{escape(METHOD)}</p>'),
        "<footer>Written by bert_variants. This file needs no network.</footer>",
    ]
    return document(title, "\n".join(part for part in body if part))


def _header(results: Results, title: str) -> str:
    base = results.grid.base
    kind = f"{base.model} · {base.data.source} · {base.data.tokenizer}"
    return (
        f'<header><h1>{escape(title)}</h1>\n<p class="kind mono">{escape(kind)}</p>\n'
        f"{grid(_facts(results))}</header>"
    )


def _facts(results: Results) -> Iterable[tuple[str, str, str]]:
    one = results.grid
    steps, rows = one.base.run.steps, one.base.run.batch
    yield "arms", str(len(one.arms)), f"baseline {one.baseline}"
    yield "seeds", str(len(one.seeds)), ", ".join(map(str, one.seeds))
    done, failed = results.count("done"), results.count("failed")
    remark = f"{failed} failed" if failed else "none failed"
    yield "cells done", f"{done} of {len(results.cells)}", remark
    yield "steps a cell", f"{steps:,}", f"of {rows} rows of {one.base.data.length} tokens"
    hours = sum(c.seconds for c in results.cells) / 3600
    yield "time of all cells", f"{hours:.2f} h", ", ".join(sections.devices(results))


def _verdict(results: Results) -> str:
    one = results.grid
    told = [f"<p><b>{escape(tables.conclusion(results))}</b></p>"]
    if one.claim:
        number = f" <b>{escape(one.number)}</b>" if one.number else ""
        told.append(f'<p class="note">The paper: {escape(one.claim)}{number}</p>')
    if one.compares:
        told.append(f'<p class="note">Compared here: {escape(one.compares)}</p>')
    if results.count("done") < len(results.cells):
        told.append(
            '<p class="problem">Not every cell is done: '
            f"{results.count('failed')} failed, {results.count('unfinished')} unfinished, "
            f"{results.count('waiting')} not begun. See “Cells” below.</p>"
        )
    return section("What can be concluded", *told)


def _measure(results: Results, place: int, measure: str) -> str:
    """A table, and its two figures: large for the measure that decides, side by side for others."""
    found = [results.comparisons[measure][arm] for arm in results.grid.arms]
    better = "lower" if lower_is_better(measure) else "higher"
    role = "This measure decides." if place == 0 else "Beside the measure that decides."
    figures = [
        _figure("Difference to the baseline", _forest(results, place, measure, found)),
        _figure(
            "Learning curves: mean over seeds, band from lowest to highest",
            _curves(results, place, measure),
        ),
    ]
    kind = "plots wide" if place == 0 else "plots"
    return section(
        measure,
        f'<p class="note">{role} {better.capitalize()} is better. {escape(_meaning(measure))}</p>',
        sections.comparisons(results, measure, found),
        f'<div class="{kind}">{"".join(figures)}</div>' if any(figures) else "",
    )


def _meaning(measure: str) -> str:
    """What a measure is, in a sentence; the probe's name stands before the last two slashes."""
    probe, _, kind = measure.rsplit("/", 2)
    what = "mean of -log p, in nats," if kind == "loss" else "share of right first guesses"
    if probe == PLL:
        return f"Pseudo-log-likelihood: {what} of held-out tokens, each given all the others."
    return f"Held-out rows under the fixed masks of {probe}: {what} of the masked tokens."


def _figure(caption: str, svg: str) -> str:
    if not svg:
        return ""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _forest(results: Results, place: int, measure: str, found: Sequence[Comparison]) -> str:
    lines = [
        Difference(
            label=c.arm,
            value=c.difference,
            inner=(c.interval.low, c.interval.high),
            outer=(c.corrected.low, c.corrected.high),
            colour={"better": BETTER, "worse": WORSE}.get(c.verdict),
            remark=tables.said(c) if math.isfinite(c.difference) else c.reason,
        )
        for c in found
        if c.arm != results.grid.baseline
    ]
    side = "left" if lower_is_better(measure) else "right"
    unit = f"difference to {results.grid.baseline}: {side} of 0 is better"
    if place == 0:
        unit += "; thick: 95 % of one, thin: 95 % of all together"
    else:  # half as wide: the table above says the verdicts
        lines = [dataclasses.replace(line, remark="") for line in lines]
    width = 9.4 if place == 0 else 6.2
    title = f"{measure}: differences"
    return forest(f"forest-{place}", lines, title=title, unit=unit, width=width)


def _curves(results: Results, place: int, measure: str) -> str:
    curves = [
        Curve(
            label=band.arm if band.seeds > 1 else f"{band.arm} (1 seed)",
            points=band.mean,
            colour=number % SERIES,
            dashed=number >= SERIES,
            marked=True,
            band=[(s, low, high) for (s, low), (_, high) in zip(band.low, band.high, strict=True)],
        )
        for number, band in enumerate(bands(results, measure))
    ]
    unit = "nats" if lower_is_better(measure) else "share"
    size = (9.4, 3.6) if place == 0 else (6.2, 3.4)
    return plot(f"curves-{place}", curves, title=f"{measure} over steps", unit=unit, size=size)


def as_json(one: Grid, command: Sequence[str]) -> dict[str, object]:
    """What is compared, as plain values: ``grid.json`` beside the page."""
    return {
        "name": one.name,
        "command": list(command),
        "claim": one.claim,
        "number": one.number,
        "compares": one.compares,
        "baseline": one.baseline,
        "seeds": list(one.seeds),
        "measures": list(one.judged_by()),
        "arms": {name: dict(overrides) for name, overrides in one.arms.items()},
        "base": config.to_dict(one.base),
    }

"""Tables of a grid's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bert_variants.ablate import tables
from bert_variants.ablate.results import CellResult, Results
from bert_variants.ablate.statistics import Comparison
from bert_variants.report import page as run_page
from bert_variants.report.markup import escape, section, table

_COLUMNS = (
    *("arm", "seeds", "mean", "sd", "difference", "95 % of one", "95 % of all"),
    *("seeds needed", "verdict"),
)
_MORE = (
    *("arm", "pairs", "sd of differences", "95 % by bootstrap-t", "p of one"),
    *("p of all (Holm)",),
)


def comparisons(results: Results, measure: str, found: Sequence[Comparison]) -> str:
    """A measure's table; each seed links to its run. Folded away below: the other statistics."""
    rows = [_comparison(results, c) for c in found]
    more = [_statistics(c) for c in found if c.arm != results.grid.baseline]
    return (
        _table(_COLUMNS, rows, numbers=range(1, len(_COLUMNS) - 1))
        + "<details><summary>more statistics</summary>"
        + _table(_MORE, more, numbers=range(1, len(_MORE)))
        + "</details>"
    )


def _comparison(results: Results, c: Comparison) -> str:
    cells = [one for one in results.of(c.arm) if one.cell.seed in c.values]
    links = " ".join(_link(results, one, str(one.cell.seed)) for one in cells) or "–"
    values = [
        f'<td class="n">{links}</td>',
        _n(tables.number(c.mean), "best"),
        _n(tables.number(c.sd)),
    ]
    if c.arm == results.grid.baseline:
        values += [*[_n("")] * 4, "<td>the baseline</td>"]
    else:
        needed = c.seeds_needed
        values += [
            _n(tables.number(c.difference, "+.4f"), "best"),
            _n(tables.bounds(c.interval)),
            _n(tables.bounds(c.corrected), "best"),
            _n("–" if needed is None else f"{needed:,}"),
            f'<td class="verdict">{escape(tables.said(c))}</td>',
        ]
    return f'<tr><td class="mono">{escape(c.arm)}</td>{"".join(values)}</tr>'


def _statistics(c: Comparison) -> str:
    tested = len(c.pairs) > 1
    values = (
        *(str(len(c.pairs)), tables.number(c.spread), tables.bounds(c.bootstrap)),
        tables.number(c.p, ".4f") if tested else "–",
        tables.number(c.p_holm, ".4f") if tested else "–",
    )
    cells = "".join(_n(value) for value in values)
    return f'<tr><td class="mono">{escape(c.arm)}</td>{cells}</tr>'


def equal_terms(results: Results) -> str:
    """Tokens seen and operations of each arm, beside what was really logged."""
    if not results.terms:
        return ""
    base = results.terms[results.grid.baseline]
    rows = []
    for arm, terms in results.terms.items():
        done = [c for c in results.of(arm) if c.state == "done"]
        seconds = [c.seconds for c in done if c.seconds]
        seen = sorted({c.tokens for c in done})
        rows.append(
            f'<tr><td class="mono">{escape(arm)}</td>'
            + _n(f"{terms.tokens:,}")
            + _n(", ".join(f"{t:,}" for t in seen) or "–")
            + _n(f"{terms.flops:.4g}")
            + _n(f"{terms.flops / base.flops:.3f}")
            + _n(f"{terms.parameters:,}")
            + _n(str(terms.predictions))
            + _n(f"{sum(seconds) / len(seconds):,.0f}" if seconds else "–")
            + "</tr>"
        )
    head = (
        *("arm", "tokens planned", "tokens seen", "training FLOPs", "of the baseline’s"),
        *("parameters", "predictions a row", "seconds a cell"),
    )
    note = (
        "Tokens include padding. FLOPs are those of the matrix products of all training steps, "
        "counted in the traced program. "
    ) + (
        "Arms do equal work: one whose step costs more makes fewer of them and sees fewer tokens."
        if results.grid.equal == "flops"
        else "Arms see equal tokens; where their FLOPs differ, equal tokens are not equal compute."
    )
    return section(
        "Equal terms",
        f'<p class="note">{note}</p>',
        _table(head, rows, numbers=range(1, len(head))),
    )


def arms(results: Results) -> str:
    """What each arm changes of the base."""
    rows = [
        (name, path, str(value))
        for name, overrides in results.grid.arms.items()
        for path, value in (overrides.items() or [("–", "as the base")])
    ]
    base = results.grid.base
    note = (
        f"Base: corruption {base.corruption}, example {base.data.example}, objectives "
        f"{base.objectives}, optimizer {base.optim.optimizer}, peak rate {base.optim.lr:g}."
    )
    return section(
        "Arms", f'<p class="note">{escape(note)}</p>', table(("arm", "field", "value"), rows)
    )


def cells(results: Results) -> str:
    """Every cell: how it ended, its numbers, and where it lies."""
    measures = results.grid.judged_by()
    rows = []
    for one in results.cells:
        where = tables.relative(results, one.cell.dir)
        values = [_n(tables.number(one.values.get(measure, math.nan))) for measure in measures]
        kind = "" if one.state == "done" else ' class="changed"'
        state = one.state if not one.message else f"{one.state}: {one.message}"
        rows.append(
            f'<tr{kind}><td class="mono">{_link(results, one, where)}</td>'
            f"<td>{escape(state)}</td>{_n(f'{one.step:,}')}{''.join(values)}</tr>"
        )
    told = sorted({f"{k} {v[:12]}" for c in results.cells for k, v in c.fingerprints.items()})
    note = (
        "A run’s directory holds its config, metrics, checkpoints and page. All cells were made "
        f"from the same text and judged on the same rows and masks: {', '.join(told)}."
        if told
        else "Nothing was trained yet."
    )
    head = ("run", "state", "step", *measures)
    return section(
        "Cells",
        f'<p class="note">{escape(note)}</p>',
        _table(head, rows, numbers=range(2, len(head))),
    )


def devices(results: Results) -> list[str]:
    """Kinds of devices that cells were trained on."""
    return sorted({c.device for c in results.cells if c.device})


def _link(results: Results, one: CellResult, label: str) -> str:
    """To the run's page if it has one, else to its directory; relative to the grid's page."""
    where = Path(tables.relative(results, one.cell.dir))
    if not one.cell.dir.is_dir():
        return escape(label)
    has_page = (one.cell.dir / run_page.NAME).is_file()
    target = (where / run_page.NAME if has_page else where).as_posix()
    return f'<a href="{escape(target if has_page else target + "/")}">{escape(label)}</a>'


def _n(value: str, kind: str = "") -> str:
    return (
        f'<td class="n {kind}">{escape(value)}</td>'
        if kind
        else f'<td class="n">{escape(value)}</td>'
    )


def _table(head: Sequence[str], rows: Sequence[str], *, numbers: range) -> str:
    heads = "".join(
        f'<th class="n">{escape(text)}</th>' if i in numbers else f"<th>{escape(text)}</th>"
        for i, text in enumerate(head)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )

"""A run's page: one HTML file that opens offline; no scripts, no fonts or pictures from elsewhere.

Everything that stands in a run's files (names, tokens, texts, versions) is escaped, and the page's
own policy forbids it to load or run anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bert_variants.report import curves, gallery, provenance, views
from bert_variants.report.markup import bar, document, escape, grid, section
from bert_variants.report.run import Judgement, Run, judgements, read

NAME = "report.html"


def write(run_dir: Path) -> Path:
    """Write ``report.html`` into a run's directory and return its path.

    Raises:
        ReportError: no run's directory.
        OSError: it cannot be written.
    """
    path = run_dir / NAME
    part = path.with_name(NAME + ".part")
    part.write_text(render(read(run_dir)), encoding="utf-8")
    part.replace(path)
    return path


def render(run: Run) -> str:
    """The page of a run as text. The same run gives the same bytes."""
    name = str(run.field("name") or run.folder.name)
    sections = [
        _header(run, name),
        *(f'<p class="problem">{escape(problem)}</p>' for problem in run.problems),
        _held_out(run),
        _curves(run),
        _optional(_masks, run, "views.json"),
        _optional(_gallery, run, gallery.FILE),
        _optional(_fill_mask, run, "fill_mask.json"),
        provenance.settings(run),
        provenance.environment(run),
        "<footer>Written by bert_variants. This file needs no network.</footer>",
    ]
    body = "\n".join(section for section in sections if section)
    return document(name, body)


def _header(run: Run, name: str) -> str:
    made = " · ".join(
        escape(run.config[field])
        for field in ("model", "corruption", "objectives")
        if field in run.config
    )
    return (
        f"<header><h1>{escape(name)}</h1>\n"
        f'<p class="kind mono">{made}</p>\n{grid(_facts(run))}</header>'
    )


def _facts(run: Run) -> Iterable[tuple[str, str, str]]:
    """(label, value, remark) of what one wants to know first."""
    step = max([*run.train, *run.held_out], default=0)
    of = run.field("run.steps")
    yield "steps", f"{step:,}", f"of {of:,}" if isinstance(of, int) else ""
    tokens = run.series("tokens")
    if tokens:
        yield "tokens seen", _short(tokens[-1][1]), "padding included"
    seconds = _elapsed(run.series("seconds"))
    if seconds:
        yield "time logged", _duration(seconds), ""
    speed = sorted(value for _, value in run.series("tokens_per_second"))
    if speed:
        yield "tokens a second", _short(speed[len(speed) // 2]), "median"
    rows = judgements(run.last()[1])
    for row in rows[:1]:
        if row.objective == "mlm":
            remark = "" if row.baseline is None else f"unigram {row.baseline:.2f}"
            yield "held-out loss, nats", f"{row.loss:.2f}", remark
            if row.accuracy is not None:
                yield "held-out accuracy", f"{row.accuracy:.1%}", row.probe
    newest = run.starts[-1] if run.starts else {}
    for label in ("parameters", "devices"):
        if isinstance(newest.get(label), int):
            yield label, f"{newest[label]:,}", ""
    skipped = sum(1 for _, value in run.series("skipped") if value)
    if skipped:
        yield "lines with skipped steps", f"{skipped:,}", "non-finite loss or gradient"


def _elapsed(seconds: Sequence[tuple[float, float]]) -> float:
    """Time over all starts of a run: each start counts from 0 again."""
    total, before = 0.0, 0.0
    for _, now in seconds:
        total += now - before if now >= before else now
        before = now
    return total


def _held_out(run: Run) -> str:
    step, results = run.last()
    rows = judgements(results)
    if not rows:
        return ""
    fixed = [row for row in rows if row.probe != "held_out"]
    own = [row for row in rows if row.probe == "held_out"]
    note = (
        "The same held-out rows and the same masks for every run on this corpus, whatever it was "
        "trained on. Unigram: what a model scores that knows how often each token occurs and "
        "nothing of its context."
    )
    parts = [f'<p class="note">At step {step:,}. {note}</p>', _judged(fixed)] if fixed else []
    if own:
        parts += [
            '<p class="note">The run’s own objectives on held-out rows of its own kind, corrupted '
            "as in training; not comparable with runs that are corrupted otherwise.</p>",
            _judged(own),
        ]
    return section("Held-out results", *parts)


def _judged(rows: Sequence[Judgement]) -> str:
    """A table; the unigram's columns only where there is one."""
    based = any(row.baseline is not None for row in rows)
    head = ["loss, nats"]
    head += ["unigram loss", "gain, nats"] if based else []
    head += ["perplexity"] + (["unigram perplexity"] if based else []) + ["accuracy"]
    lines = []
    for row in rows:
        label = row.objective if row.probe == "held_out" else row.probe
        values = [f'<td class="n best">{row.loss:.3f}</td>']
        if based:
            values += [_number(row.baseline, ".3f"), _number(_gain(row), "+.3f")]
        perplexity = row.objective == "mlm"
        values.append(_number(_exp(row.loss) if perplexity else None, ",.1f"))
        if based:
            values.append(_number(_exp(row.baseline), ",.0f"))
        values.append(_accuracy(row.accuracy))
        lines.append(f'<tr><td class="mono">{escape(label)}</td>{"".join(values)}</tr>')
    heads = "".join(f'<th class="n">{escape(h)}</th>' for h in head)
    first = "objective" if rows[0].probe == "held_out" else "masks"
    return (
        f'<div class="scroll"><table><thead><tr><th>{first}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _gain(row: Judgement) -> float | None:
    return None if row.baseline is None else row.baseline - row.loss


def _exp(loss: float | None) -> float | None:
    return None if loss is None or loss > 700 else math.exp(loss)


def _number(value: float | None, spec: str) -> str:
    return f'<td class="n">{"–" if value is None else format(value, spec)}</td>'


def _accuracy(share: float | None) -> str:
    if share is None:
        return '<td class="n">–</td>'
    return f'<td class="n">{share:.1%}{bar(share)}</td>'


def _curves(run: Run) -> str:
    plots = curves.of(run)
    if not plots:
        return ""
    figures = "".join(
        f"<figure><figcaption>{escape(plot.title)}</figcaption>{plot.svg}</figure>"
        for plot in plots
    )
    return section("Curves", f'<div class="plots">{figures}</div>')


def _optional(part: Callable[[Run], str], run: Run, file: str) -> str:
    """A section, or that its file does not hold what was expected: the page goes on without it."""
    try:
        return part(run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f'<p class="problem">{file} is not what was expected: {escape(repr(error))}</p>'


def _masks(run: Run) -> str:
    if not run.views:
        return ""
    parts = [f'<p class="note mono">{escape(run.field("corruption") or "")}</p>']
    measured = run.views.get("statistics")
    if measured:
        parts.append(grid(_realised(views.Statistics(**measured)), "facts small"))
    parts.append(views.html(run.views["rows"]))
    return section("What the model reads", *parts)


def _gallery(run: Run) -> str:
    if not run.gallery:
        return ""
    note = (
        '<p class="note">The same text under every registered corruption, whatever this run was '
        "trained with. Point at a token to see what happened to it.</p>"
    )
    pictures = f"<details><summary>show</summary>{gallery.html(run.gallery)}</details>"
    return section("All corruptions side by side", note, pictures)


def _realised(found: views.Statistics) -> Iterable[tuple[str, str, str]]:
    def percent(share: float | None) -> str:
        return "–" if share is None else f"{share:.1%}"

    yield "predicted tokens a row", f"{found.predicted:.1f}", f"over {found.rows:,} rows"
    yield (
        "predicted of all tokens",
        percent(found.of_valid),
        f"{percent(found.of_maskable)} of maskable",
    )
    yield "read the mask token", percent(found.masked), "of the predicted"
    yield "read another token", percent(found.replaced), "of the predicted"
    yield "read the same token", percent(found.unchanged), "of the predicted"
    yield "words predicted wholly", percent(found.whole_words), "of the words touched"
    yield "long words wholly", percent(found.whole_long_words), "of those of several tokens"
    if found.span_length is not None:
        yield "mean span", f"{found.span_length:.2f}", "tokens side by side"
    if found.moved is not None:
        yield "moved", percent(found.moved), "of all tokens"


def _fill_mask(run: Run) -> str:
    blocks = []
    for one in run.fill_mask:
        guesses = "".join(
            '<ul class="guesses">'
            + "".join(
                f"<li><b>{escape(g['token'])}</b> <span>{g['probability']:.1%}</span>"
                f"{bar(g['probability'])}</li>"
                for g in mask
            )
            + "</ul>"
            for mask in one["guesses"]
        )
        blocks.append(f'<div class="fill"><p>{escape(one["text"])}</p>{guesses}</div>')
    return section("Filled masks", *blocks) if blocks else ""


def _short(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

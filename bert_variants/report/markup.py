"""Pieces of HTML that the page is made of. Everything that is text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from bert_variants.report.cells import printable

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"


def escape(value: Any) -> str:
    """Text as HTML; what cannot be seen is written out."""
    return html.escape(printable(str(value)), quote=True)


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; empty parts are left out."""
    return (
        f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(p for p in parts if p) + "\n</section>"
    )


def grid(facts: Iterable[tuple[str, str, str]], kind: str = "facts") -> str:
    """(label, value, remark) side by side."""
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for label, value, remark in facts
    )
    return f'<dl class="{kind}">{cells}</dl>'


def bar(share: float) -> str:
    """A share in [0, 1] as a bar."""
    return f'<span class="bar"><i style="width:{min(max(share, 0), 1):.1%}"></i></span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """A table of text cells; it scrolls by itself where the window is narrow.

    Args:
        head: of the columns; none: no head.
        rows: text, escaped here.
        kinds: class of each row, in their order; none: no class.
    """
    heads = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = []
    for number, row in enumerate(rows):
        kind = f' class="{kinds[number]}"' if kinds and kinds[number] else ""
        cells = "".join(f'<td class="mono">{escape(text)}</td>' for text in row)
        lines.append(f"<tr{kind}>{cells}</tr>")
    top = f"<thead><tr>{heads}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def document(title: str, body: str) -> str:
    """A whole page: head, style and policy around ``body``, which is HTML already.

    The policy forbids the page to load or run anything.
    """
    style = resources.files("bert_variants.report").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )

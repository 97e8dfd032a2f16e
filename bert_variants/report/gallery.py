"""The same text under every corruption, one below the other: what each of them really does."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import jax
import numpy as np

from bert_variants import keys, registry
from bert_variants.report import views
from bert_variants.report.markup import escape
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.types import Batch, Corrupted, Vocab

TOKENS = 48  # of the row that is shown: what can be compared at a glance
FILE = "gallery.json"

Picture = Mapping[str, Any]


def pictures(
    batch: Batch,
    tokenizer: Tokenizer,
    vocab: Vocab,
    *,
    calls: Iterable[str] = (),
    tokens: int = TOKENS,
    seed: int = 0,
) -> list[Picture]:
    """The first row of a batch, cut to ``tokens``, under each corruption, as plain values.

    Args:
        batch: uncorrupted rows.
        tokenizer, vocab: of the text.
        calls: call-strings; none: every registered corruption with its own defaults.
        tokens: of the row at most.
        seed: of the masks.

    Returns:
        For each call ``{"call", "says", "row", "refused"}``: the call-string, the first sentence of
        its docstring, the row (see ``views.as_dicts``), and why it could not be drawn, or "".
    """
    row = _first(batch, tokens)
    row_keys = keys.corruption_keys(keys.root(seed), row, 0, 0)
    made = []
    for call in [*calls] or [f"{name}()" for name in registry.names("corruption")]:
        bound = registry.lookup("corruption", call)
        says = (inspect.getdoc(bound.entry.fn) or "").split("\n")[0].replace("``", "")
        said = {"call": call, "says": says}
        if "data.units" in bound.traits["needs"] and not (row.units_BT >= 0).any():
            made.append({**said, "row": None, "refused": "no units in this row: set data.units"})
            continue
        try:
            found = _corrupted(bound, row_keys, row, vocab)
        except ValueError as error:  # its own words on why it does not go with this text
            made.append({**said, "row": None, "refused": str(error)})
            continue
        made.append({**said, "row": views.as_dicts(found, tokenizer)[0], "refused": ""})
    return made


def _first(batch: Batch, tokens: int) -> Batch:
    """The first row alone and cut, as numpy arrays."""

    def cut(leaf: Any) -> Any:
        one = np.asarray(leaf)[:1]
        return one[:, :tokens] if one.ndim > 1 else one

    return jax.tree.map(cut, batch)


def _corrupted(bound: registry.Call, row_keys: Any, row: Batch, vocab: Vocab) -> Corrupted:
    # a row takes no time; a dozen programs would take half a minute to optimise
    function = jax.jit(
        lambda some_keys, rows: bound(some_keys, rows, vocab),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return jax.tree.map(np.asarray, function(row_keys, row))


def terminal(found: Sequence[Picture], **how: Any) -> str:
    """Pictures for a terminal; ``how`` as in ``views.terminal``."""
    drawn = [(_heading(one), one["row"]) for one in found if one["row"]]
    refused = [f"{one['call']}: {one['refused']}" for one in found if not one["row"]]
    return "\n".join([views.terminal_rows(drawn, **how), *refused])


def html(found: Sequence[Picture]) -> str:
    """Pictures for a page that has ``page.css``."""
    drawn = [(_heading(one), one["row"]) for one in found if one["row"]]
    return views.html_rows(drawn) if drawn else ""


def standalone(found: Sequence[Picture], title: str = "") -> str:
    """Pictures as a piece of HTML with its own style, for a cell of a notebook."""
    style = resources.files("bert_variants.report").joinpath("page.css").read_text("utf-8")
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"<style>{style}</style>{head}{html(found)}"


def _heading(one: Picture) -> str:
    predicted, valid = len(one["row"]["positions"]), sum(one["row"]["valid"])
    return f"{one['call']}  {one['says']}  ({predicted} of {valid})"

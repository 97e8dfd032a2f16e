"""Starting from parameters whose vocabulary is this run's, or a part of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bert_variants.text.tokenizer import Tokenizer
from bert_variants.types import Leaf

# Parameters with a row, or a number, for each token.
_ROWS = re.compile(r"(^|/)(word|table)/embedding$|^heads/\w+/bias$")


def places(theirs: Tokenizer, mine: Tokenizer) -> np.ndarray | None:
    """For each of their tokens its id here, where this vocabulary is theirs with more tokens.

    Theirs "[PAD] the cat", here "[PAD] the cat ##s dog": 0 1 2, and rows 3 and 4 are new.

    Returns:
        int64 [tokens of theirs]; None where it is not: another kind, other settings (lower case),
        or a token of theirs that this one has not.
    """
    if theirs.fingerprint == mine.fingerprint:
        return np.arange(len(theirs.tokens))
    if theirs.kind != mine.kind or not _same_settings(theirs, mine):
        return None
    ids = {token: number for number, token in enumerate(mine.tokens)}
    if not all(token in ids for token in theirs.tokens):
        return None
    return np.asarray([ids[token] for token in theirs.tokens])


def _same_settings(theirs: Tokenizer, mine: Tokenizer) -> bool:
    """Whether all files are the same but the vocabulary; a model of merges or scores has none."""
    files, others = theirs.files(), mine.files()
    return set(files) == set(others) and all(
        data == others[name] for name, data in files.items() if name != "vocab.txt"
    )


def of_rows(path: str, leaf: Leaf, rows: int) -> bool:
    """Whether a parameter has a row for each of ``rows`` tokens."""
    return bool(_ROWS.search(path)) and leaf.shape[0] == rows


def moved(
    params: Mapping[str, Leaf],
    fresh: Mapping[str, Leaf],
    here: np.ndarray,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """Their parameters with the rows of this run's vocabulary.

    Args:
        params: theirs, by path.
        fresh: this run's, as they would start: what new rows are.
        here: from ``places``.
        note: told how many rows are new, and how many of theirs are no token and are left.
    """
    tables = [leaf for path, leaf in params.items() if path.endswith("word/embedding")]
    mine = [leaf.shape[0] for path, leaf in fresh.items() if path.endswith("word/embedding")]
    if not tables or not mine:
        return dict(params)
    rows, new = tables[0].shape[0], mine[0] - len(here)
    if rows == mine[0] == len(here) and np.array_equal(here, np.arange(rows)):
        return dict(params)
    made = dict(params)
    for path, leaf in params.items():
        if of_rows(path, leaf, rows) and path in fresh and of_rows(path, fresh[path], mine[0]):
            made[path] = np.array(fresh[path])
            made[path][here] = np.asarray(leaf)[: len(here)]
    note(
        f"the vocabulary: {len(here):,} tokens keep their rows, {new:,} are new and start as in a "
        f"run from nothing"
        + (
            f"; {rows - len(here):,} rows there are no token's and are left"
            if rows > len(here)
            else ""
        )
    )
    return made

"""A corrupted row as plain values, and as cells to draw.

A row becomes a plain dict (``as_dicts``), which is what ``show --json`` prints and a run keeps as
``views.json``; ``cells`` reads that dict, and every drawing is made of cells. So what people look
at is what a program can check.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_variants.text.tokenizer import Tokenizer
from bert_variants.types import Corrupted

# what may happen to a token; the later ones hide the earlier ones
HAPPENINGS = ("kept", "special", "unchanged", "replaced", "masked", "moved", "padding")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One token of a row.

    Attributes:
        token: before the corruption, safe to print.
        shown: what the model reads there, safe to print.
        happened: one of ``HAPPENINGS``: "unchanged" is predicted although it reads as it was.
        predicted: whether the model must predict here.
        target: what it must predict, or None.
        word, unit: the word and the unit that the token belongs to, -1 for none.
        joins: whether it goes on with the word of the token before it.
    """

    token: str
    shown: str
    happened: str
    predicted: bool
    target: str | None
    word: int
    unit: int
    joins: bool


def as_dicts(rows: Corrupted, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Each row as plain values, to check a corruption from outside.

    A worked row, T=6, P=2 (one slot used)::

        tokens     [CLS] the  cat  ##s    ran  [SEP]     and token_ids likewise
        inputs     [CLS] the  cat [MASK]  ran  [SEP]     and input_ids
        happened   special kept kept masked kept special
        positions  [3]           where to predict: indices into the row, used slots only
        targets    ["##s"]       and target_ids
        weights    [1.0]
        slots      2             P
        spans      [[3, 4]]      start and end (exclusive) of what is predicted together
        words      -1 0 1 1 2 -1

    ``spans`` are those that the corruption names (``offset_BP``), else the runs of adjacent
    predicted positions. ``order``, ``moved``, ``packs``, ``left`` and ``right`` are there where the
    corruption or the rows have them.
    """
    names = _Names(tokenizer)
    return [_as_dict(rows, row, names) for row in range(len(np.asarray(rows.tokens_BT)))]


class _Names:
    """Spellings of ids, and which ids are special."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocab = tokenizer.vocab
        self.tokens, self.mask = tokenizer.tokens, vocab.mask
        self.specials = {*vocab.specials, vocab.pad, vocab.cls, vocab.sep, vocab.mask}
        self.continues = tokenizer.continues_word

    def __call__(self, ids: np.ndarray) -> list[str]:
        # rows that pad the vocabulary to a round size have no spelling
        known = len(self.tokens)
        return [self.tokens[i] if 0 <= i < known else f"<{i}>" for i in ids.tolist()]


def _as_dict(rows: Corrupted, row: int, names: _Names) -> dict[str, Any]:
    def at(array: Any) -> Any:  # numpy array, or scalar where there is one number a row
        return np.asarray(array)[row]

    used_P = at(rows.weights_BP) > 0
    tokens_T, inputs_T = at(rows.tokens_BT), at(rows.inputs_BT)
    at_p, targets_p = at(rows.at_BP)[used_P], at(rows.targets_BP)[used_P]
    offset_p = None if rows.offset_BP is None else at(rows.offset_BP)[used_P]
    tokens, words_T = names(tokens_T), at(rows.words_BT)
    found = {
        "example_id": int(at(rows.example_id_B)),
        "visit": int(at(rows.visit_B)),
        "labels": {name: at(values).tolist() for name, values in rows.labels.items()},
        "tokens": tokens,
        "inputs": names(inputs_T),
        "happened": _happened(rows, row, at_p, names),
        "positions": at_p.tolist(),
        "targets": names(targets_p),
        "weights": at(rows.weights_BP)[used_P].tolist(),
        "slots": len(used_P),
        "spans": [list(span) for span in spans_of(at_p, offset_p)],
        "words": words_T.tolist(),
        "units": at(rows.units_BT).tolist(),
        "segments": at(rows.segments_BT).tolist(),
        "valid": at(rows.valid_BT).astype(bool).tolist(),
        "maskable": at(rows.maskable_BT).astype(bool).tolist(),
        "joins": _joins(tokens, words_T, names),
        "token_ids": tokens_T.tolist(),
        "input_ids": inputs_T.tolist(),
        "target_ids": targets_p.tolist(),
    }
    for name, array in (
        ("order", rows.order_BT),
        ("moved", rows.moved_BT),
        ("packs", rows.packs_BT),
    ):
        if array is not None:
            found[name] = at(array).tolist()
    for name, array in (("left", rows.left_BP), ("right", rows.right_BP)):
        if array is not None:
            found[name] = at(array)[used_P].tolist()
    return found


def _happened(rows: Corrupted, row: int, at_p: np.ndarray, names: _Names) -> list[str]:
    tokens_T, inputs_T = np.asarray(rows.tokens_BT)[row], np.asarray(rows.inputs_BT)[row]
    predicted_T = np.zeros(len(tokens_T), bool)
    predicted_T[at_p] = True
    special_T = np.isin(tokens_T, list(names.specials)) & ~np.asarray(rows.maskable_BT)[row]
    # the last that holds counts
    marks: list[tuple[str, np.ndarray]] = [
        ("special", special_T),
        ("unchanged", predicted_T),
        ("replaced", inputs_T != tokens_T),
        ("masked", (inputs_T == names.mask) & (inputs_T != tokens_T)),
    ]
    if rows.moved_BT is not None:
        marks.append(("moved", np.asarray(rows.moved_BT)[row].astype(bool)))
    marks.append(("padding", ~np.asarray(rows.valid_BT)[row].astype(bool)))
    found = np.full(len(tokens_T), "kept", dtype=object)
    for name, where_T in marks:
        found[where_T] = name
    return found.tolist()


def _joins(tokens: list[str], words_T: np.ndarray, names: _Names) -> list[bool]:
    same = (words_T[1:] == words_T[:-1]) & (words_T[1:] >= 0)
    unknown = words_T < 0
    spelt = [bool(unknown[i]) and names.continues(tokens[i]) for i in range(1, len(tokens))]
    return [False, *(a or b for a, b in zip(same.tolist(), spelt, strict=True))]


def spans_of(at_p: np.ndarray, offset_p: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Runs of adjacent positions as (start, end); a span also begins where its offset is 0."""
    if not len(at_p):
        return []
    begins = np.diff(at_p, prepend=at_p[0] - 2) != 1
    if offset_p is not None:
        begins |= offset_p == 0
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(at_p)) - 1
    return [(int(at_p[a]), int(at_p[b]) + 1) for a, b in zip(first, last, strict=True)]


def cells(row: Mapping[str, Any]) -> list[Cell]:
    """The cells of a row from ``as_dicts``."""
    targets = dict(zip(row["positions"], row["targets"], strict=True))
    return [
        Cell(
            token=printable(row["tokens"][t]),
            shown=printable(row["inputs"][t]),
            happened=row["happened"][t],
            predicted=t in targets,
            target=printable(targets[t]) if t in targets else None,
            word=row["words"][t],
            unit=row["units"][t],
            joins=row["joins"][t],
        )
        for t in range(len(row["tokens"]))
    ]


def printable(token: str) -> str:
    r"""A token with what cannot be seen, or could steer a terminal, written out: ``\u2028``."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in token
    )

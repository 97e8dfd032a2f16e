"""What a corruption really did: rates over rows, counted after the fact."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bert_variants.report.cells import spans_of
from bert_variants.types import Corrupted, Vocab


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a corruption really did to some rows. Shares lie in [0, 1]; None where nothing counts.

    Attributes:
        rows: how many were looked at.
        predicted: mean number of predicted positions of a row.
        of_valid: predicted share of all tokens, special ones included, padding not.
        of_maskable: predicted share of the tokens that may be touched.
        masked, replaced, unchanged: of the predicted tokens, the share that the model reads as the
            mask token, as another token, as itself.
        whole_words: of the words with a predicted token, the share that is predicted wholly.
        whole_long_words: the same among words of two tokens or more.
        span_length: mean length of a span of predicted tokens.
        moved: share of valid tokens that were moved.
        full_rows: share of rows that use all P slots: where it is 1, P may be what limits the rate.
    """

    rows: int
    predicted: float
    of_valid: float | None
    of_maskable: float | None
    masked: float | None
    replaced: float | None
    unchanged: float | None
    whole_words: float | None
    whole_long_words: float | None
    span_length: float | None
    moved: float | None
    full_rows: float


def statistics(rows: Corrupted, vocab: Vocab) -> Statistics:
    """Realised rates over rows: numpy arrays, or arrays that numpy can read."""
    weights_BP, at_BP = np.asarray(rows.weights_BP), np.asarray(rows.at_BP)
    tokens_BT, inputs_BT = np.asarray(rows.tokens_BT), np.asarray(rows.inputs_BT)
    valid_BT = np.asarray(rows.valid_BT).astype(bool)
    used_BP = weights_BP > 0
    row, slot = np.nonzero(used_BP)
    predicted_BT = np.zeros(tokens_BT.shape, bool)
    predicted_BT[row, at_BP[row, slot]] = True
    read, was = inputs_BT[predicted_BT], tokens_BT[predicted_BT]
    count = len(read)
    masked = int(np.sum(read == vocab.mask))
    unchanged = int(np.sum((read == was) & (read != vocab.mask)))
    lengths = [
        end - start
        for b in range(len(tokens_BT))
        for start, end in spans_of(
            at_BP[b][used_BP[b]],
            None if rows.offset_BP is None else np.asarray(rows.offset_BP)[b][used_BP[b]],
        )
    ]
    size, hit = _word_counts(np.asarray(rows.words_BT), valid_BT, predicted_BT)
    touched, whole, long = hit > 0, hit == size, size > 1
    moved = None if rows.moved_BT is None else int(np.sum(np.asarray(rows.moved_BT) & valid_BT))
    return Statistics(
        rows=len(tokens_BT),
        predicted=count / max(1, len(tokens_BT)),
        of_valid=_share(count, valid_BT.sum()),
        of_maskable=_share(count, np.sum(np.asarray(rows.maskable_BT).astype(bool))),
        masked=_share(masked, count),
        replaced=_share(count - masked - unchanged, count),
        unchanged=_share(unchanged, count),
        whole_words=_share(np.sum(whole & touched), touched.sum()),
        whole_long_words=_share(np.sum(whole & touched & long), np.sum(touched & long)),
        span_length=_share(sum(lengths), len(lengths)),
        moved=None if moved is None else _share(moved, valid_BT.sum()),
        full_rows=float(np.mean(used_BP.all(axis=1))) if len(used_BP) else 0.0,
    )


def _word_counts(
    words_BT: np.ndarray, valid_BT: np.ndarray, predicted_BT: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every word of every row: how many tokens it has, and how many are predicted."""
    length = words_BT.shape[1]
    has = valid_BT & (words_BT >= 0)
    flat = (words_BT + np.arange(len(words_BT))[:, None] * length)[has]
    bins = len(words_BT) * length
    size = np.bincount(flat, minlength=bins)
    hit = np.bincount(flat, weights=predicted_BT[has], minlength=bins).astype(int)
    return size, hit


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


def describe(found: Statistics) -> str:
    """Statistics as a few lines for a log."""

    def percent(share: float | None) -> str:
        return "none" if share is None else f"{share:.1%}"

    spans = "none" if found.span_length is None else f"{found.span_length:.2f} tokens"
    lines = [
        f"corruption over {found.rows:,} rows: {found.predicted:.1f} predicted tokens a row, "
        f"{percent(found.of_valid)} of all tokens, {percent(found.of_maskable)} of the maskable",
        f"  of these {percent(found.masked)} read the mask token, {percent(found.replaced)} "
        f"another token, {percent(found.unchanged)} the same token",
        f"  words touched and predicted wholly: {percent(found.whole_words)}, of those of several "
        f"tokens {percent(found.whole_long_words)}; mean span {spans}",
    ]
    if found.moved is not None:
        lines.append(f"  moved: {percent(found.moved)} of all tokens")
    return "\n".join(lines)

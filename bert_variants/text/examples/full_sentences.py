"""RoBERTa's FULL-SENTENCES: rows as full as whole sentences make them, across documents.

Source: Liu et al. 2019 (arXiv 1907.11692), section 4.2;
facebookresearch/fairseq:fairseq/data/token_block_dataset.py (``complete``).
"""

from __future__ import annotations

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.filling import cut_chunks, fill
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

SPECIALS = 2
LEAST = 2


@register("example", labels=(), reserved=("length",))
def full_sentences(window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int) -> Plan:
    """Whole sentences, greedily up to ``length``; a row may go on with the next document.

    Between two documents stands an extra [SEP]. A sentence that is longer than a row is cut into
    pieces, where fairseq would make an over-long row of it. Rows of fewer than 2 text tokens
    are left out and counted. Nothing is random here: a visit has the rows of the one before, in
    another order.

    A worked row, ``length=12``, documents "a b c" and "d e", and "f g h i j"::

        [CLS] a b c [SEP] d e [SEP] [PAD] ...     (the third document opens the next row)

    Raises:
        ConfigError: ``length`` below 4.
    """
    budget = length - SPECIALS
    if budget < LEAST:
        raise ConfigError(f"example full_sentences: data.length is {length}, expected at least 4.")
    starts, document, cut = cut_chunks(window, budget)
    # Counting one token for each border of documents before it, a chunk's place is where it would
    # stand in one stream with its separators: row lengths are differences again.
    begins, ends = starts[:-1] + document, starts[1:] + document
    rows = fill(begins, ends, np.array([0, len(begins)]), budget)
    first, last = document[rows[:-1]], document[rows[1:] - 1]
    text = (ends[rows[1:] - 1] - last) - (begins[rows[:-1]] - first)
    enough = text >= LEAST
    kept = np.flatnonzero(enough)
    return _plan(
        window,
        (starts[rows[kept]], starts[rows[kept + 1]]),
        (first[kept], last[kept]),
        vocab,
        {"row of fewer than 2 tokens": int(text[~enough].sum())},
        {"sentence cut into pieces": cut},
    )


def _plan(
    window: Window,
    tokens: tuple[np.ndarray, np.ndarray],
    documents: tuple[np.ndarray, np.ndarray],
    vocab: Vocab,
    dropped: dict[str, int],
    altered: dict[str, int],
) -> Plan:
    """[CLS], then the row's part of each of its documents followed by [SEP]."""
    first, last = documents
    parts = last - first + 1
    rows = np.concatenate([[0], np.cumsum(1 + 2 * parts)]).astype(np.int64)
    head = np.cumsum(parts) - parts  # index of a row's first part among all parts
    row = np.repeat(np.arange(len(first)), parts)
    nth = np.arange(len(row)) - head[row]
    border = window.sentences[window.documents]
    in_document = first[row] + nth
    begin = np.maximum(border[in_document], tokens[0][row])
    end = np.minimum(border[in_document + 1], tokens[1][row])
    start = np.full(rows[-1], -1 - vocab.sep, np.int64)
    size = np.ones(rows[-1], np.int32)
    start[rows[:-1]] = -1 - vocab.cls
    at = rows[row] + 1 + 2 * nth
    start[at], size[at] = begin, end - begin
    return Plan(
        rows=rows,
        start=start,
        length=size,
        segment=np.zeros(rows[-1], np.int32),
        dropped=dropped,
        altered=altered,
    )

"""Consecutive tokens, row after row: what a model with memory reads.

Source: Dai et al. 2019 (arXiv 1901.02860), section 3.2; kimiyoung/transformer-xl:
pytorch/data_utils.py (``LMOrderedIterator``: the columns of a batch are contiguous streams).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.plan import Plan, Window
from bert_variants.text.streams import Stream
from bert_variants.types import Vocab

LEAST_LENGTH = 4  # of four places of a stream at least two are text
LEAST_TEXT = 2  # tokens of a row: with fewer there is nothing to predict from anything


@register("example", labels=("continues",), order="stream", reserved=("length",))
def stream(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    reuse: int = 0,
    documents: Literal["joined", "apart"] = "joined",
) -> Plan:
    """``length`` consecutive tokens a row, each row where the one before ended.

    Behind each document stands a [SEP] (a vocabulary names no end-of-document token beside it).
    There is no [CLS]. The label ``continues`` is 1 where a row goes on from the row before it.

    A worked window, ``length=4``, documents "a b c" and "d e f"::

        joined   a b c [SEP]     continues 0
                 d e f [SEP]     continues 1
        apart    the same rows, continues 0 and 0

    The last row is shorter; with fewer than 2 text tokens it is left out and counted. Nothing is
    random here.

    Args:
        window, rng, vocab, length: as every example.
        reuse: so many tokens at the end of a row stand at the beginning of the next one again.
        documents: ``joined``: rows run over the ends of documents, as Transformer-XL's do;
            ``apart``: a document begins a new row, and a new stream.

    Raises:
        ConfigError: ``length`` below 4, or ``reuse`` not in 0 .. length - 1.
    """
    if length < LEAST_LENGTH:
        raise ConfigError(
            f"example stream: data.length is {length}, expected at least {LEAST_LENGTH}."
        )
    if not 0 <= reuse < length:
        raise ConfigError(
            f"example stream: reuse is {reuse}, expected 0 <= reuse < data.length ({length})."
        )
    text = Stream.of(window)
    borders = text.documents if documents == "apart" else text.documents[[0, -1]]
    begin, end, new = _rows(borders, length, reuse)
    enough = text.text_before(end) - text.text_before(begin) >= LEAST_TEXT
    fresh = begin + np.where(new, 0, reuse)
    lost = (text.text_before(end) - text.text_before(fresh))[~enough]
    start, size, row = text.cut(begin[enough], end[enough], vocab.sep)
    counts = np.bincount(row, minlength=int(enough.sum()))
    return Plan(
        rows=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        start=start,
        length=size,
        segment=np.zeros(len(start), np.int32),
        labels={"continues": (~new[enough]).astype(np.int32)},
        dropped={"row of fewer than 2 tokens": int(lost.sum())},
    )


def _rows(
    borders: np.ndarray, length: int, reuse: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begin and end of each row, and whether it is the first between two borders."""
    sizes = np.diff(borders)
    counts = np.maximum(1, -(-(sizes - reuse) // (length - reuse)))
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.repeat(borders[:-1], counts) + nth * (length - reuse)
    return begin, np.minimum(begin + length, np.repeat(borders[1:], counts)), nth == 0

"""Filling rows with whole sentences: the part that the row builders share.

Positions are the flat tokens of a ``Window``. A *chunk* is a run of tokens that stays together:
a sentence, or a piece of one that is longer than a row can hold.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from bert_variants.text.plan import Window


def cut_chunks(window: Window, most: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Sentences as chunks of at most ``most`` tokens.

    A worked row, sentences of 3, 7 and 2 tokens, ``most=4``: chunk starts 0 3 7 10, ends
    3 7 10 12; one sentence was cut.

    Returns:
        starts int64 [n_chunks + 1] (with the end of the text last), the document of each chunk
        int64 [n_chunks], and how many sentences were cut.
    """
    lengths = np.diff(window.sentences)
    pieces = -(-lengths // most)
    first = np.cumsum(pieces) - pieces
    nth = np.arange(pieces.sum()) - np.repeat(first, pieces)
    starts = np.repeat(window.sentences[:-1], pieces) + nth * most
    in_document = np.repeat(np.arange(len(window.documents) - 1), np.diff(window.documents))
    return (
        np.append(starts, window.sentences[-1]),
        np.repeat(in_document, pieces),
        int((pieces > 1).sum()),
    )


def fill(begins: np.ndarray, ends: np.ndarray, groups: np.ndarray, most: int) -> np.ndarray:
    """Greedy filling: each row takes whole chunks, in order, while they fit.

    Args:
        begins, ends: int64 [n], where each chunk begins and ends, ascending. A row of the chunks
            i .. j takes ``ends[j] - begins[i]`` tokens. Every chunk alone fits.
        groups: int64 [g + 1], offsets into the chunks: no row crosses from one group to the next.
        most: tokens that a row can hold.

    Returns:
        int64 [n_rows + 1], offsets into the chunks.
    """
    begin_list, end_list, rows = begins.tolist(), ends.tolist(), [0]
    add = rows.append
    start = 0
    for stop in groups[1:].tolist():
        while start < stop:
            start = bisect_right(end_list, begin_list[start] + most, start, stop)
            add(start)
    return np.asarray(rows, np.int64)

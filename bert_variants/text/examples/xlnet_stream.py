"""XLNet's rows: raw tokens that the memory keeps, then two segments, [CLS] last.

Source: Yang et al. 2019 (arXiv 1906.08237), section 2.5; zihangdai/xlnet:data_utils.py
(``_create_data``, ``_split_a_and_b``).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.plan import Plan, Window
from bert_variants.text.streams import Stream
from bert_variants.types import Vocab

SPECIALS = 3
LEAST_REUSE = 3  # with a token of A at least two of these are text
LEAST = LEAST_REUSE + SPECIALS + 2


@register(
    "example", labels=("continues", "is_next", "backward"), order="stream", reserved=("length",)
)
def xlnet_stream(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    reuse: int = 0,
    directions: Literal["forward", "both"] = "forward",
) -> Plan:
    """``reuse`` raw tokens, then A [SEP] B [SEP] [CLS]; the next row begins ``reuse`` further on.

    The raw parts of consecutive rows are therefore consecutive text, and it is their states that
    a memory keeps; what A and B show is read again. A worked row, ``length=12, reuse=4``, the
    text "a b c d e f g h ..." and a sentence "x y z"::

        tokens     a b c d  e f [SEP] x y z [SEP] [CLS]     (|A| + |B| is length - reuse - 3)
        segments   0 0 0 0  0 0   0   1 1 1   1     2

    A goes on from the raw part and ends where a sentence does, drawn from those ends that leave
    room for B. With probability one half, and always if there is none, B begins at the beginning
    of a sentence drawn by a uniform place of the window (``is_next`` 0); else it is what follows A
    (``is_next`` 1). A pair that is too long loses tokens at the end of the longer one (B if equal).
    No objective reads ``is_next``: XLNet has no sentence task.

    Behind each document stands a [SEP], a sentence of its own (the released vocabulary has a token
    for it). The end of the window that fills no row is left out and counted. All rows are full.

    With ``directions="both"`` (``bi_data``, as released models were trained) the window comes a
    second time, read from its last token to its first: the second half of the rows, and so of the
    places of a batch where it is even. There the label ``backward`` is 1, and a model counts
    distances the other way round.

    Args:
        window, rng, vocab, length: as every example.
        reuse: tokens of the raw part; 0: half of the row (less where that leaves no room for A
            and B).
        directions: in which the text is read.

    Raises:
        ConfigError: ``length`` below 8, or ``reuse`` that is not 0 and not in 3 .. length - 5.
    """
    if length < LEAST:
        raise ConfigError(
            f"example xlnet_stream: data.length is {length}, expected at least {LEAST}."
        )
    most = length - SPECIALS - 2
    if reuse and not LEAST_REUSE <= reuse <= most:
        raise ConfigError(
            f"example xlnet_stream: reuse is {reuse}, expected 0 or {LEAST_REUSE} .. {most} at "
            f"data.length {length}."
        )
    reuse = reuse or min(length // 2, most)
    text = Stream.of(window)
    ways = (text,) if directions == "forward" else (text, text.mirrored())
    return _plan([_rows(way, rng, vocab, reuse, length - reuse - SPECIALS) for way in ways])


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of one direction: their pieces, how many pieces each has, and what is left out."""

    start: np.ndarray
    size: np.ndarray
    segment: np.ndarray
    counts: np.ndarray
    is_next: np.ndarray
    backward: bool
    lost: int


def _rows(text: Stream, rng: np.random.Generator, vocab: Vocab, reuse: int, budget: int) -> _Rows:
    """Each row is two stretches of the stream, raw with A and B, and three literal tokens."""
    n = max(0, (text.end - budget) // reuse)
    raw = np.arange(n, dtype=np.int64) * reuse
    a_end, b_begin, b_end, is_next = _pairs(text, rng, raw + reuse, budget)
    begin, end = (np.stack(x, axis=1).ravel() for x in ((raw, b_begin), (a_end, b_end)))
    start, size, stretch = text.cut(begin, end, vocab.sep)
    every, second = np.arange(2 * n), np.arange(1, 2 * n, 2)
    behind = np.concatenate([every, second])  # [SEP] behind each stretch, [CLS] behind that of B
    ranks = np.concatenate([4 * stretch, 4 * every + 1, 4 * second + 2])
    order = np.argsort(ranks, kind="stable")
    where = np.concatenate([stretch, behind])[order]
    literal = -1 - np.repeat(np.array([vocab.sep, vocab.cls]), [2 * n, n])
    read = 0
    if n:
        read = b_end[-1] if b_begin[-1] == a_end[-1] else a_end[-1]
    left = text.text_before(np.array([read, text.end]))
    return _Rows(
        start=np.concatenate([start, literal])[order],
        size=np.concatenate([size, np.ones(3 * n, np.int32)])[order],
        segment=np.where(ranks[order] % 4 == 2, 2, where % 2),
        counts=np.bincount(where // 2, minlength=n),
        is_next=is_next,
        backward=text.backward,
        lost=int(left[1] - left[0]),
    )


def _pairs(
    text: Stream, rng: np.random.Generator, begin: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A from ``begin`` on and B, together ``budget`` places: the end of A, begin and end of B, and
    whether B is what follows."""
    borders = text.sentences
    n = len(begin)
    low = np.searchsorted(borders, begin, side="right")
    high = np.searchsorted(borders, begin + budget)  # the first border at or behind the budget
    choices = high - low
    chosen = low + np.minimum((rng.random(n) * choices).astype(np.int64), choices - 1)
    a_end = borders[np.where(choices > 0, chosen, high)]
    is_next = (rng.random(n) >= 0.5) & (choices > 0)
    wants = np.maximum(1, budget - (a_end - begin))
    place = (rng.random(n) * (text.end - wants)).astype(np.int64)
    b_begin = np.where(is_next, a_end, borders[np.searchsorted(borders, place, side="right") - 1])
    b_end = np.where(is_next, borders[high], borders[np.searchsorted(borders, place + wants)])
    a_size, b_size = fitted(a_end - begin, b_end - b_begin, budget)
    return begin + a_size, b_begin, b_begin + b_size, is_next


def fitted(a_size: np.ndarray, b_size: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes after the longer one (B if equal) has lost tokens, one by one, down to the budget.

    7 and 3 in a budget of 8 become 5 and 3; 7 and 9 become 4 and 4.
    """
    a_kept = np.minimum(a_size, np.maximum(-(-budget // 2), budget - b_size))
    return a_kept, np.minimum(b_size, budget - a_kept)


def _plan(ways: list[_Rows]) -> Plan:
    """The rows of all directions, one direction behind the other; each begins anew."""
    counts = np.concatenate([way.counts for way in ways])
    nth = np.concatenate([np.arange(len(way.counts)) for way in ways])
    backward = np.repeat([way.backward for way in ways], [len(way.counts) for way in ways])
    return Plan(
        rows=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        start=np.concatenate([way.start for way in ways]).astype(np.int64),
        length=np.concatenate([way.size for way in ways]).astype(np.int32),
        segment=np.concatenate([way.segment for way in ways]).astype(np.int32),
        backward=backward if backward.any() else None,
        labels={
            "continues": (nth > 0).astype(np.int32),
            "is_next": np.concatenate([way.is_next for way in ways]).astype(np.int32),
            "backward": backward.astype(np.int32),
        },
        dropped={"end of the text that fills no row": sum(way.lost for way in ways)},
    )

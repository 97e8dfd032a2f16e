"""XLNet's rows: raw tokens that the memory keeps, then two segments, [CLS] last.

Source: Yang et al. 2019 (arXiv 1906.08237), section 2.5; zihangdai/xlnet:data_utils.py
(``_create_data``, ``_split_a_and_b``).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.plan import Plan, Window
from bert_variants.text.streams import Stream
from bert_variants.types import Vocab

SPECIALS = 3
LEAST_REUSE = 3  # with a token of A at least two of these are text
LEAST = LEAST_REUSE + SPECIALS + 2


@register("example", labels=("continues", "is_next"), order="stream", reserved=("length",))
def xlnet_stream(
    window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int, reuse: int = 0
) -> Plan:
    """``reuse`` raw tokens, then A [SEP] B [SEP] [CLS]; the next row begins ``reuse`` further on.

    The raw parts of consecutive rows are therefore consecutive text, and it is their states that
    a memory keeps; what A and B show is read again. A worked row, ``length=12, reuse=4``, the
    text "a b c d e f g h ..." and a sentence "x y"::

        tokens     a b c d  e f [SEP] x y [SEP] [CLS] ...   (|A| + |B| is length - reuse - 3)
        segments   0 0 0 0  0 0   0   1 1   1     2

    A goes on from the raw part and ends where a sentence does, drawn from those ends that leave
    room for B. With probability one half, and always if there is none, B begins at the beginning
    of a sentence drawn by a uniform place of the window (``is_next`` 0); else it is what follows A
    (``is_next`` 1). A pair that is too long loses tokens at the end of the longer one (B if equal).
    No objective reads ``is_next``: XLNet has no sentence task.

    Behind each document stands a [SEP], a sentence of its own (the released vocabulary has a token
    for it). The end of the window that fills no row is left out and counted. All rows are full.

    In the released data the second half of a batch's columns run backwards (``bi_data``); these
    rows all run forwards.

    Args:
        window, rng, vocab, length: as every example.
        reuse: tokens of the raw part; 0: half of the row (less where that leaves no room for A
            and B).

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
    budget = length - reuse - SPECIALS
    count = max(0, (text.end - reuse - budget) // reuse + 1) if text.end >= reuse + budget else 0
    raw = np.arange(count, dtype=np.int64) * reuse
    pairs = _pairs(text, rng, raw + reuse, budget)
    read = _read(pairs) if count else 0
    return _plan(text, raw, pairs, vocab, text.text_before(np.array([read, text.end])))


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """A and B of each row: places in the stream, int64 [n]."""

    a_begin: np.ndarray
    a_end: np.ndarray
    b_begin: np.ndarray
    b_end: np.ndarray
    is_next: np.ndarray


def _pairs(text: Stream, rng: np.random.Generator, begin: np.ndarray, budget: int) -> _Pairs:
    """A from ``begin`` on and B, together ``budget`` places."""
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
    return _Pairs(begin, begin + a_size, b_begin, b_begin + b_size, is_next)


def fitted(
    a_size: np.ndarray, b_size: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sizes after the longer one (B if equal) has lost tokens, one by one, down to the budget.

    7 and 3 in a budget of 8 become 5 and 3; 7 and 9 become 4 and 4.
    """
    a_kept = np.minimum(a_size, np.maximum(-(-budget // 2), budget - b_size))
    return a_kept, np.minimum(b_size, budget - a_kept)


def _read(pairs: _Pairs) -> int:
    """The place up to which the last row goes on reading without a gap."""
    follows = pairs.is_next[-1] and pairs.b_begin[-1] == pairs.a_end[-1]
    return int(pairs.b_end[-1] if follows else pairs.a_end[-1])


def _plan(
    text: Stream, raw: np.ndarray, pairs: _Pairs, vocab: Vocab, read: np.ndarray
) -> Plan:
    """Each row is two stretches of the stream, raw with A and B, and three literal tokens."""
    n = len(raw)
    begin = np.stack([raw, pairs.b_begin], axis=1).ravel()
    end = np.stack([pairs.a_end, pairs.b_end], axis=1).ravel()
    start, size, stretch = text.cut(begin, end, vocab.sep)
    every = np.arange(2 * n)
    literal = np.concatenate([np.full(2 * n, -1 - vocab.sep), np.full(n, -1 - vocab.cls)])
    behind = np.concatenate([4 * every + 1, 4 * every[1::2] + 2])  # after which stretch they stand
    order = np.argsort(np.concatenate([4 * stretch, behind]), kind="stable")
    where = np.concatenate([stretch, every, every[1::2]])[order]
    segment = np.concatenate([stretch % 2, every % 2, np.full(n, 2)])[order]
    counts = np.bincount(where // 2, minlength=n)
    return Plan(
        rows=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        start=np.concatenate([start, literal])[order].astype(np.int64),
        length=np.concatenate([size, np.ones(3 * n, np.int32)])[order].astype(np.int32),
        segment=segment.astype(np.int32),
        labels={
            "continues": (np.arange(n) > 0).astype(np.int32),
            "is_next": pairs.is_next.astype(np.int32),
        },
        dropped={"end of the text that fills no row": int(read[1] - read[0])},
    )

"""BERT's sentence pairs: [CLS] A [SEP] B [SEP], and whether B really follows A.

Source: google-research/bert:create_pretraining_data.py (``create_instances_from_document``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

SPECIALS = 3  # [CLS] A [SEP] B [SEP]
TRIES = 10  # to find another document for a random B


@register("example", labels=("next_sentence",), reserved=("length",))
def nsp_pairs(
    window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int, short: float = 0.1
) -> Plan:
    """Pairs of segments for next-sentence prediction. Label 1: B is random; 0: B follows A.

    For each document a target length is drawn once: ``length - 3``, or with probability ``short``
    uniform in 2 .. length - 3. Sentences are taken until the target is reached or the document
    ends. A is the first 1 .. n-1 of them (uniform; the only one if n = 1). With probability one
    half, and always if n = 1, B is random: another document (ten tries to find another one, so
    that in a corpus of one document it is the same), from a uniform sentence on, until A and B
    reach the target; the sentences that A left are used again. Else B is the rest. A pair over
    ``length - 3`` loses tokens one by one from the longer side (B if equal), at the front or at
    the back with equal chance.

    A worked row, ``length=10``, A of 3 tokens and B of 2: segments 0 0 0 0 0 1 1 1 0 0.

    Raises:
        ConfigError: ``length`` below 5 (two tokens, three specials), or ``short`` not in 0 .. 1.
    """
    budget = length - SPECIALS
    if budget < 2:
        raise ConfigError(
            f"example nsp_pairs: data.length is {length}, expected at least {SPECIALS + 2}."
        )
    if not 0 <= short <= 1:
        raise ConfigError(f"example nsp_pairs: short is {short}, expected 0 <= short <= 1.")
    pairs = _pairs(window, _uniforms(rng), budget, short)
    return _truncated(pairs, rng, vocab, budget)


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(1 << 14).tolist()


def _pairs(window: Window, uniforms: Iterator[float], budget: int, short: float) -> np.ndarray:
    """The untruncated pairs: int64 [n, 5], begin and end of A, begin and end of B, label.

    A chunk's end is found by bisection: the first sentence border at or after begin + target.
    """
    draw = uniforms.__next__
    documents, borders = window.documents.tolist(), window.sentences.tolist()
    count = len(documents) - 1
    found: list[int] = []
    add = found.extend
    for d in range(count):
        i, last = documents[d], documents[d + 1]
        target = budget
        if draw() < short:
            target = 2 + int(draw() * (budget - 1))
        while i < last:
            begin = borders[i]
            end = bisect_left(borders, begin + target, i + 1, last)
            sentences = end - i
            split = i + 1
            if sentences > 1:
                split += int(draw() * (sentences - 1))
            middle = borders[split]
            if sentences > 1 and draw() >= 0.5:
                add((begin, middle, middle, borders[end], 0))
                i = end
                continue
            for _ in range(TRIES):
                other = int(draw() * count)
                if other != d:
                    break
            low, high = documents[other], documents[other + 1]
            b = low + int(draw() * (high - low))
            # At least one sentence, also where A alone reaches the target.
            b_end = bisect_left(borders, borders[b] + target - (middle - begin), b + 1, high)
            add((begin, middle, borders[b], borders[b_end], 1))
            i = split
    return np.asarray(found, np.int64).reshape(-1, 5)


def _truncated(pairs: np.ndarray, rng: np.random.Generator, vocab: Vocab, budget: int) -> Plan:
    """Rows within the budget, as five pieces each."""
    a, a_end, b, b_end, label = pairs.T
    a_length, b_length = a_end - a, b_end - b
    cut_a, cut_b = truncation(a_length, b_length, budget)
    # Each dropped token goes at the front with probability one half, so the number of those that
    # go there is binomial.
    front_a, front_b = rng.binomial(cut_a, 0.5), rng.binomial(cut_b, 0.5)
    n = len(pairs)
    start = np.empty((n, 5), np.int64)
    size = np.ones((n, 5), np.int32)
    start[:, [0, 2, 4]] = -1 - np.array([vocab.cls, vocab.sep, vocab.sep])
    start[:, 1], start[:, 3] = a + front_a, b + front_b
    size[:, 1], size[:, 3] = a_length - cut_a, b_length - cut_b
    return Plan(
        rows=np.arange(0, 5 * n + 1, 5, dtype=np.int64),
        start=start.ravel(),
        length=size.ravel(),
        segment=np.tile(np.array([0, 0, 0, 1, 1], np.int32), n),
        labels={"next_sentence": label.astype(np.int32)},
        dropped={"pair longer than the row": int(cut_a.sum() + cut_b.sum())},
    )


def truncation(
    a_length: np.ndarray, b_length: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens A and B lose when the longer one (B if equal) loses one at a time.

    The longer side first loses the difference; what is left over is shared, B first. For a budget
    of 7: (3, 9) loses (0, 5), (5, 5) loses (1, 2), (9, 4) loses (5, 1).
    """
    excess = np.maximum(a_length + b_length - budget, 0)
    difference = a_length - b_length
    alone = np.minimum(excess, np.abs(difference))
    shared = excess - alone
    cut_a = np.where(difference > 0, alone, 0) + shared // 2
    return cut_a, excess - cut_a

"""Pairs of segments [CLS] A [SEP] B [SEP]: the part that the builders of pairs share.

A pair is one row of an int64 array [n, 5]: begin and end of A, begin and end of B (positions in
the flat tokens of a ``Window``), and its kind. A builder says how kinds are chosen and what label
each of them has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

NEXT = 0  # B goes on where A ends
SWAPPED = 1  # B is what stands in front of A
RANDOM = 2  # B comes from another document
SKIP = 3  # no pair is made
TRIES = 10  # draws to find another document

SKIPPED = "sentence without a partner"
UNBALANCED = "random pair beyond its share"

Draw = Callable[[], float]  # uniform in 0 .. 1


def uniforms(rng: np.random.Generator) -> Draw:
    """Uniform numbers one at a time, drawn in blocks: ten times as fast as ``rng.random()``."""

    def blocks() -> Iterator[float]:
        while True:
            yield from rng.random(1 << 14).tolist()

    return blocks().__next__


def budget_of(example: str, length: int, separators: int, short: float = 0.0) -> int:
    """Text tokens that a pair can have: what [CLS], the separators between, and [SEP] leave.

    Raises:
        ConfigError: ``length`` too small for two tokens, ``separators`` not 1 or 2, or ``short``
            not in 0 .. 1.
    """
    if separators not in (1, 2):
        raise ConfigError(f"example {example}: separators is {separators}, expected 1 or 2.")
    budget = length - separators - 2
    if budget < 2:
        raise ConfigError(
            f"example {example}: data.length is {length}, expected at least {separators + 4}."
        )
    if not 0 <= short <= 1:
        raise ConfigError(f"example {example}: short is {short}, expected 0 <= short <= 1.")
    return budget


def chunk_pairs(
    window: Window, draw: Draw, budget: int, short: float, choose: Callable[[int], int]
) -> tuple[np.ndarray, int]:
    """Pairs in the order of the text, as BERT's script walks through a document; untruncated.

    For each document a target length is drawn once: ``budget``, or with probability ``short``
    uniform in 2 .. budget. Sentences are taken until the target is reached or the document ends:
    a chunk. A is the first 1 .. n-1 of its n sentences (uniform; the only one if n = 1), and
    ``choose(n)`` says what becomes of it: NEXT, B is the rest of the chunk; SWAPPED, the rest is
    A and the first part is B; RANDOM, B is another document (see ``another``) from a uniform
    sentence on, until A and B reach the target, and what A left of the chunk is used again; SKIP,
    nothing. google-research/bert:create_pretraining_data.py (``create_instances_from_document``).

    A chunk's end is found by bisection: the first sentence border at or after begin + target.

    Returns:
        the pairs, and how many tokens were skipped.
    """
    documents, borders = window.documents.tolist(), window.sentences.tolist()
    count = len(documents) - 1
    skipped = 0
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
            middle, stop = borders[split], borders[end]
            kind = choose(sentences)
            if kind == RANDOM:
                other = another(draw, d, count)
                low, high = documents[other], documents[other + 1]
                b = low + int(draw() * (high - low))
                # At least one sentence, also where A alone reaches the target.
                b_end = bisect_left(borders, borders[b] + target - (middle - begin), b + 1, high)
                add((begin, middle, borders[b], borders[b_end], RANDOM))
                i = split
                continue
            i = end
            if kind == NEXT:
                add((begin, middle, middle, stop, NEXT))
            elif kind == SWAPPED:
                add((middle, stop, begin, middle, SWAPPED))
            else:
                skipped += stop - begin
    return np.asarray(found, np.int64).reshape(-1, 5), skipped


def another(draw: Draw, document: int, count: int) -> int:
    """Another document than this one, uniform; this one only where there is no other.

    BERT's script draws up to ten times and then takes what it has; here it is the following one.
    """
    for _ in range(TRIES):
        other = int(draw() * count)
        if other != document:
            return other
    return (document + 1) % count


class Balance:
    """Kinds drawn uniformly, also where some chunks can only be RANDOM.

    Such a chunk draws like any other. If it draws another kind, it owes that kind, and the next
    free chunk that draws RANDOM takes it instead. So each kind is drawn as often as if all
    chunks were free, but for the kinds that are still owed at the end.

    Attributes:
        owed: those.
    """

    def __init__(self, draw: Draw, kinds: tuple[int, ...]) -> None:
        self._draw, self._kinds = draw, kinds
        self.owed: list[int] = []

    def free(self) -> int:
        """The kind of a chunk that can be any."""
        kind = self._kinds[int(self._draw() * len(self._kinds))]
        return self.owed.pop() if kind == RANDOM and self.owed else kind

    def bound(self) -> int:
        """RANDOM, for a chunk that can be nothing else."""
        kind = self._kinds[int(self._draw() * len(self._kinds))]
        if kind != RANDOM:
            self.owed.append(kind)
        return RANDOM


def pair_plan(
    pairs: np.ndarray,
    labels: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    budget: int,
    separators: int,
    dropped: Mapping[str, int],
    altered: Mapping[str, int],
) -> Plan:
    """Pairs as rows within the budget. Segment 1 is B with its [SEP].

    A pair over the budget loses tokens one by one from the longer side (B if equal), at the front
    or at the back with equal chance. ``separators=2`` puts two between A and B, as RoBERTa does.
    """
    a, a_end, b, b_end, _ = pairs.T
    a_length, b_length = a_end - a, b_end - b
    cut_a, cut_b = truncation(a_length, b_length, budget)
    # Each dropped token goes at the front with probability one half, so the number of those that
    # go there is binomial.
    front_a, front_b = rng.binomial(cut_a, 0.5), rng.binomial(cut_b, 0.5)
    n, width, at_b = len(pairs), separators + 4, separators + 2
    start = np.full((n, width), -1 - vocab.sep, np.int64)
    size = np.ones((n, width), np.int32)
    start[:, 0] = -1 - vocab.cls
    start[:, 1], start[:, at_b] = a + front_a, b + front_b
    size[:, 1], size[:, at_b] = a_length - cut_a, b_length - cut_b
    segment = (np.arange(width) >= at_b).astype(np.int32)
    return Plan(
        rows=np.arange(0, width * n + 1, width, dtype=np.int64),
        start=start.ravel(),
        length=size.ravel(),
        segment=np.tile(segment, n),
        labels={name: label.astype(np.int32) for name, label in labels.items()},
        dropped={"pair longer than the row": int(cut_a.sum() + cut_b.sum()), **dropped},
        altered=altered,
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

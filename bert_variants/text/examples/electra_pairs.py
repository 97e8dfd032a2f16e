"""ELECTRA's rows: one or two segments of running text, without a label.

Source: google-research/electra:build_pretraining_dataset.py (``ExampleBuilder``).
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from bert_variants.config import ConfigError
from bert_variants.registry import register
from bert_variants.text.pairing import Draw, uniforms
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab

LEAST = 2  # text tokens of a row: with fewer there is nothing to predict from anything
SHORTEST = 5  # the smallest target

Span = tuple[int, int]  # begin and end in the flat tokens


@register("example", labels=(), reserved=("length",))
def electra_pairs(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    short: float = 0.05,
    alone: float = 0.1,
) -> Plan:
    """[CLS] A [SEP] B [SEP], or with probability ``alone`` [CLS] A [SEP]; B goes on where A ends.

    Sentences of a document are gathered until they have ``length`` tokens, with probability
    ``short`` a target uniform in 5 .. length, or until it ends. A takes sentences as long as it
    stays below (target - 3) // 2 tokens, at least one; while B is empty, the sentence that would
    lead beyond it joins A in one case of two. All others are B. As published, a sentence behind
    the first one of B still joins A if it is short enough. A is cut to ``length - 2`` tokens and B
    to what is left of the row; what is cut off is counted and not used again.

    A worked row, ``length=12``, target 12, sentences of 3, 2 and 7 tokens: A must stay below 4, so
    it is the first; the second one joins it if the coin says so, else B is the second and the
    third, cut to 12 - 3 - 3 = 6 tokens.

    Rows of fewer than 2 text tokens are left out and counted.

    Raises:
        ConfigError: ``length`` below 5, or ``short`` or ``alone`` not in 0 .. 1.
    """
    if length < SHORTEST:
        raise ConfigError(
            f"example electra_pairs: data.length is {length}, expected at least {SHORTEST}."
        )
    for name, share in (("short", short), ("alone", alone)):
        if not 0 <= share <= 1:
            raise ConfigError(f"example electra_pairs: {name} is {share}, expected 0 <= x <= 1.")
    draw = uniforms(rng)
    documents, borders = window.documents.tolist(), window.sentences.tolist()
    rows = _Rows(vocab, length)
    target = length
    for d in range(len(documents) - 1):
        i, last = documents[d], documents[d + 1]
        while i < last:
            end = bisect_left(borders, borders[i] + target, i + 1, last)
            if draw() < alone:
                first, second = [(borders[i], borders[end])], []
            else:
                first, second = _segments(borders[i : end + 1], (target - 3) // 2, draw)
            rows.add(first, second)
            target = length
            if draw() < short:
                target = SHORTEST + int(draw() * (length - SHORTEST + 1))
            i = end
    return rows.plan()


def _segments(borders: Sequence[int], most: int, draw: Draw) -> tuple[list[Span], list[Span]]:
    """Deal sentences to A and B, neighbours joined.

    Args:
        borders: where each sentence begins, and where the last one ends.
        most: tokens that A stays below.
        draw: uniform numbers.
    """
    first: list[Span] = []
    second: list[Span] = []
    taken = 0
    for begin, end in itertools.pairwise(borders):
        fits = not first or taken + end - begin < most
        if fits or (not second and taken < most and draw() < 0.5):
            taken += end - begin
            _join(first, begin, end)
        else:
            _join(second, begin, end)
    return first, second


def _join(spans: list[Span], begin: int, end: int) -> None:
    if spans and spans[-1][1] == begin:
        begin = spans.pop()[0]
    spans.append((begin, end))


def _cut(spans: list[Span], most: int) -> tuple[list[Span], int]:
    """The first ``most`` tokens of the spans, and how many they have."""
    kept, size = [], 0
    for begin, end in spans:
        end = min(end, begin + most - size)
        if end <= begin:
            break
        kept.append((begin, end))
        size += end - begin
    return kept, size


class _Rows:
    """The pieces of all rows so far; see ``text/plan.py``."""

    def __init__(self, vocab: Vocab, length: int) -> None:
        self._cls, self._sep, self._length = -1 - vocab.cls, -1 - vocab.sep, length
        self._rows: list[int] = [0]
        self._start: list[int] = []
        self._size: list[int] = []
        self._segment: list[int] = []
        self._cut_off = self._too_short = 0

    def add(self, first: list[Span], second: list[Span]) -> None:
        """A row of segment A, and of segment B where that is not empty."""
        wanted = sum(end - begin for begin, end in (*first, *second))
        first, taken = _cut(first, self._length - 2)
        second, rest = _cut(second, max(0, self._length - taken - 3))
        if taken + rest < LEAST:
            self._too_short += wanted
            return
        self._cut_off += wanted - taken - rest
        pieces = [(self._cls, 1, 0), *((b, e - b, 0) for b, e in first), (self._sep, 1, 0)]
        if second:
            pieces += [*((b, e - b, 1) for b, e in second), (self._sep, 1, 1)]
        for start, size, segment in pieces:
            self._start.append(start)
            self._size.append(size)
            self._segment.append(segment)
        self._rows.append(len(self._start))

    def plan(self) -> Plan:
        """All of them."""
        return Plan(
            rows=np.asarray(self._rows, np.int64),
            start=np.asarray(self._start, np.int64),
            length=np.asarray(self._size, np.int32),
            segment=np.asarray(self._segment, np.int32),
            dropped={
                "text beyond the row": self._cut_off,
                "row of fewer than 2 tokens": self._too_short,
            },
        )

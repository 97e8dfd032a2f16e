"""Byte-pair merging over counted words: the core of every vocabulary trainer of our own.

Repeatedly the most frequent pair of neighbouring symbols becomes one symbol (Sennrich et al. 2016,
algorithm 1). Ties are broken by the ids of the pair, so the result is a pure function of the word
counts: no thread, hash seed or document order can change a byte of it.

All words stand in one flat array as a linked list, so that one merge is a few numpy operations on
the places where the pair occurs; counts of pairs are kept up to date and a heap finds the next.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Mapping, Sequence

import numpy as np

_SHIFT = 24  # a pair is one integer, left << 24 | right: vocabularies below 16.7 million
_BREAK = -1  # stands between words
_GONE = -2  # the right half of a merged pair


@dataclasses.dataclass
class _Words:
    """Flat words. ``symbols[i]`` is followed by ``symbols[after[i]]``; breaks stand between."""

    symbols: np.ndarray
    weights: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @classmethod
    def of(cls, words: Mapping[Sequence[int], int]) -> _Words:
        items = sorted(words.items())
        symbols, weights = [_BREAK], [0]
        for word, count in items:
            symbols.extend(word)
            symbols.append(_BREAK)
            weights.extend([count] * (len(word) + 1))
        n = len(symbols)
        place = np.arange(n, dtype=np.int32)
        return cls(
            np.array(symbols, np.int32),
            np.array(weights, np.int64),
            np.maximum(place - 1, 0),
            np.minimum(place + 1, n - 1),
        )

    def pairs(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs that begin at ``at`` and cross no break: their keys and their places."""
        left, right = self.symbols[at], self.symbols[self.after[at]]
        whole = (left >= 0) & (right >= 0)
        return (left[whole].astype(np.int64) << _SHIFT) | right[whole], at[whole]

    def merge(self, at: np.ndarray, new: int) -> None:
        """Join the symbols at ``at`` with their followers into ``new``. No two may overlap."""
        gone = self.after[at]
        follower = self.after[gone]
        self.symbols[at] = new
        self.symbols[gone] = _GONE
        self.after[at] = follower
        self.before[follower] = at


@dataclasses.dataclass
class _Pairs:
    """Count and places of every pair, and a heap of (-count, pair) that may hold stale entries."""

    counts: dict[int, int] = dataclasses.field(default_factory=dict)
    places: dict[int, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    heap: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def add(self, keys: np.ndarray, at: np.ndarray, weights: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")
        keys, at = keys[order], at[order]
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else keys
        sums = np.add.reduceat(weights[order], first) if len(keys) else keys
        bounds = [*first.tolist(), len(keys)]
        for i, (key, total) in enumerate(zip(keys[first].tolist(), sums.tolist(), strict=True)):
            count = self.counts.get(key, 0) + total
            self.counts[key] = count
            self.places.setdefault(key, []).append(at[bounds[i] : bounds[i + 1]])
            heapq.heappush(self.heap, (-count, key))

    def remove(self, keys: np.ndarray, weights: np.ndarray) -> None:
        found, where = np.unique(keys, return_inverse=True)
        sums = np.zeros(len(found), np.int64)
        np.add.at(sums, where, weights)
        for key, total in zip(found.tolist(), sums.tolist(), strict=True):
            self.counts[key] -= total
            if not self.counts[key]:
                del self.counts[key], self.places[key]

    def pop(self) -> tuple[int, int]:
        """The most frequent pair and its count, (-1, 0) if none is left."""
        while self.heap:
            negative, key = heapq.heappop(self.heap)
            count = self.counts.get(key, 0)
            if count == -negative:
                return key, count
            if 0 < count < -negative:
                heapq.heappush(self.heap, (-count, key))
        return -1, 0

    def take(self, key: int) -> np.ndarray:
        """Places of a pair, ascending, stale ones among them; the pair is forgotten."""
        del self.counts[key]
        return np.sort(np.concatenate(self.places.pop(key)))


def learn_merges(
    words: Mapping[Sequence[int], int],
    tokens: list[str],
    size: int,
    min_frequency: int,
    join: Callable[[str, str], str],
) -> list[tuple[str, str]]:
    """Merge pairs until ``tokens`` holds ``size`` entries or no pair is frequent enough.

    Args:
        words: word as a tuple of indexes into ``tokens`` -> how often it occurs.
        tokens: the symbols so far; merged symbols are appended, in the order of merging.
        size: length of ``tokens`` to reach.
        min_frequency: pairs rarer than this are never merged.
        join: the spelling of a merged pair, ``("un", "##do") -> "undo"``.

    Returns:
        The merges in order, by spelling.

    A worked row: words {ab: 3, abc: 2}, tokens [a, b, c], size 5. Pair (a, b) counts 5, so "ab"
    becomes token 3; then (ab, c) counts 2, so "abc" becomes token 4; merges [(a, b), (ab, c)].
    """
    flat = _Words.of(words)
    pairs = _Pairs()
    keys, at = flat.pairs(np.arange(len(flat.symbols)))
    pairs.add(keys, at, flat.weights[at])
    ids = {token: i for i, token in enumerate(tokens)}
    merges = []
    while len(tokens) < size:
        key, count = pairs.pop()
        if count < max(min_frequency, 1):
            break
        left, right = key >> _SHIFT, key & ((1 << _SHIFT) - 1)
        spelling = join(tokens[left], tokens[right])
        # Two ways can lead to one spelling (ab+c, a+bc); it stays one token.
        new = ids.setdefault(spelling, len(tokens))
        if new == len(tokens):
            tokens.append(spelling)
        merges.append((tokens[left], tokens[right]))
        _replace(flat, pairs, key, new)
    return merges


def _replace(flat: _Words, pairs: _Pairs, key: int, new: int) -> None:
    """Put ``new`` for the pair ``key`` everywhere and bring the counts of its neighbours up."""
    left, right = key >> _SHIFT, key & ((1 << _SHIFT) - 1)
    at = pairs.take(key)
    at = at[(flat.symbols[at] == left) & (flat.symbols[flat.after[at]] == right)]
    if left == right:
        at = _every_second(at, flat.after)
    # Pairs that begin before, at and on the right half of a merged pair disappear ...
    touched = np.unique(np.concatenate([flat.before[at], at, flat.after[at]]))
    old, places = flat.pairs(touched)
    kept = old != key
    pairs.remove(old[kept], flat.weights[places[kept]])
    flat.merge(at, new)
    # ... and those that begin before it and at it come in their place.
    fresh, places = flat.pairs(np.unique(np.concatenate([flat.before[at], at])))
    pairs.add(fresh, places, flat.weights[places])


def _every_second(at: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Places of a pair (a, a) without overlaps: in a run of a's, pairs from the left."""
    index = np.arange(len(at))
    begins = np.r_[True, after[at[:-1]] != at[1:]] if len(at) else np.zeros(0, bool)
    begin = np.maximum.accumulate(np.where(begins, index, 0))
    return at[(index - begin) % 2 == 0]

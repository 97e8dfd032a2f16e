"""Frequent n-grams, counted a length at a time in bounded memory; numbers, no strings.

An n-gram is numbered within its length. One of n words is told by two numbers of n - 1 words: its
first n - 1 (``head``) and its last n - 1 (``tail``), which overlap.
"""

from __future__ import annotations

import dataclasses

import numpy as np

PENDING = 1 << 22  # keys that are gathered before they are merged with the rest
NONE = -1  # no frequent n-gram begins here


@dataclasses.dataclass(frozen=True)
class Level:
    """The frequent n-grams of one length, by number.

    Attributes:
        keys: int64, ascending, ``head * shorter + tail``; for single words the words themselves.
        counts: int64, how often each occurs.
        shorter: how many n-grams of one word less there are.
        heads, tails: int64, numbers of the first and the last n - 1 words; empty for single words.
    """

    keys: np.ndarray
    counts: np.ndarray
    shorter: int
    heads: np.ndarray
    tails: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def words(self) -> np.ndarray:
        """Of single words: the number of each in the text."""
        return self.keys

    def of_words(self, numbers: np.ndarray) -> np.ndarray:
        """int64 [n]: which frequent word stands at each place of a text, NONE for no such."""
        return self._find(numbers.astype(np.int64))

    def of_pairs(self, shorter: np.ndarray) -> np.ndarray:
        """int64 [n - 1]: which n-gram begins where one of one word less begins, and another next.

        Args:
            shorter: int64 [n], the n-grams of one word less that begin at each place.
        """
        heads, tails = shorter[:-1], shorter[1:]
        found = self._find(heads * self.shorter + tails)
        return np.where((heads >= 0) & (tails >= 0), found, NONE)

    def _find(self, keys: np.ndarray) -> np.ndarray:
        if not len(self):
            return np.full(len(keys), NONE)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self) - 1)
        return np.where(self.keys[at] == keys, at, NONE)

    def keys_of(self, grams: np.ndarray) -> np.ndarray:
        """The keys, on the next level, of all pairs of neighbours that are there."""
        heads, tails = grams[:-1], grams[1:]
        both = (heads >= 0) & (tails >= 0)
        return heads[both] * len(self) + tails[both]

    def longer(self, keys: np.ndarray, counts: np.ndarray, minimum: int) -> Level:
        """The next level: those of the counted ``keys`` that occur ``minimum`` times."""
        frequent = counts >= minimum
        keys, counts = keys[frequent], counts[frequent]
        heads, tails = np.divmod(keys, max(len(self), 1))
        return Level(keys, counts, len(self), heads, tails)


def first_level(counts: np.ndarray, minimum: int) -> Level:
    """The words that occur ``minimum`` times; ``counts`` is indexed by a word's number."""
    words = np.flatnonzero(counts >= minimum)
    none = np.zeros(0, np.int64)
    return Level(words, counts[words], 0, none, none)


class Tally:
    """Counts of keys, at most ``capacity`` different ones of them.

    Beyond that the rarest are forgotten, as many as it takes to halve the table ("lossy counting",
    Manku and Motwani, VLDB 2002): every count is then too low by at most ``missed``.

    Attributes:
        forgotten: how many keys were forgotten.
        missed: by how much a count may be too low.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._waiting = 0
        self.forgotten = self.missed = 0

    def add(self, keys: np.ndarray) -> None:
        """Count these, each as often as it stands there."""
        self._pending.append(keys)
        self._waiting += len(keys)
        if self._waiting >= PENDING:
            self._merge()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys, ascending, and their counts."""
        self._merge()
        return self._keys, self._counts

    def _merge(self) -> None:
        new, times = np.unique(np.concatenate([self._keys[:0], *self._pending]), return_counts=True)
        self._pending, self._waiting = [], 0
        keys, place = np.unique(np.concatenate([self._keys, new]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        # a key stands in each of the two only once
        counts[place[: len(self._keys)]] = self._counts
        counts[place[len(self._keys) :]] += times
        if len(keys) > self._capacity:
            least = int(np.sort(counts)[-(self._capacity // 2)])
            kept = counts > least
            self.forgotten += int((~kept).sum())
            self.missed += least
            keys, counts = keys[kept], counts[kept]
        self._keys, self._counts = keys, counts

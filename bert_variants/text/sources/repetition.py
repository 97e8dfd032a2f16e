"""Leaving out documents that say what others have said, exactly and in linear time."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

SHINGLE = 8  # consecutive words that count as one thing said
REPEATED = 0.5  # a document is a repetition if this share of its shingles was said before

_WORD = re.compile(r"\w+")


def novel(texts: Sequence[str]) -> tuple[list[int], Counter[str]]:
    """Which texts to keep, and how many were left out and why.

    Texts are visited from the longest to the shortest, equal lengths in the order given. A text
    is left out if at least half of its runs of eight words (lower case, punctuation ignored)
    stand in the texts kept so far, wherever they stand. So a copy, an excerpt and a filled-in
    template all go, and the most complete version stays. Exact, but for collisions of 64-bit
    hashes; no random numbers.

    Returns:
        Indices of the kept texts, ascending; counts of the reasons "exact duplicate" and "near
        duplicate".
    """
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
    hashes: dict[str, int] = {}
    whole: set[str] = set()
    said: set[int] = set()
    kept, dropped = [], Counter[str]()
    for i in order:
        words = _WORD.findall(texts[i].lower())
        flat = " ".join(words)
        shingles = _shingles(words, hashes)
        repeated = sum(map(said.__contains__, shingles))
        if flat in whole:
            dropped["exact duplicate"] += 1
        elif repeated and repeated >= REPEATED * len(shingles):
            dropped["near duplicate"] += 1
        else:
            kept.append(i)
            whole.add(flat)
            said.update(shingles)
    return sorted(kept), dropped


def _shingles(words: list[str], hashes: dict[str, int]) -> list[int]:
    """64-bit hashes of all runs of SHINGLE words; of the whole text where it is shorter."""
    for word in words:
        if word not in hashes:
            digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
            hashes[word] = int.from_bytes(digest, "little")
    values = np.array([hashes[word] for word in words], np.uint64)
    runs = max(len(words) - SHINGLE + 1, min(len(words), 1))
    total = np.zeros(runs, np.uint64)
    for k in range(min(SHINGLE, len(words))):
        total = total * np.uint64(0x9E3779B97F4A7C15) + values[k : k + runs]
        total ^= total >> np.uint64(29)
    return total.tolist()

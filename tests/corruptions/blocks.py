"""Blocks of text for the distributions of corruptions, and how their results are read."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from contracts import rows as data

from bert_variants import keys, registry
from bert_variants.types import Batch, Corrupted, Vocab

# Text has the ids from 50 on, random tokens of the corpus have others: none is kept by accident.
IDS = np.arange(97)
COUNTS = np.where((IDS >= 5) & (IDS < 50), IDS**2, 0)
VOCAB = Vocab(
    size=97, pad=0, unk=1, cls=2, sep=3, mask=4, specials=(0, 1, 2, 3, 4), counts_V=COUNTS
)


def block(count: int, words: list[int], *, padding: int = 0, seed: int = 0) -> Batch:
    """``count`` rows ``[CLS] text [SEP]`` whose words have the given numbers of tokens.

    0 in ``words`` is a [SEP] amid the text.
    """
    numbers = [-1]
    for number, size in enumerate(words):
        numbers += [number] * size or [-1]
    numbers += [-1] * (1 + padding)
    length = len(numbers)
    words_BT = np.tile(np.array(numbers, np.int32), (count, 1))
    tokens_BT = np.random.default_rng(seed).integers(50, 96, (count, length)).astype(np.int32)
    tokens_BT[words_BT < 0] = VOCAB.sep
    tokens_BT[:, 0] = VOCAB.cls
    tokens_BT[:, length - padding :] = VOCAB.pad
    valid_BT = np.tile(np.arange(length) < length - padding, (count, 1))
    zeros_BT = np.zeros((count, length), np.int32)
    return Batch(
        tokens_BT=tokens_BT,
        segments_BT=zeros_BT,
        positions_BT=zeros_BT + np.arange(length, dtype=np.int32)[None],
        valid_BT=valid_BT,
        maskable_BT=words_BT >= 0,
        words_BT=words_BT,
        units_BT=zeros_BT - 1,
        example_id_B=np.arange(count, dtype=np.uint32),
        visit_B=np.zeros(count, np.uint32),
    )


def corrupt(call: str, batch: Batch, *, seed: int = 0, vocab: Vocab = VOCAB) -> Corrupted:
    """The corruption as the step applies it, as numpy arrays."""
    large = batch.tokens_BT.size > 500_000
    made = _compiled(call, vocab, large)(jax.random.key(seed), batch)
    return jax.tree.map(np.asarray, made)


@functools.cache
def _compiled(call: str, vocab: Vocab, large: bool) -> Any:
    """Compiled well where there is much to do, else quickly."""
    bound = registry.lookup("corruption", call)
    jit = jax.jit if large else data.quickly
    return jit(lambda key, batch: bound(keys.corruption_keys(key, batch, 0, 0), batch, vocab))


def chosen(found: Corrupted) -> np.ndarray:
    """bool [B, T]: the positions that are to be predicted."""
    chosen_BT = np.zeros(found.tokens_BT.shape, bool)
    row_BP = np.broadcast_to(np.arange(len(chosen_BT))[:, None], found.at_BP.shape)
    used_BP = found.weights_BP > 0
    chosen_BT[row_BP[used_BP], found.at_BP[used_BP]] = True
    return chosen_BT


def runs(chosen_BT: np.ndarray) -> np.ndarray:
    """int [n, 3]: row, start and stop of every run of chosen tokens, in order."""
    edges = np.diff(np.pad(chosen_BT, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return np.stack([rows, starts, np.nonzero(edges == -1)[1]], axis=1)


def check_boundaries(found: Corrupted) -> None:
    """Neither hidden nor special, the nearest such ones; absent together, and only at an edge."""
    chosen_BT = chosen(found)
    seen = 0
    for b, start, stop in runs(chosen_BT):
        at = (found.weights_BP[b] > 0) & (found.at_BP[b] >= start) & (found.at_BP[b] < stop)
        assert found.at_BP[b][at].tolist() == list(range(start, stop))
        assert found.offset_BP[b][at].tolist() == list(range(stop - start))
        there = found.maskable_BT[b, start - 1] and found.maskable_BT[b, stop : stop + 1].any()
        sides = (start - 1, stop) if there else (-1, -1)
        assert set(found.left_BP[b][at]) == {sides[0]}
        assert set(found.right_BP[b][at]) == {sides[1]}
        if there:
            seen += 1
            assert not chosen_BT[b, [start - 1, stop]].any()
            np.testing.assert_array_equal(
                found.inputs_BT[b, [start - 1, stop]], found.tokens_BT[b, [start - 1, stop]]
            )
    assert seen
    unused = found.weights_BP == 0
    assert (found.left_BP[unused] == -1).all()
    assert (found.right_BP[unused] == -1).all()
    assert (found.offset_BP[unused] == 0).all()


def text_rows(seed: int, count: int, length: int) -> Batch:
    """Pair rows of random words, some padded, as the batteries have them."""
    return data.rows(seed, count, length)

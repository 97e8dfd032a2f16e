"""DeBERTa's windows: where n-grams may stand, the published densities, the end that stays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts.test_corruptions import run

from bert_variants.corruptions.ngrams import harmonic
from bert_variants.corruptions.windows import walk


def chosen_of(found) -> np.ndarray:
    chosen = np.zeros(found.inputs_BT.shape, bool)
    for b, row in enumerate(found.weights_BP > 0):
        chosen[b, found.at_BP[b][row]] = True
    return chosen


def plain(count: int, length: int):
    """[CLS] text [SEP], every token a word."""
    batch = data.rows(0, count, length, full=True)
    tokens = np.where(batch.tokens_BT < 5, 9, batch.tokens_BT)
    tokens[:, 0], tokens[:, -1] = data.VOCAB.cls, data.VOCAB.sep
    maskable = np.ones_like(batch.maskable_BT)
    maskable[:, [0, -1]] = False
    columns = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    return batch.replace(
        tokens_BT=tokens.astype(np.int32),
        maskable_BT=maskable,
        words_BT=np.where(maskable, columns - 1, -1).astype(np.int32),
    )


def test_one_in_each_window_and_never_at_the_end():
    """At 512 tokens exactly 77 are chosen, one of each six; the last 48 of the text never."""
    chosen = chosen_of(run("windows()", plain(200, 512)))
    assert (chosen.sum(axis=1) == 77).all()
    windows = chosen[:, 1 : 1 + 77 * 6].reshape(200, 77, 6)
    assert (windows.sum(axis=2) == 1).all()
    assert not chosen[:, 1 + 77 * 6 :].any()
    assert 512 - 1 - (1 + 77 * 6) == 48
    places = windows.sum(axis=(0, 1))
    expected = 200 * 77 / 6
    assert np.abs(places - expected).max() < 5 * expected**0.5


def reference(lengths, places, units: int, window: int) -> np.ndarray:
    """microsoft/DeBERTa:DeBERTa/apps/tasks/mlm_task.py, with numbers that are drawn already."""
    chosen, offset, turn = np.zeros(units, bool), 0, 0
    while offset < units:
        n = lengths[turn]
        context = min(n * window, units - offset)
        start = offset + int(np.float32(places[turn]) * np.float32(context))
        stop = min(start + n, units)
        offset = max(offset + context, stop)
        chosen[start:stop] = True
        turn += 1
    return chosen


@pytest.mark.parametrize(("units", "window"), [(1, 6), (40, 6), (33, 2), (7, 1)])
def test_walks_as_the_published_code(units, window):
    shares = harmonic(3)
    for seed in range(20):
        key = jax.random.key(seed)
        turns = -(-40 // window)
        length_key, start_key = jax.random.split(key)
        drawn = jax.random.uniform(length_key, (turns,))
        upper = np.float32(np.cumsum(shares)[:-1])
        lengths = 1 + (np.asarray(drawn)[:, None] >= upper).sum(axis=1)
        places = np.asarray(jax.random.uniform(start_key, (turns,)))
        found = np.asarray(walk(key, jnp.arange(40) < units, shares, window))
        np.testing.assert_array_equal(found[:units], reference(lengths, places, units, window))
        assert not found[units:].any()


def test_ngrams_are_whole_words_within_the_budget():
    batch = data.rows(3, 2000, 64)
    found = run("windows(max_ngram=3)", batch)
    chosen = chosen_of(found)
    for b in range(2000):
        for word in range(batch.words_BT[b].max() + 1):
            assert chosen[b, batch.words_BT[b] == word].mean() in (0, 1)
    budget = np.maximum(1, np.round(0.15 * batch.valid_BT.sum(axis=1)))
    assert (chosen.sum(axis=1) <= budget).all()
    # a first n-gram that is longer than the budget of a short row leaves it untouched
    assert chosen.sum() > 0.6 * budget.sum()


def test_a_share_of_ngrams():
    """Over 1e5 units: a sixth is chosen where the budget is no limit, whatever n."""
    for max_ngram in (1, 3):
        shares, units = harmonic(max_ngram), 600
        keys = jax.random.split(jax.random.key(max_ngram), 400)
        there = jnp.ones(units, bool)
        found = np.asarray(jax.jit(jax.vmap(lambda k: walk(k, there, shares, 6)))(keys))  # noqa: B023
        assert found.size > 1e5
        assert abs(found.mean() - 1 / 6) < 0.004
        assert abs(found[:, :60].mean() - found[:, -60:].mean()) < 0.02


def test_the_generator_of_version_3_reads_masks_alone():
    found = run("windows(mask=1.0, random=0.0)", data.rows(4, 64, 64))
    used = found.weights_BP > 0
    assert (np.take_along_axis(found.inputs_BT, found.at_BP, 1)[used] == data.VOCAB.mask).all()


def test_no_rate():
    with pytest.raises(ValueError, match="rate is 0, expected 0 < rate <= 1"):
        run("windows(rate=0.0)", data.rows(0, 2, 16))

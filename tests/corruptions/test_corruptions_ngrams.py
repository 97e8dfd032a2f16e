"""ALBERT's n-grams against the published loop, and the shares that it draws."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from contracts import rows as data
from corruptions import blocks
from scipy import stats

from bert_variants.corruptions.ngrams import choose_ngrams, harmonic
from bert_variants.ops import spans


def test_harmonic():
    np.testing.assert_allclose(harmonic(3), [6 / 11, 3 / 11, 2 / 11])
    np.testing.assert_allclose(harmonic(3, True), [2 / 11, 3 / 11, 6 / 11])
    np.testing.assert_allclose(harmonic(1), [1])
    np.testing.assert_allclose(harmonic(3) @ [1, 2, 3], 1.636, atol=5e-4)


@pytest.mark.parametrize("favor_longer", [False, True])
def test_drawn_lengths(favor_longer):
    shares = harmonic(3, favor_longer)
    drawn = np.asarray(spans.draw_lengths(jax.random.key(1), 200_000, shares))
    counts = np.bincount(drawn, minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], 200_000 * shares).pvalue > 1e-3


# ------------------------------------------------------------- the sequential rule


def published(order, draws, words, n):
    """google-research/albert:create_pretraining_data.py: its loop over the shuffled n-grams.

    ``words`` are lists of positions. Its first test for covered pieces has no effect and is left
    out, as everything that comes after the choice.
    """
    covered = set()
    for start in order:
        if len(covered) >= n:
            break
        size = draws[start]
        while size and len(covered) + len(joined(words[start : start + size])) > n:
            size -= 1
        candidate = joined(words[start : start + size])
        if candidate and not candidate & covered:
            covered |= candidate
    return covered


def joined(words):
    return {at for word in words for at in word}


def positions(words):
    """The positions of each word of a row, in order."""
    return [np.flatnonzero(words == w).tolist() for w in range(words.max() + 1)]


@pytest.mark.parametrize("longest", [1, 3, 6])
@pytest.mark.parametrize("rate", [0.15, 0.5, 1.0])
def test_is_the_published_loop(longest, rate):
    """1,500 rows of pairs with padding, words of up to four tokens; every token as expected."""
    count, length = 1500, 48
    batch = blocks.text_rows(longest, count, length)
    row_keys = jax.random.split(jax.random.key(longest), count)
    draws = np.random.default_rng(0).integers(1, longest + 1, (count, length)).astype(np.int32)
    budgets = np.round(rate * batch.valid_BT.sum(axis=1)).astype(np.int32)

    @jax.jit
    def run(words_BT, text_BT):
        words = jax.vmap(spans.number_words)(words_BT, text_BT)
        last = jax.numpy.max(words.stop_W, axis=1, keepdims=True)
        words = words._replace(stop_W=jax.numpy.broadcast_to(last, words.stop_W.shape))
        choose = lambda *row: choose_ngrams(*row[:3], longest, row[3])  # noqa: E731
        return jax.vmap(choose)(row_keys, words, draws, budgets), words.of_T

    found, of_BT = jax.tree.map(np.asarray, run(batch.words_BT, batch.maskable_BT))
    scores = np.asarray(jax.vmap(lambda k: jax.random.uniform(k, (length,)))(row_keys))
    for b in range(count):
        words = positions(of_BT[b])
        order = np.argsort(scores[b][: len(words)], kind="stable")
        expected = published(order, draws[b], words, budgets[b])
        assert set(np.flatnonzero(found[b])) == expected, f"row {b}"


@pytest.mark.slow
def test_shares_where_nothing_interferes():
    """Budget 3 in 254 words: 3-grams alone, pairs and a word, or three words.

    3 is drawn first with 2/11. 1 is drawn first with 6/11; of what comes then, a 1 (6/11) leaves
    room for one word more, and all else shrinks to a pair. 2 leaves room for a word. Two n-grams
    stand side by side in less than 2 * 3 * 3 / 254 of the rows, and look like a longer one.
    """
    found = blocks.corrupt("ngrams(max_predictions=3)", blocks.block(1900, [1] * 254))
    runs = blocks.runs(blocks.chosen(found))
    assert (runs[:, 2] - runs[:, 1]).sum() == 5700
    longest = np.zeros(1900, np.int64)
    np.maximum.at(longest, runs[:, 0], runs[:, 2] - runs[:, 1])
    shares = np.bincount(longest, minlength=4)[1:] / 1900
    expected = np.array([(6 / 11) ** 2, 3 / 11 + 6 / 11 * 5 / 11, 2 / 11])
    assert np.abs(shares - expected).max() < 18 / 254 / 2 + 4 * (0.25 / 1900) ** 0.5
    # in reverse order the 3-gram is the most frequent; here stand side by side 18 / 126 at most
    longer = blocks.corrupt(
        "ngrams(max_predictions=3, favor_longer=True)", blocks.block(3000, [1] * 126)
    )
    sizes = np.diff(blocks.runs(blocks.chosen(longer))[:, 1:], axis=1)
    assert abs((sizes == 3).sum() / 3000 - 6 / 11) < 18 / 126 / 2 + 4 * (0.25 / 3000) ** 0.5


@pytest.mark.slow
def test_whole_words_within_the_budget():
    """All tokens of a word or none; what is left over is less than any word that is not chosen."""
    batch = blocks.text_rows(5, 2000, 64)
    chosen = blocks.chosen(blocks.corrupt("ngrams()", batch))
    allowed = np.maximum(1, np.round(0.15 * batch.valid_BT.sum(axis=1)))
    assert (chosen.sum(axis=1) <= allowed).all()
    assert chosen.sum() > 0.97 * allowed.sum()
    for b in range(2000):
        for at in positions(batch.words_BT[b]):
            assert chosen[b, at].mean() in (0, 1)
    # with words of one token nothing ever stays unused
    full = blocks.chosen(blocks.corrupt("ngrams()", blocks.block(500, [1] * 126)))
    assert (full.sum(axis=1) == 19).all()


@pytest.mark.slow
def test_across_specials():
    """Six words, each alone between [SEP]s, a budget of two: how often they are neighbours.

    Within, two of six are drawn: 1/3. Across, the first is a pair with 5/11, unless it is the last
    word (1/6), where it cannot go on. Else another word is drawn: beside the last one with 1/5,
    beside one of the others with (1 + 4 * 2) / 5 / 5.
    """
    batch = blocks.block(8000, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    across = 5 / 6 * (5 / 11 + 6 / 11 * 9 / 25) + 1 / 6 * 1 / 5
    for answer, expected in ((True, across), (False, 1 / 3)):
        call = f"ngrams(max_predictions=2, across_specials={answer})"
        chosen = blocks.chosen(blocks.corrupt(call, batch))[:, 1::2]
        assert (chosen.sum(axis=1) == 2).all()
        share = (chosen[:, 1:] & chosen[:, :-1]).any(axis=1).mean()
        assert abs(share - expected) < 4 * (0.25 / 8000) ** 0.5


def test_boundaries():
    blocks.check_boundaries(blocks.corrupt("ngrams()", blocks.text_rows(0, 300, 64)))


def test_decisions_are_drawn_for_each_token():
    chosen_in = blocks.block(2000, [3] * 40)
    found = blocks.corrupt("ngrams(random_ids='corpus')", chosen_in)
    chosen = blocks.chosen(found)
    masked = found.inputs_BT == blocks.VOCAB.mask
    pairs = chosen[:, 1:] & chosen[:, :-1]
    agree = (masked[:, 1:] == masked[:, :-1])[pairs]
    assert abs(agree.mean() - 0.68) < 4 * (0.22 / agree.size) ** 0.5


# ------------------------------------------------------------- edges and errors


@pytest.mark.slow
def test_rate_0_and_nothing_that_fits():
    batch = blocks.text_rows(0, 16, 32)
    found = blocks.corrupt("ngrams(rate=0.0)", batch)
    assert found.weights_BP.sum() == 0
    np.testing.assert_array_equal(found.inputs_BT, batch.tokens_BT)
    long_words = blocks.corrupt("ngrams()", blocks.block(8, [4, 4]))
    assert long_words.weights_BP.sum() == 0, "no word fits in a budget of 2"


def test_rate_1_of_single_words_takes_all():
    batch = blocks.text_rows(1, 16, 32)
    chosen = blocks.chosen(blocks.corrupt("ngrams(rate=1.0, max_ngram=1)", batch))
    np.testing.assert_array_equal(chosen, batch.maskable_BT)


def test_published_bound_on_predictions():
    found = blocks.corrupt("ngrams(cap=20)", blocks.block(64, [1] * 510))
    assert found.at_BP.shape == (64, 20)
    assert (found.weights_BP.sum(axis=1) == 20).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ngrams(max_ngram=0)", "max_ngram is 0, expected at least 1"),
        ("ngrams(rate=-0.1)", "rate is -0.1"),
        ("ngrams(cap=-1)", "cap is -1, expected a number of tokens"),
        ("ngrams(mask=0.9, random=0.2)", "sum to <= 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        blocks.corrupt(call, data.rows(0, 2, 16))

"""SpanBERT's spans: the published numbers, and the sequential rule that they come from."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from contracts import rows as data
from corruptions import blocks
from scipy import stats

from bert_variants import registry
from bert_variants.corruptions.spans import choose_spans, geometric
from bert_variants.ops import spans
from bert_variants.types import Vocab

# reference: P(l) for l = 1 .. 10 words
PUBLISHED = (
    *(0.224058, 0.179246, 0.143397, 0.114718, 0.091774),
    *(0.073419, 0.058735, 0.046988, 0.037591, 0.030073),
)


# ------------------------------------------------------------- lengths


def test_geometric_is_the_published_one():
    shares = geometric(0.2, 10)
    np.testing.assert_allclose(shares, PUBLISHED, atol=5e-7)
    np.testing.assert_allclose(shares @ np.arange(1, 11), 3.7971, atol=5e-5)


@pytest.mark.parametrize(
    ("p", "most", "expected"), [(0.0, 4, [0.25] * 4), (1.0, 3, [1, 0, 0]), (0.5, 1, [1])]
)
def test_geometric_limits(p, most, expected):
    np.testing.assert_allclose(geometric(p, most), expected)


def test_drawn_lengths():
    """2e5 of them: as often as published, and their mean."""
    drawn = np.asarray(spans.draw_lengths(jax.random.key(0), 200_000, geometric(0.2, 10)))
    counts = np.bincount(drawn, minlength=12)
    assert counts[0] == counts[11] == 0
    assert stats.chisquare(counts[1:11], 200_000 * geometric(0.2, 10)).pvalue > 1e-3
    assert abs(drawn.mean() - 3.797) < 0.02


# ------------------------------------------------------------- the sequential rule


def one_after_the_other(words, text, lengths, scores, n):
    """Anchors in the order of their words' scores: the published loop, token by token."""
    hidden = set()
    for word in np.argsort(scores, kind="stable"):
        at = np.flatnonzero(words == word)
        if not at.size or set(at) & hidden:
            continue
        position, left = at[0], lengths[word] + 1
        while position < len(text) and text[position] and len(hidden) < n:
            if position == at[0] or words[position] != words[position - 1]:
                left -= 1
                if not left:
                    break
            hidden.add(position)
            position += 1
        if len(hidden) >= n:
            break
    return np.isin(np.arange(len(text)), list(hidden))


@pytest.mark.parametrize("longest", [1, 3, 10, 40])
@pytest.mark.parametrize("rate", [0.15, 0.5, 1.0])
def test_is_the_sequential_rule(longest, rate):
    """1,000 rows of pairs with padding, words of up to four tokens; every token as expected."""
    count, length = 1000, 48
    batch = blocks.text_rows(longest, count, length)
    row_keys = jax.random.split(jax.random.key(longest), count)
    lengths = np.random.default_rng(0).integers(1, longest + 1, (count, length)).astype(np.int32)
    budgets = np.ceil(np.round(rate * batch.maskable_BT.sum(axis=1), 9)).astype(np.int32)

    @jax.jit
    def run(words_BT, text_BT):
        words = jax.vmap(spans.number_words)(words_BT, text_BT)
        choose = lambda *row: choose_spans(*row[:3], longest, row[3])  # noqa: E731
        return jax.vmap(choose)(row_keys, words, lengths, budgets), words

    found, words = jax.tree.map(np.asarray, run(batch.words_BT, batch.maskable_BT))
    draws = jax.vmap(lambda k: jax.random.exponential(k, (length,)))(row_keys)
    scores = np.asarray(draws) / np.maximum(words.size_W, 1)
    np.testing.assert_array_equal(found.sum(axis=1), budgets)
    for b in range(count):
        expected = one_after_the_other(
            words.of_T[b], batch.maskable_BT[b], lengths[b], scores[b], budgets[b]
        )
        np.testing.assert_array_equal(found[b], expected, err_msg=f"row {b}")


def published(rng, words, n, shares):
    """facebookresearch/SpanBERT's loop as its paper describes it, for one run of text."""
    hidden = np.zeros(len(words), bool)
    while hidden.sum() < n:
        left = int(rng.choice(len(shares), p=shares)) + 1
        anchor = int(rng.integers(len(words)))
        if hidden[anchor]:
            continue
        position = int(np.searchsorted(words, words[anchor]))
        for word in range(words[anchor], min(words[anchor] + left, words[-1] + 1)):
            while position < len(words) and words[position] == word and hidden.sum() < n:
                hidden[position] = True
                position += 1
    return hidden


def test_hides_what_the_published_loop_hides():
    """A text of 26 tokens: each place, and the numbers of runs, as often as in 8,000 rows of it."""
    sizes = [1, 2, 1, 1, 4, 1, 1, 2, 3, 1, 1, 1, 2, 1, 1, 3]
    words = np.repeat(np.arange(len(sizes)), sizes)
    n = math.ceil(0.3 * len(words))
    rng = np.random.default_rng(3)
    slow = np.stack([published(rng, words, n, geometric(0.2, 10)) for _ in range(8000)])
    fast = blocks.chosen(blocks.corrupt("spans(rate=0.3)", blocks.block(20_000, sizes)))[:, 1:-1]
    assert (fast.sum(axis=1) == n).all()
    places = [np.stack([side.sum(axis=0), (~side).sum(axis=0)]) for side in (slow, fast)]
    z = (slow.mean(0) - fast.mean(0)) / np.sqrt(0.3 * 0.7 * (1 / 8000 + 1 / 20_000))
    assert np.abs(z).max() < 4, places
    numbers = [np.bincount(blocks.runs(s)[:, 0]) for s in (slow, fast)]
    table = np.stack([np.bincount(k, minlength=6)[1:6] for k in numbers])
    table = table[:, table.sum(axis=0) > 20]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    # which tokens stand together, not only where
    pairs = [(side[:, :-1] & side[:, 1:]).mean(axis=0) for side in (slow, fast)]
    error = np.sqrt(0.25 * (1 / 8000 + 1 / 20_000))
    assert np.abs(pairs[0] - pairs[1]).max() < 4 * error


# ------------------------------------------------------------- the published statistics


@pytest.mark.parametrize(
    ("pieces", "merged", "mean_length", "with_target", "over_15"),
    [(1, 19.62, 4.01, 0.990, 0.002), (2, 10.2, 7.87, 0.927, 0.13)],
    ids=["a token a word", "two tokens a word"],
)
def test_published_statistics(pieces, merged, mean_length, with_target, over_15):
    """510 tokens, 77 hidden, 4,000 blocks here and there; means within four standard errors."""
    found = blocks.corrupt("spans()", blocks.block(4000, [pieces] * (510 // pieces)))
    chosen = blocks.chosen(found)
    assert (chosen.sum(axis=1) == 77).all()
    runs = blocks.runs(chosen)
    numbers = np.bincount(runs[:, 0])
    sizes = runs[:, 2] - runs[:, 1]
    has_target = (found.left_BP >= 0) & (found.right_BP >= 0) & (found.offset_BP < 15)
    shares = has_target.sum(axis=1) / 77

    def near(values, expected, digit):
        """Their own error, that of the reference's draws, and its rounding."""
        return abs(values.mean() - expected) < 4 * math.sqrt(2 / 4000) * values.std() + digit / 2

    assert near(numbers, merged, 0.1 if pieces == 2 else 0.01)
    assert near(77 / numbers, mean_length, 0.01)
    assert near(shares, with_target, 0.001)
    assert abs((sizes > 15).mean() - over_15) < 0.1 * over_15 + 5e-4 + 4 * math.sqrt(
        over_15 / len(sizes)
    )


@pytest.mark.parametrize("length", [4, 5, 12, 33, 100, 128])
def test_the_budget_is_exact_on_every_row(length):
    """ceil(0.15 n) of the text without special tokens, whatever its words."""
    batch = blocks.text_rows(length, 2000, length)
    found = blocks.corrupt("spans()", batch, vocab=data.VOCAB)
    text = batch.maskable_BT.sum(axis=1)
    expected = [math.ceil(round(0.15 * int(n), 9)) for n in text]
    np.testing.assert_array_equal(found.weights_BP.sum(axis=1), expected)


# ------------------------------------------------------------- boundaries and replacement


def test_boundaries():
    blocks.check_boundaries(blocks.corrupt("spans()", blocks.text_rows(0, 300, 64)))
    blocks.check_boundaries(blocks.corrupt("spans(rate=0.5)", blocks.text_rows(1, 200, 33)))


def test_spans_stay_within_their_run():
    """Six words, each alone between [SEP]s, two of them hidden: any two, however long a span."""
    batch = blocks.block(8000, [1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    chosen = blocks.chosen(blocks.corrupt("spans(rate=0.3, p=0.0, max_words=8)", batch))
    assert not chosen[:, ::2].any()
    words = chosen[:, 1::2]
    assert (words.sum(axis=1) == 2).all()
    neighbours = (words[:, 1:] & words[:, :-1]).any(axis=1)
    assert abs(neighbours.mean() - 5 / 15) < 4 * math.sqrt(2 / 9 / 8000)


@pytest.mark.slow
def test_one_decision_a_run():
    """Over 6e4 runs: all of a run is masked, replaced or kept; 80, 10 and 10 % of the runs."""
    found = blocks.corrupt("spans()", blocks.block(3500, [1] * 510))
    runs = blocks.runs(blocks.chosen(found))
    masked = found.inputs_BT == blocks.VOCAB.mask
    kept = found.inputs_BT == found.tokens_BT
    kinds = np.where(masked, 0, np.where(kept, 2, 1))
    first = kinds[runs[:, 0], runs[:, 1]]
    for b, start, stop in runs:
        assert len(set(kinds[b, start:stop])) == 1
    shares = np.bincount(first, minlength=3) / len(runs)
    assert np.abs(shares - (0.8, 0.1, 0.1)).max() < 4 * math.sqrt(0.16 / len(runs))


def test_a_decision_a_token():
    found = blocks.corrupt("spans(draw='token')", blocks.block(300, [1] * 510))
    chosen = blocks.chosen(found)
    masked = (found.inputs_BT == blocks.VOCAB.mask)[chosen]
    assert abs(masked.mean() - 0.8) < 4 * math.sqrt(0.16 / masked.size)
    pairs = chosen[:, 1:] & chosen[:, :-1]
    both = found.inputs_BT == blocks.VOCAB.mask
    agree = (both[:, 1:] == both[:, :-1])[pairs].mean()
    assert abs(agree - 0.68) < 4 * math.sqrt(0.22 / pairs.sum())


def test_random_tokens_are_the_corpus():
    """1.4e5 tokens, as often as the corpus has them, and neighbours independent."""
    found = blocks.corrupt("spans(mask=0.0, random=1.0)", blocks.block(1800, [1] * 510))
    chosen = blocks.chosen(found)
    drawn = found.inputs_BT[chosen]
    counts = np.bincount(drawn, minlength=97)
    there = blocks.COUNTS > 0
    assert drawn.size > 1e5
    assert counts[~there].sum() == 0
    shares = blocks.COUNTS[there] / blocks.COUNTS.sum()
    assert stats.chisquare(counts[there], drawn.size * shares).pvalue > 1e-3
    pairs = chosen[:, 1:] & chosen[:, :-1]
    equal = (found.inputs_BT[:, 1:] == found.inputs_BT[:, :-1])[pairs]
    expected = (shares**2).sum()
    assert abs(equal.mean() - expected) < 4 * math.sqrt(expected / equal.size)


# ------------------------------------------------------------- edges and errors


def test_rate_0_hides_nothing():
    batch = blocks.text_rows(0, 16, 32)
    found = blocks.corrupt("spans(rate=0.0)", batch)
    assert found.weights_BP.sum() == 0
    np.testing.assert_array_equal(found.inputs_BT, batch.tokens_BT)


def test_rate_1_hides_all():
    batch = blocks.text_rows(1, 16, 32)
    np.testing.assert_array_equal(
        blocks.chosen(blocks.corrupt("spans(rate=1.0)", batch)), batch.maskable_BT
    )


def test_max_predictions_bounds_the_budget():
    found = blocks.corrupt("spans(max_predictions=20)", blocks.block(64, [1, 3] * 127))
    assert found.at_BP.shape == (64, 20)
    assert (found.weights_BP.sum(axis=1) == 20).all()


def test_rows_that_can_hold_no_span():
    """Padding, specials alone, and a single token: nothing, nothing, and that token."""
    rows = [blocks.block(1, [0, 0]), blocks.block(1, [1], padding=1), blocks.block(1, [0, 0])]
    batch = data.joined(*rows)
    batch = batch.replace(valid_BT=batch.valid_BT & np.array([[True], [True], [False]]))
    found = blocks.corrupt("spans()", batch)
    assert found.weights_BP.sum(axis=1).tolist() == [0, 1, 0]
    assert (found.left_BP == -1).all()


def test_text_without_words_is_taken_token_by_token():
    batch = blocks.block(500, [1] * 100)
    bare = batch.replace(words_BT=np.full_like(batch.words_BT, -1))
    left, right = blocks.corrupt("spans()", batch), blocks.corrupt("spans()", bare)
    np.testing.assert_array_equal(left.inputs_BT, right.inputs_BT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("spans(p=1.5)", "p is 1.5, expected 0 <= p <= 1"),
        ("spans(max_words=0)", "max_words is 0, expected at least 1"),
        ("spans(rate=2.0)", "rate is 2.0"),
        ("spans(mask=0.9, random=0.2)", "sum to <= 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        blocks.corrupt(call, blocks.text_rows(0, 2, 16))


def test_without_counts_the_corpus_cannot_be_drawn_from():
    bare = Vocab(size=97, pad=0, unk=1, cls=2, sep=3, mask=4)
    with pytest.raises(ValueError, match="without counts"):
        blocks.corrupt("spans()", blocks.text_rows(0, 2, 16), vocab=bare)
    found = blocks.corrupt("spans(random_ids='vocab')", blocks.text_rows(0, 2, 16), vocab=bare)
    assert found.weights_BP.sum() > 0


def test_an_unknown_draw_names_the_known():
    with pytest.raises(registry.RegistryError, match="span, token"):
        registry.lookup("corruption", "spans(draw='word')")

"""T5's spans: numbers that are exact, and cuts that are all equally likely."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from contracts import rows as data
from corruptions import blocks
from scipy import stats


def numbers(n: int, rate: float, mean: float) -> tuple[int, int]:
    """google-research/text-to-text-transfer-transformer: hidden tokens, and spans of them."""
    hidden = min(max(round(n * rate), 1), n - 1)
    return hidden, max(round(hidden / mean), 1)


@pytest.mark.parametrize(("rate", "mean"), [(0.15, 3.0), (0.5, 3.0), (0.15, 8.0), (0.25, 1.0)])
def test_numbers_are_exact(rate, mean):
    """Tokens and spans on every row; the first token is plain, the last one hidden."""
    lengths = (2, 3, 10, 37, 126, 510)
    batch = data.joined(*[blocks.block(30, [1] * n, padding=510 - n) for n in lengths])
    found = blocks.corrupt(f"t5_spans(rate={rate}, mean_length={mean})", batch)
    every = blocks.chosen(found)
    for n, chosen in zip(lengths, np.split(every, len(lengths)), strict=True):
        hidden, spans = numbers(n, rate, mean)
        assert (chosen.sum(axis=1) == hidden).all()
        assert (np.bincount(blocks.runs(chosen)[:, 0], minlength=30) == spans).all()
        assert not chosen[:, 1].any()
        assert chosen[:, n].all()


def test_every_cut_is_equally_likely():
    """9 tokens, 4 of them hidden in 2 spans: 3 ways to cut these and 4 to cut the others."""
    batch = blocks.block(24_000, [1] * 9)
    chosen = blocks.chosen(blocks.corrupt("t5_spans(rate=0.45, mean_length=2.0)", batch))[:, 1:-1]
    expected = set()
    for plain, hidden in itertools.product(range(1, 5), range(1, 4)):
        pattern = [0] * plain + [1] * hidden + [0] * (5 - plain) + [1] * (4 - hidden)
        expected.add(tuple(pattern))
    patterns, counts = np.unique(chosen.astype(int), axis=0, return_counts=True)
    assert {tuple(p.tolist()) for p in patterns} == expected
    assert len(expected) == 12
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.slow
def test_lengths_are_those_of_random_cuts():
    """77 tokens in 26 spans: one ends behind its l-th token with 25 of the 77 - l cuts left."""
    found = blocks.corrupt("t5_spans()", blocks.block(4000, [1] * 513))
    runs = blocks.runs(blocks.chosen(found))
    sizes = runs[:, 2] - runs[:, 1]
    assert sizes.mean() == 77 / 26
    shares, left = [], 1.0
    for length in range(1, 53):
        shares.append(left * 25 / (77 - length))
        left -= shares[-1]
    assert left < 1e-9
    # the first span of each row, since those of a row hang together
    first = np.minimum(sizes[np.flatnonzero(np.diff(runs[:, 0], prepend=-1))], 13)
    counts = np.bincount(first, minlength=14)[1:]
    expected = 4000 * np.array([*shares[:12], sum(shares[12:])])
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_roll_moves_the_pattern_round_the_text():
    """Rolled, every token is hidden equally often; the number stays."""
    batch = blocks.block(10_000, [1] * 20)
    chosen = blocks.chosen(blocks.corrupt("t5_spans(roll=True)", batch))[:, 1:-1]
    assert (chosen.sum(axis=1) == 3).all()
    assert np.abs(chosen.mean(axis=0) - 0.15).max() < 4 * (0.15 * 0.85 / 10_000) ** 0.5
    fixed = blocks.chosen(blocks.corrupt("t5_spans()", batch))[:, 1:-1]
    assert fixed[:, -1].all()
    assert (fixed.sum(axis=1) == 3).all()


def test_pairs_are_one_text():
    """A [SEP] amid the text is left alone; numbers are those of the text without it."""
    batch = blocks.text_rows(2, 1000, 48)
    found = blocks.corrupt("t5_spans(rate=0.3)", batch)
    text = batch.maskable_BT.sum(axis=1)
    expected = [numbers(int(n), 0.3, 3.0)[0] if n > 1 else 1 for n in text]
    np.testing.assert_array_equal(found.weights_BP.sum(axis=1), expected)
    blocks.check_boundaries(found)


@pytest.mark.parametrize(("draw", "agreeing"), [("token", 0.68), ("span", 1.0)])
def test_draw(draw, agreeing):
    found = blocks.corrupt(
        f"t5_spans(draw={draw!r}, random_ids='corpus')", blocks.block(1000, [1] * 200)
    )
    chosen = blocks.chosen(found)
    masked = found.inputs_BT == blocks.VOCAB.mask
    pairs = chosen[:, 1:] & chosen[:, :-1]
    agree = (masked[:, 1:] == masked[:, :-1])[pairs]
    assert abs(agree.mean() - agreeing) <= 4 * (agreeing * (1 - agreeing) / agree.size) ** 0.5


# ------------------------------------------------------------- edges and errors


def test_rates_0_and_1():
    batch = blocks.block(8, [1] * 10)
    assert blocks.corrupt("t5_spans(rate=0.0)", batch).weights_BP.sum() == 0
    full = blocks.corrupt("t5_spans(rate=1.0)", batch)
    assert (full.weights_BP.sum(axis=1) == 9).all(), "one token stays, as published"


def test_max_predictions():
    found = blocks.corrupt("t5_spans(max_predictions=20)", blocks.block(64, [1] * 510))
    assert (found.weights_BP.sum(axis=1) == 20).all()
    assert (np.bincount(blocks.runs(blocks.chosen(found))[:, 0]) == 7).all()


@pytest.mark.parametrize("rest", ["", ", roll=True"])
def test_short_texts(rest):
    """No token, one, two: none, one and one is hidden."""
    parts = [blocks.block(2, words, padding=3 - len(words)) for words in ([], [1], [1, 1])]
    found = blocks.corrupt(f"t5_spans(rate=0.5{rest})", data.joined(*parts))
    assert found.weights_BP.sum(axis=1).tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("t5_spans(mean_length=0.5)", "mean_length is 0.5, expected at least 1"),
        ("t5_spans(rate=1.1)", "rate is 1.1"),
        ("t5_spans(mask=0.9, random=0.2)", "sum to <= 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        blocks.corrupt(call, blocks.text_rows(0, 2, 16))

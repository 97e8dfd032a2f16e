"""ELECTRA's rows against a literal copy of what its script does, draw by draw."""

from __future__ import annotations

import itertools

import corpora
import numpy as np
import pytest

from bert_variants.config import ConfigError
from bert_variants.registry import lookup
from bert_variants.text.rows import assemble

CLS, SEP = corpora.VOCAB.cls, corpora.VOCAB.sep


def plan_of(window, *, seed=0, length=32, call="electra_pairs()"):
    return lookup("example", call)(
        window, np.random.default_rng(seed), corpora.VOCAB, length=length
    )


def uniforms(rng):
    while True:
        yield from rng.random(1 << 14).tolist()


def literal(documents, rng, length, short=0.05, alone=0.1):
    """build_pretraining_dataset.py with token lists, one line a sentence.

    Draws come from the same stream in the same order. Yields the two segments of every example.
    """
    draw = uniforms(rng).__next__
    target = length
    for sentences in documents:
        gathered, size = [], 0
        for number, sentence in enumerate(sentences):
            gathered.append(sentence)
            size += len(sentence)
            if size < target and number < len(sentences) - 1:
                continue
            most = 100_000 if draw() < alone else (target - 3) // 2
            first, second = [], []
            for one in gathered:
                if (
                    len(first) == 0
                    or len(first) + len(one) < most
                    or (len(second) == 0 and len(first) < most and draw() < 0.5)
                ):
                    first += one
                else:
                    second += one
            first = first[: length - 2]
            second = second[: max(0, length - len(first) - 3)]
            target = length
            if draw() < short:
                target = 5 + int(draw() * (length - 4))
            yield first, second
            gathered, size = [], 0


def token_lists(window):
    tokens = window.tokens.tolist()
    borders = window.sentences.tolist()
    return [
        [tokens[borders[s] : borders[s + 1]] for s in range(low, high)]
        for low, high in itertools.pairwise(window.documents.tolist())
    ]


@pytest.mark.parametrize("length", [5, 12, 32, 128])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shares", [(0.05, 0.1), (0.9, 0.5), (0.0, 0.0)])
def test_the_rows_are_the_scripts(length, seed, shares):
    window = corpora.window(corpora.random_documents(seed))
    short, alone = shares
    call = f"electra_pairs(short={short}, alone={alone})"
    plan = plan_of(window, seed=seed, length=length, call=call)
    expected, kept = [], 0
    for first, second in literal(
        token_lists(window), np.random.default_rng(seed), length, short, alone
    ):
        if len(first) + len(second) >= 2:
            ids = [CLS, *first, SEP] + ([*second, SEP] if second else [])
            segments = [0] * (len(first) + 2) + [1] * (len(second) + 1 if second else 0)
            expected.append((ids, segments))
            kept += len(first) + len(second)
    assert len(plan) == len(expected) > 20
    batch = assemble(plan, np.arange(len(plan)), window, corpora.VOCAB, length)
    for row, (ids, segments) in enumerate(expected):
        valid = batch.valid_BT[row]
        assert batch.tokens_BT[row][valid].tolist() == ids
        assert batch.segments_BT[row][valid].tolist() == segments
    assert kept + sum(plan.dropped.values()) == len(window.tokens), "every token is accounted for"


def test_a_row_by_hand():
    """Sentences 5 6 7, 8 9 and 10 .. 16, a row of 12: A is the first, with the second if so."""
    window = corpora.window([[3, 2, 7]])
    found = {
        tuple(corpora.row_tokens(plan_of(window, seed=seed, length=12), 0, window))
        for seed in range(60)
    }
    alone = (CLS, *range(5, 15), SEP)
    one = (CLS, 5, 6, 7, SEP, 8, 9, 10, 11, 12, 13, SEP)
    two = (CLS, 5, 6, 7, 8, 9, SEP, 10, 11, 12, 13, SEP)
    assert found == {alone, one, two}


def test_a_short_sentence_may_join_the_first_segment_from_behind():
    """As published: sentences of 3, 9 and 1 tokens, A below 7: the second is too long, the third
    is not."""
    window = corpora.window([[3, 9, 1, 9]])
    rows = {
        tuple(corpora.row_tokens(plan_of(window, seed=seed, length=18), 0, window))
        for seed in range(60)
    }
    joined = (CLS, 5, 6, 7, 17, SEP, *range(8, 17), 18, 19, SEP)
    assert joined in rows


def test_shares_over_many_rows():
    """Most rows are full, and one full row in ten is a segment alone."""
    rng = np.random.default_rng(0)
    window = corpora.window(rng.integers(1, 9, (2000, 200)).tolist())
    plan = plan_of(window, length=64)
    sizes = np.add.reduceat(plan.length, plan.rows[:-1])
    assert (sizes <= 64).all()
    full = sizes == 64
    assert len(plan) > 25_000
    assert 0.85 < full.mean() < 0.95
    alone = plan.segment[plan.rows[1:] - 1][full] == 0
    assert abs(alone.mean() - 0.1) < 5 * (0.1 * 0.9 / full.sum()) ** 0.5
    assert np.diff(plan.rows).max() >= 6, "a segment of several pieces"


@pytest.mark.parametrize(
    ("call", "length", "message"),
    [
        ("electra_pairs()", 4, r"data\.length is 4, expected at least 5"),
        ("electra_pairs(short=1.5)", 32, "short is 1.5, expected 0 <= x <= 1"),
        ("electra_pairs(alone=-0.1)", 32, r"alone is -0\.1"),
    ],
)
def test_refusals(call, length, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(corpora.window([[3]]), call=call, length=length)

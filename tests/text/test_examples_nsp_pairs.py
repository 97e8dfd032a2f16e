"""NSP pairs against a literal copy of what BERT's script does, drop by drop."""

from __future__ import annotations

import itertools

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.config import ConfigError
from bert_variants.text.examples.nsp_pairs import nsp_pairs
from bert_variants.text.pairing import truncation
from bert_variants.text.rows import assemble


def uniforms(rng):
    while True:
        yield from rng.random(1 << 14).tolist()


def literal(documents, rng, length, short):
    """create_pretraining_data.py's loop over one document after another, with token lists.

    Draws come from the same stream and are used in the same order as in the builder, the sides
    of dropped tokens excepted. Yields (A, B, label) before and the two lengths after truncation.
    """
    draw = uniforms(rng).__next__
    budget = length - 3
    for index, sentences in enumerate(documents):
        target = budget
        if draw() < short:
            target = 2 + int(draw() * (budget - 1))
        chunk, size, i = [], 0, 0
        while i < len(sentences):
            chunk.append(sentences[i])
            size += len(sentences[i])
            if i == len(sentences) - 1 or size >= target:
                a_end = 1
                if len(chunk) >= 2:
                    a_end = 1 + int(draw() * (len(chunk) - 1))
                a = list(itertools.chain(*chunk[:a_end]))
                b = []
                if len(chunk) == 1 or draw() < 0.5:
                    label = 1
                    for _ in range(10):
                        other = int(draw() * len(documents))
                        if other != index:
                            break
                    begin = int(draw() * len(documents[other]))
                    for sentence in documents[other][begin:]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end
                else:
                    label = 0
                    b = list(itertools.chain(*chunk[a_end:]))
                yield a, b, label, shortened(len(a), len(b), budget)
                chunk, size = [], 0
            i += 1


def shortened(a, b, budget):
    while a + b > budget:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


def as_tokens(window):
    s, d = window.sentences.tolist(), window.documents.tolist()
    sentences = [list(range(x, y)) for x, y in itertools.pairwise(s)]  # token = its position
    return [sentences[x:y] for x, y in itertools.pairwise(d)]


def plan_of(window, *, seed=0, length=32, short=0.1):
    return nsp_pairs(window, np.random.default_rng(seed), corpora.VOCAB, length=length, short=short)


@pytest.mark.parametrize("length", [5, 16, 32, 128])
@pytest.mark.parametrize("short", [0.0, 0.1, 1.0])
def test_same_rows_as_the_literal_loop(length, short):
    window = corpora.window(corpora.random_documents(length))
    plan = plan_of(window, length=length, short=short)
    expected = list(literal(as_tokens(window), np.random.default_rng(0), length, short))
    assert len(plan) == len(expected)
    pieces = zip(plan.start.reshape(-1, 5), plan.length.reshape(-1, 5), strict=True)
    for (start, size), label, (a, b, is_random, kept) in zip(
        pieces, plan.labels["next_sentence"], expected, strict=True
    ):
        assert label == is_random
        assert (size[1], size[3]) == kept
        for side, at, n in ((a, start[1], size[1]), (b, start[3], size[3])):
            assert at in side
            assert side[side.index(at) : side.index(at) + n] == list(range(at, at + n))


@given(st.integers(1, 80), st.integers(1, 80), st.integers(2, 60))
@settings(deadline=None)
def test_truncation_in_closed_form(a, b, budget):
    cut_a, cut_b = truncation(np.array([a]), np.array([b]), budget)
    assert (a - cut_a[0], b - cut_b[0]) == shortened(a, b, budget)


def test_truncation_takes_front_and_back_alike():
    # One document of one sentence, 4 times too long: B is that sentence too.
    window = corpora.window([[64]] * 3000)
    plan = plan_of(window, length=35, short=0.0)
    size = plan.length.reshape(-1, 5)
    assert (size[:, 1] == 16).all()
    assert (size[:, 3] == 16).all()
    front = plan.start.reshape(-1, 5)[:, 1] % 64
    # Binomial(48, 1/2): mean 24, variance 12.
    assert abs(front.mean() - 24) < 5 * np.sqrt(12 / 3000)
    assert abs(front.var() - 12) < 2
    assert plan.dropped["pair longer than the row"] == 96 * 3000


def test_chunks_of_one_sentence_are_always_random():
    plan = plan_of(corpora.window([[40]] * 50), length=32)
    assert (plan.labels["next_sentence"] == 1).all()


def test_more_than_half_of_all_pairs_are_random():
    plan = plan_of(corpora.window(corpora.random_documents(1, count=400)), length=64)
    assert 0.5 < plan.labels["next_sentence"].mean() < 0.8


def test_true_pairs_are_half_where_no_chunk_is_single():
    plan = plan_of(corpora.window([[4] * 4000] * 3), length=67, short=0.0)
    n = len(plan)
    assert abs(plan.labels["next_sentence"].mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_random_next_comes_from_another_document_if_there_is_one():
    window = corpora.window([[5] * 30] * 8)
    plan = plan_of(window, length=40)
    start = plan.start.reshape(-1, 5)
    other = start[:, 1] // 150 != start[:, 3] // 150
    assert (other == plan.labels["next_sentence"].astype(bool)).all()


def test_a_single_document_gives_its_own_sentences_as_random_next():
    plan = plan_of(corpora.window([[5] * 60]), length=40)
    assert (plan.labels["next_sentence"] == 1).any()
    assert plan.start.max() < 300


def test_rewound_sentences_are_used_again():
    """Every token of the corpus is in an A or in a true B, if nothing is cut."""
    window = corpora.window([[3] * 50] * 4)
    plan = plan_of(window, length=64, short=0.0)
    seen = np.zeros(len(window.tokens), int)
    rows = zip(
        plan.start.reshape(-1, 5),
        plan.length.reshape(-1, 5),
        plan.labels["next_sentence"],
        strict=True,
    )
    for start, size, label in rows:
        seen[start[1] : start[1] + size[1]] += 1
        if not label:
            seen[start[3] : start[3] + size[3]] += 1
    assert plan.dropped["pair longer than the row"] < 5 * len(plan)
    assert (seen <= 1).all()
    assert seen.sum() >= len(window.tokens) - plan.dropped["pair longer than the row"]


def test_short_targets_are_drawn_once_a_document():
    plan = plan_of(corpora.window([[1] * 3000] * 40), length=128, short=1.0)
    start, size = plan.start.reshape(-1, 5), plan.length.reshape(-1, 5)
    total = size[:, 1] + size[:, 3]
    true = plan.labels["next_sentence"] == 0
    for d in range(40):
        here = true & (start[:, 1] // 3000 == d)
        # With sentences of one token a chunk hits the target exactly; the tail may fall short.
        assert (total[here] == total[here].max()).sum() >= here.sum() - 1


def test_segments_of_the_reference_row():
    """variants-1, section 10: A=3, B=2, S=10 gives 0 0 0 0 0 1 1 1 0 0."""
    window = corpora.window([[3, 2]])
    for seed in range(30):
        plan = plan_of(window, seed=seed, length=10, short=0.0)
        if plan.labels["next_sentence"][0] == 0:
            break
    batch = assemble(plan, np.array([0]), window, corpora.VOCAB, 10)
    assert batch.segments_BT.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 0, 0]]
    assert batch.tokens_BT.tolist() == [[2, 5, 6, 7, 3, 8, 9, 3, 0, 0]]


def test_length_and_short_are_checked():
    window = corpora.window([[3, 2]])
    with pytest.raises(ConfigError, match="length is 4, expected at least 5"):
        plan_of(window, length=4)
    with pytest.raises(ConfigError, match=r"short is 1\.5"):
        plan_of(window, short=1.5)

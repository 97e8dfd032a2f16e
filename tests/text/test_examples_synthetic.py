"""From text to label: in stories of which the order is known, labels say what can be read there."""

from __future__ import annotations

import corpora
import numpy as np
import pytest

from bert_variants.text.pipeline import Pipeline, Position
from bert_variants.text.prepare import prepare
from bert_variants.text.synthetic_language import TIMES

# What a story tells in this order, if it does.
BEATS = ("was born in", "works for", " makes ", *TIMES["en"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stories")
    settings = {"tokenizer": "wordpiece(size=500)", "held_out": 0.05}
    return prepare(corpora.settings(folder, "synthetic(documents=400)", **settings))


def rows(store, example, label):
    """(text of A, text of B, label) for every row of a visit."""
    pipeline = Pipeline(store, "train", example=example, length=160, batch=64, seed=0)
    tokenizer, position = store.tokenizer, Position()
    while position.epoch == 0:
        batch, position = pipeline.batch(position)
        text = np.where(batch.maskable_BT, batch.segments_BT, -1)
        for tokens, side, value in zip(batch.tokens_BT, text, batch.labels[label], strict=True):
            yield *(tokenizer.decode(tokens[side == k]) for k in (0, 1)), int(value)


def told(text):
    """The beats that a piece of a story tells, by their place in a story."""
    return [n for n, beat in enumerate(BEATS) if beat in text]


@pytest.mark.parametrize(
    ("example", "label"),
    [
        ("nsp_pairs()", "next_sentence"),
        ("segment_pairs()", "next_sentence"),
        ("sentence_pairs()", "next_sentence"),
        ("sop_pairs(singles='skip')", "swapped"),
        ("three_way_pairs()", "sentence_order"),
    ],
)
def test_order_can_be_read_off_the_text(store, example, label):
    """B tells later beats than A where it follows, earlier ones where the two are swapped."""
    swapped = {"next_sentence": None, "swapped": 1, "sentence_order": 1}[label]
    ordered = {0: 0, 1: 0}
    for a, b, value in rows(store, example, label):
        left, right = told(a), told(b)
        if not left or not right:
            continue
        if value == 0:
            assert max(left) < min(right), (a, b)
            ordered[0] += 1
        elif value == swapped:
            assert max(right) < min(left), (a, b)
            ordered[1] += 1
    assert ordered[0] > 50
    assert ordered[1] > 50 or swapped is None


@pytest.mark.parametrize("example", ["nsp_pairs()", "sentence_pairs()"])
def test_random_pairs_are_in_no_order(store, example):
    """Else the label could be read off without knowing the story."""
    later = [
        max(told(a)) < min(told(b))
        for a, b, value in rows(store, example, "next_sentence")
        if value == 1 and told(a) and told(b)
    ]
    assert 0.1 < np.mean(later) < 0.7

"""Single sequences, DOC-SENTENCES and FULL-SENTENCES."""

from __future__ import annotations

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.config import ConfigError
from bert_variants.text.examples.full_sentences import full_sentences
from bert_variants.text.examples.single import doc_sentences, single

CLS, SEP = corpora.VOCAB.cls, corpora.VOCAB.sep
DOCUMENTS = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=8), min_size=1, max_size=8)


def rows_of(example, documents, length, **options):
    window = corpora.window(documents)
    rng = np.random.default_rng(0)
    plan = example(window, rng, corpora.VOCAB, length=length, **options)
    return [corpora.row_tokens(plan, r, window) for r in range(len(plan))], plan, window


def spelled(rows):
    """Text tokens as positions, [CLS] and [SEP] as letters: reads well in a failure."""
    return [["C" if t == CLS else "S" if t == SEP else t - 5 for t in row] for row in rows]


def test_single_takes_whole_sentences_and_never_crosses_documents():
    rows, plan, _ = rows_of(single, [[2, 2, 3], [4, 1]], 7)
    assert spelled(rows) == [
        ["C", 0, 1, 2, 3, "S"],
        ["C", 4, 5, 6, "S"],
        ["C", 7, 8, 9, 10, 11, "S"],
    ]
    assert not any(plan.dropped.values())


def test_single_cuts_or_drops_what_is_too_long():
    documents = [[2, 7, 1, 1]]
    rows, plan, _ = rows_of(single, documents, 6)
    assert spelled(rows) == [
        ["C", 0, 1, "S"],
        ["C", 2, 3, 4, 5, "S"],
        ["C", 6, 7, 8, 9, "S"],
    ]
    assert plan.dropped["row of fewer than 2 tokens"] == 1
    assert plan.altered["sentence cut into pieces"] == 1
    rows, plan, _ = rows_of(single, documents, 6, long="drop")
    assert spelled(rows) == [["C", 0, 1, "S"], ["C", 9, 10, "S"]]
    assert plan.dropped["sentence longer than the row"] == 7
    assert plan.altered["sentence cut into pieces"] == 0


def test_rows_of_one_token_are_dropped_and_counted():
    rows, plan, _ = rows_of(single, [[1], [3]], 8)
    assert spelled(rows) == [["C", 1, 2, 3, "S"]]
    assert plan.dropped["row of fewer than 2 tokens"] == 1


def test_full_sentences_of_the_docstring():
    rows, _, _ = rows_of(full_sentences, [[3], [2], [5]], 12)
    assert spelled(rows) == [["C", 0, 1, 2, "S", 3, 4, "S"], ["C", 5, 6, 7, 8, 9, "S"]]


def test_full_sentences_goes_on_with_the_next_document():
    rows, _, _ = rows_of(full_sentences, [[2, 2], [1], [2, 3]], 12)
    assert spelled(rows) == [
        ["C", 0, 1, 2, 3, "S", 4, "S", 5, 6, "S"],
        ["C", 7, 8, 9, "S"],
    ]


@pytest.mark.parametrize("example", [single, doc_sentences, full_sentences])
@given(documents=DOCUMENTS, length=st.integers(4, 30))
@settings(deadline=None, max_examples=60)
def test_every_token_is_there_once_and_in_order(example, documents, length):
    rows, plan, window = rows_of(example, documents, length)
    assert all(len(row) <= length for row in rows)
    assert all(row[0] == CLS and row[-1] == SEP for row in rows)
    text = [t for row in rows for t in row if t >= 5]
    left = plan.dropped["row of fewer than 2 tokens"]
    assert len(text) + left == len(window.tokens)
    if not left:
        assert text == window.tokens.tolist()


@pytest.mark.parametrize("example", [single, doc_sentences, full_sentences])
@given(documents=DOCUMENTS, length=st.integers(30, 60))
@settings(deadline=None, max_examples=60)
def test_filling_is_greedy_and_sentences_stay_whole(example, documents, length):
    _, plan, window = rows_of(example, documents, length)
    borders = set(window.sentences.tolist())
    is_text = plan.start >= 0
    ends = plan.start + plan.length
    assert set(plan.start[is_text].tolist()) <= borders
    assert set(ends[is_text].tolist()) <= borders
    document_ends = set(window.sentences[window.documents].tolist())
    sizes = np.add.reduceat(plan.length, plan.rows[:-1]) if len(plan) else []
    for r in range(len(plan) - 1):
        end = int(ends[plan.rows[r + 1] - 2])
        if end in document_ends and example is not full_sentences:
            continue
        after = window.sentences[np.searchsorted(window.sentences, end, side="right")]
        separator = 1 if end in document_ends else 0
        assert sizes[r] + separator + (after - end) > length


def test_doc_sentences_is_single_with_cutting():
    documents = corpora.random_documents(3)
    assert rows_of(doc_sentences, documents, 20)[0] == rows_of(single, documents, 20)[0]


@pytest.mark.parametrize("example", [single, doc_sentences, full_sentences])
def test_length_is_checked(example):
    with pytest.raises(ConfigError, match="length is 3, expected at least 4"):
        rows_of(example, [[2]], 3)


def test_unknown_long_is_refused():
    with pytest.raises(ConfigError, match="'cut' or 'drop'"):
        rows_of(single, [[2]], 8, long="keep")

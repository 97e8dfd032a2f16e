"""Sentence order, three-way, and RoBERTa's pairs: polarity, frequencies, and where B comes from."""

from __future__ import annotations

import functools

import corpora
import numpy as np
import pytest

from bert_variants.config import ConfigError
from bert_variants.registry import lookup
from bert_variants.text.pairing import NEXT, RANDOM, Balance, another
from bert_variants.text.rows import assemble

CLS, SEP = corpora.VOCAB.cls, corpora.VOCAB.sep
LABELS = {
    "nsp_pairs": "next_sentence",
    "segment_pairs": "next_sentence",
    "sentence_pairs": "next_sentence",
    "sop_pairs": "swapped",
    "three_way_pairs": "sentence_order",
}
every = pytest.mark.parametrize("name", LABELS)


def plan_of(call, window, *, seed=0, length=32):
    return lookup("example", call)(
        window, np.random.default_rng(seed), corpora.VOCAB, length=length
    )


def label_of(plan):
    (values,) = plan.labels.values()
    return values


def sides(plan):
    """Begin and size of A and of B in every row."""
    text = plan.start >= 0
    start, size = plan.start[text].reshape(-1, 2), plan.length[text].reshape(-1, 2)
    return start[:, 0], size[:, 0], start[:, 1], size[:, 1]


def document_of(window, positions):
    borders = window.sentences[window.documents]
    return np.searchsorted(borders, positions, side="right") - 1


@functools.cache
def long_documents(count=5000):
    """Documents of 100 short sentences."""
    rng = np.random.default_rng(0)
    return corpora.window(rng.integers(1, 5, (count, 100)).tolist())


def worked(call, label, *, length=10):
    """The row of that label for a document "5 6 7", "8 9" in front of another one, "10 11"."""
    window = corpora.window([[3, 2], [2]])
    for seed in range(200):
        plan = plan_of(call, window, seed=seed, length=length)
        if label_of(plan)[0] == label:
            batch = assemble(plan, np.array([0]), window, corpora.VOCAB, length)
            return batch.tokens_BT[0].tolist(), batch.segments_BT[0].tolist()
    raise AssertionError(f"no row of label {label}")


def test_sentence_order_by_hand():
    in_order, swapped = (worked("sop_pairs(short=0.0)", label) for label in (0, 1))
    assert in_order == ([2, 5, 6, 7, 3, 8, 9, 3, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    assert swapped == ([2, 8, 9, 3, 5, 6, 7, 3, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1, 0, 0])


def test_three_classes_by_hand():
    rows = [worked("three_way_pairs(short=0.0)", label) for label in (0, 1, 2)]
    assert rows[0] == ([2, 5, 6, 7, 3, 8, 9, 3, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    assert rows[1] == ([2, 8, 9, 3, 5, 6, 7, 3, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1, 0, 0])
    assert rows[2] == ([2, 5, 6, 7, 3, 10, 11, 3, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("call", ["sentence_pairs()", "segment_pairs(short=0.0)"])
def test_robertas_separators_by_hand(call):
    tokens, segments = worked(call, 0)
    assert tokens == [2, 5, 6, 7, 3, 3, 8, 9, 3, 0]
    assert segments == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0]
    tokens, _ = worked(call, 1)
    assert tokens == [2, 5, 6, 7, 3, 3, 10, 11, 3, 0]


@pytest.mark.parametrize(("name", "classes"), [("sop_pairs", 2), ("three_way_pairs", 3)])
def test_frequencies_over_100_000_rows(name, classes):
    plan = plan_of(f"{name}(short=1.0, singles='skip')", long_documents(), length=14)
    n, expected = len(plan), 1 / classes
    assert n > 100_000
    found = np.bincount(label_of(plan), minlength=classes) / n
    assert (abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / n)).all()


def test_sentence_pairs_are_random_half_of_the_time():
    plan = plan_of("sentence_pairs()", long_documents(2000), length=64)
    n = len(plan)
    assert n > 100_000
    assert abs(label_of(plan).mean() - 1 / 2) < 5 * 0.5 / np.sqrt(n)
    assert sum(plan.altered.values()) < 20


@pytest.mark.parametrize(
    ("call", "classes"), [("three_way_pairs(short=0.0)", 3), ("sentence_pairs()", 2)]
)
def test_documents_of_one_sentence_do_not_move_the_frequencies(call, classes):
    """Some chunks can only be random; the others make up for it."""
    window = corpora.window([[9] * 24 if d % 2 else [9] for d in range(8_000)])
    plan = plan_of(call, window, length=64)
    n, label = len(plan), label_of(plan)
    alone = document_of(window, sides(plan)[0]) % 2 == 0
    assert 0.04 < alone.mean() < 0.4
    assert (label[alone] == classes - 1).all()
    found = np.bincount(label) / n
    expected = 1 / classes
    assert (abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / n)).all()


@pytest.mark.parametrize("call", ["three_way_pairs()", "sentence_pairs()"])
def test_what_cannot_be_made_up_for_is_counted(call):
    """Nothing but documents of one sentence: all rows are random, more than their share."""
    plan = plan_of(call, corpora.window([[9]] * 3000), length=64)
    label = label_of(plan)
    classes = 3 if call.startswith("three") else 2
    assert (label == classes - 1).all()
    (beyond,) = plan.altered.values()
    expected = 3000 * (1 - 1 / classes)
    assert abs(beyond - expected) < 5 * np.sqrt(expected / classes)


@every
def test_b_is_where_the_label_says(name):
    """Chunks of 44, 44 and 2 tokens, the last one a single sentence; nothing is too long."""
    window = corpora.window([[2] * 45] * 60)
    call = f"{name}()" if name == "sentence_pairs" else f"{name}(short=0.0)"
    plan = plan_of(call, window, length=47 + (name == "segment_pairs"))
    assert plan.dropped["pair longer than the row"] == 0
    label = label_of(plan)
    a, a_size, b, b_size = sides(plan)
    same = document_of(window, a) == document_of(window, b)
    follows, precedes = a + a_size == b, b + b_size == a
    assert (follows == (label == 0)).all()
    if name == "three_way_pairs":
        assert (precedes == (label == 1)).all()
        assert (same == (label != 2)).all()
    elif name == "sop_pairs":  # a single sentence has a partner elsewhere, labelled as swapped
        assert ((precedes | ~same) == (label == 1)).all()
        assert precedes.sum() > 20
        assert (~same).sum() == 60
    else:
        assert (same == (label == 0)).all()


@pytest.mark.parametrize("name", ["sop_pairs", "three_way_pairs"])
def test_both_orders_hold_the_same_chunks(name):
    """Whatever the coin says, the two parts of a chunk are the same ones."""
    window = corpora.window([[4] * 400] * 30)
    plan = plan_of(f"{name}(short=0.0, singles='skip')", window, length=67)
    _, a_size, _, b_size = sides(plan)
    label = label_of(plan)
    first = np.where(label == 1, b_size, a_size)  # the part that comes first in the text
    in_order, swapped = first[label == 0], first[label == 1]
    spread = np.sqrt(first.var() * (1 / len(in_order) + 1 / len(swapped)))
    assert abs(in_order.mean() - swapped.mean()) < 5 * spread


@pytest.mark.parametrize("name", ["sop_pairs", "three_way_pairs"])
def test_chunks_of_one_sentence(name):
    window = corpora.window([[40]] * 50 + [[3] * 40] * 5)
    random = 1 if name == "sop_pairs" else 2
    kept = plan_of(f"{name}(short=0.0)", window, length=32)
    long = sides(kept)[0] < 2000
    assert long.sum() == 50
    assert (label_of(kept)[long] == random).all()
    left = plan_of(f"{name}(short=0.0, singles='skip')", window, length=32)
    assert left.dropped["sentence without a partner"] >= 2000
    assert (sides(left)[0] >= 2000).all()


@every
def test_one_document(name):
    """There is no other: official layouts take the same one, balanced ones make no random pair."""
    plan = plan_of(f"{name}()", corpora.window([[5] * 60 + [3]]), length=40)
    assert len(plan) > 5
    if name == "three_way_pairs":
        assert set(label_of(plan).tolist()) == {0, 1}
    if name == "sentence_pairs":
        assert set(label_of(plan).tolist()) == {0}
        assert plan.dropped["sentence without a partner"] == 3
    one = plan_of(f"{name}()", corpora.window([[5]]), length=40)
    official = name in ("nsp_pairs", "segment_pairs", "sop_pairs")
    assert len(one) == official
    if not official:
        assert one.dropped["sentence without a partner"] == 5


@every
def test_nothing_is_lost_unaccounted(name):
    window = corpora.window(corpora.random_documents(5, count=60))
    plan = plan_of(f"{name}()", window, length=24)
    covered = np.zeros(len(window.tokens), bool)
    for a, a_size, b, b_size in zip(*sides(plan), strict=True):
        covered[a : a + a_size] = covered[b : b + b_size] = True
    lost = int((~covered).sum())
    assert lost <= sum(plan.dropped.values())
    roomy = plan_of(f"{name}()", window, length=1000)
    assert roomy.dropped["pair longer than the row"] <= plan.dropped["pair longer than the row"]


@every
def test_same_seed_same_rows_other_seed_other_rows(name):
    window = corpora.window(corpora.random_documents(6, count=60))
    one, two, other = (plan_of(f"{name}()", window, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.start, two.start)
    np.testing.assert_array_equal(label_of(one), label_of(two))
    assert len(one) != len(other) or (label_of(one) != label_of(other)).any()


@every
def test_settings_are_checked(name):
    window = corpora.window([[3, 2], [4]])
    least = 6 if name in ("segment_pairs", "sentence_pairs") else 5
    with pytest.raises(ConfigError, match=rf"{name}: data\.length is .*at least {least}"):
        plan_of(f"{name}()", window, length=least - 1)
    assert len(plan_of(f"{name}()", window, length=least)) > 0
    if name != "sentence_pairs":
        with pytest.raises(ConfigError, match=rf"{name}: short is -0\.5"):
            plan_of(f"{name}(short=-0.5)", window)
    if least == 6:
        with pytest.raises(ConfigError, match=rf"{name}: separators is 3"):
            plan_of(f"{name}(separators=3)", window)


def test_segment_pairs_are_nsp_pairs_with_other_separators():
    window = corpora.window(corpora.random_documents(7))
    ours = plan_of("segment_pairs(separators=1)", window)
    berts = plan_of("nsp_pairs()", window)
    np.testing.assert_array_equal(ours.start, berts.start)
    np.testing.assert_array_equal(ours.length, berts.length)


def test_another_document():
    draws = iter([0.0] * 10)
    assert another(lambda: next(draws), 0, 3) == 1  # ten times the same: the following one
    assert another(lambda: 0.0, 0, 1) == 0  # there is none
    assert another(lambda: 0.99, 0, 3) == 2
    assert another(lambda: 0.5, 2, 3) == 1


def test_what_is_owed_is_paid_by_the_next_free_random():
    draws = iter([0.1, 0.9, 0.9, 0.9])  # bound: owes NEXT; bound: drew RANDOM; free RANDOM, twice
    balance = Balance(lambda: next(draws), (NEXT, RANDOM))
    assert balance.bound() == RANDOM
    assert balance.owed == [NEXT]
    assert balance.bound() == RANDOM
    assert balance.owed == [NEXT]
    assert balance.free() == NEXT
    assert balance.owed == []
    assert balance.free() == RANDOM

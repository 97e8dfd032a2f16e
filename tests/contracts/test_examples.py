"""What every registered row builder must do. A new one is tested by existing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bert_variants import registry
from bert_variants.config import ConfigError
from bert_variants.text.plan import Window
from bert_variants.text.rows import assemble
from bert_variants.types import Vocab

EXAMPLES = registry.names("example")
VOCAB = Vocab(size=500, pad=0, unk=1, cls=2, sep=3, mask=4, specials=(0, 1, 2, 3, 4))
LENGTHS = (8, 32, 128)


def make_window(seed: int, documents: int = 30) -> Window:
    rng = np.random.default_rng(seed)
    per = rng.choice([1, 1, 2, 5, 20], documents)
    lengths = rng.integers(1, 40, per.sum())
    lengths[::17] = 150  # longer than any row here
    count = int(lengths.sum())
    return Window(
        documents=np.concatenate([[0], np.cumsum(per)]).astype(np.int64),
        sentences=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        tokens=rng.integers(5, 500, count).astype(np.uint16),
        word_starts=rng.random(count) < 0.7,
    )


def planned(name: str, window: Window, seed: int = 0, length: int = 32):
    return registry.lookup("example", name)(
        window, np.random.default_rng(seed), VOCAB, length=length
    )


@pytest.fixture(params=EXAMPLES)
def name(request) -> str:
    return request.param


def test_traits_are_declared(name):
    entry = registry.entry("example", name)
    assert "length" in entry.traits["reserved"]
    assert set(planned(name, make_window(0)).labels) == set(entry.traits["labels"])


def test_same_generator_same_plan(name):
    one, two = (planned(name, make_window(1), seed=5) for _ in range(2))
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
    for label in one.labels:
        np.testing.assert_array_equal(one.labels[label], two.labels[label])


def test_arrays_are_what_the_plan_says(name):
    plan = planned(name, make_window(2))
    kinds = {"rows": np.int64, "start": np.int64, "length": np.int32, "segment": np.int32}
    assert {k: getattr(plan, k).dtype for k in kinds} == {k: np.dtype(v) for k, v in kinds.items()}
    assert plan.rows[0] == 0
    assert plan.rows[-1] == len(plan.start) == len(plan.length) == len(plan.segment)
    assert (np.diff(plan.rows) > 0).all()
    assert (plan.length >= 0).all()
    assert (plan.length[plan.start < 0] == 1).all()
    assert set((-1 - plan.start[plan.start < 0]).tolist()) <= set(VOCAB.specials)
    assert all(len(v) == len(plan) for v in plan.labels.values())
    in_groups = registry.entry("example", name).traits["order"] == "batches"
    assert (plan.groups is not None) == in_groups
    assert not in_groups or plan.groups.shape == (len(plan),)
    assert all(n >= 0 for n in [*plan.dropped.values(), *plan.altered.values()])


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_fit_and_hold_text(name, length):
    window = make_window(3)
    plan = planned(name, window, length=length)
    assert len(plan) > 0
    batch = assemble(plan, np.arange(len(plan)), window, VOCAB, length)
    assert (batch.maskable_BT.sum(1) >= 2).all()
    assert not (batch.maskable_BT & ~batch.valid_BT).any()
    assert not np.isin(batch.tokens_BT[batch.maskable_BT], VOCAB.specials).any()
    assert np.isin(batch.tokens_BT[~batch.maskable_BT], VOCAB.specials).all()
    assert (batch.tokens_BT[~batch.valid_BT] == VOCAB.pad).all()
    assert (batch.segments_BT[~batch.valid_BT] == 0).all()
    assert (np.diff(batch.valid_BT.astype(int), axis=1) <= 0).all()  # padding is at the end
    assert ((batch.words_BT >= 0) == batch.maskable_BT).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_almost_no_text_is_lost_unaccounted(name, length):
    """Every token of the window is in a row, or is counted as dropped."""
    window = make_window(4)
    plan = planned(name, window, length=length)
    covered = np.zeros(len(window.tokens), bool)
    for start, size in zip(plan.start, plan.length, strict=True):
        if start >= 0:
            covered[start : start + size] = True
    assert (~covered).sum() <= sum(plan.dropped.values())


def test_streams_are_planned_in_reading_order(name):
    """A row that goes on begins behind where the one before it began; the first begins anew."""
    traits = registry.entry("example", name).traits
    if traits["order"] != "stream":
        assert "continues" not in traits["labels"]
        return
    plan = planned(name, make_window(6))
    continues = plan.labels["continues"]
    assert set(np.unique(continues)) <= {0, 1}
    assert continues[0] == 0
    assert continues.sum() > len(plan) // 2
    first = [
        next(s for s in plan.start[a:b] if s >= 0)
        for a, b in zip(plan.rows[:-1], plan.rows[1:], strict=True)
    ]
    assert (np.diff(first)[continues[1:] == 1] > 0).all()


@pytest.mark.parametrize("documents", [[1], [1, 1], [300]])
def test_the_smallest_windows(name, documents):
    """One document, documents of one token, a sentence that is much too long: no crash."""
    count = sum(documents)
    window = Window(
        documents=np.arange(len(documents) + 1, dtype=np.int64),
        sentences=np.concatenate([[0], np.cumsum(documents)]).astype(np.int64),
        tokens=np.full(count, 7, np.uint16),
        word_starts=np.ones(count, bool),
    )
    plan = planned(name, window)
    if len(plan):
        batch = assemble(plan, np.arange(len(plan)), window, VOCAB, 32)
        assert batch.maskable_BT.any(1).all()


def test_a_length_that_is_too_small_is_refused(name):
    with pytest.raises(
        ConfigError, match=f"{name if name != 'doc_sentences' else 'single'}.*length"
    ):
        planned(name, make_window(5), length=2)

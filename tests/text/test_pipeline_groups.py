"""Batches of one group: what shares a batch, what is left over, and all else as in other orders."""

from __future__ import annotations

import logging
from unittest import mock

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text.test_pipeline import read, same
from text.test_pipeline_streams import epoch

from bert_variants import registry
from bert_variants.config import ConfigError
from bert_variants.text import sharding
from bert_variants.text.orders import LEFT_OVER, blocks
from bert_variants.text.pipeline import Pipeline, Position
from bert_variants.text.prepare import prepare
from bert_variants.text.store import StoreError

BATCH = 4
TURNS = registry.write("alternating", {"examples": ("nsp_pairs()", "sop_pairs()")})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    parts = tuple(
        corpora.write_files(folder / str(k), files=4 - 2 * k, seed=k).replace('"', "'")
        for k in range(2)
    )
    source = registry.write("mix", {"parts": parts})
    with mock.patch.object(sharding, "SHARD_TOKENS", 400):
        return prepare(corpora.settings(folder / "data", source))


def rows(store, split="train", example=TURNS, **changes):
    values = {"length": 32, "batch": BATCH, "seed": 1, "window_tokens": 2000, **changes}
    return Pipeline(store, split, example=example, **values)


def kinds(batch):
    """Of each row of text: 0 for a pair of nsp_pairs, 1 for one of sop_pairs."""
    found = np.asarray(batch.labels["swapped"]) >= 0
    assert ((np.asarray(batch.labels["next_sentence"]) >= 0) != found).all()
    return found.astype(int)


def test_the_worked_blocks():
    order, full, small = blocks(np.array([0, 1, 0, 0, 1, 2]), 2, np.random.default_rng(0))
    assert full == 4
    assert small == {2: 1}
    assert {frozenset(order[:2].tolist()), frozenset(order[2:4].tolist())} > {frozenset({1, 4})}
    assert 5 in order[4:]
    assert blocks(np.zeros(0, np.int32), 2, np.random.default_rng(0))[1] == 0


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_blocks_hold_one_group_and_every_row_is_there(groups, batch, seed):
    groups = np.array(groups, np.int32)
    order, full, small = blocks(groups, batch, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(groups)))
    counts = np.bincount(groups, minlength=4)
    assert full == (counts // batch * batch).sum()
    held = groups[order[:full].reshape(-1, batch)]
    assert (held == held[:, :1]).all()
    assert small == {g: n for g, n in enumerate(counts.tolist()) if 0 < n < batch}


def test_a_batch_is_of_one_part_and_both_come_in_turns(store):
    found = [kinds(batch) for batch in epoch(rows(store), 0)]
    assert all(len(set(kind.tolist())) == 1 for kind in found)
    turns = [int(kind[0]) for kind in found]
    assert 0 < sum(turns) < len(turns)
    assert turns != sorted(turns)
    assert turns != sorted(turns, reverse=True)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (5.0, 1.0)])
def test_batches_come_by_weight(store, weights):
    pipeline = rows(store, example=registry.edit(TURNS, weights=weights))
    found = [kinds(batch)[0] for number in range(4) for batch in epoch(pipeline, number)]
    share = weights[1] / sum(weights)
    # a window leaves less than a batch of either part
    rows_of_window = min(len(pipeline.plan(0, slot)) for slot in range(pipeline.windows))
    assert abs(np.mean(found) - share) < 2 * BATCH / rows_of_window


def test_what_is_left_over_is_counted_and_comes_another_time(store):
    pipeline = rows(store)
    plans = [pipeline.plan(0, slot) for slot in range(pipeline.windows)]
    lost = sum(plan.dropped[LEFT_OVER] for plan in plans)
    text = sum(int(plan.length[plan.start >= 0].sum()) for plan in plans)
    batches = epoch(pipeline, 0)
    seen = sum(int((batch.words_BT >= 0).sum()) for batch in batches)
    assert lost > 0
    assert seen + lost == text
    whole = {
        int(i) for n in range(30) for b in epoch(rows(store, copies=1), n) for i in b.example_id_B
    }
    assert len(whole) == sum(len(plan) for plan in plans)


def test_any_position_can_be_gone_to_and_seeds_matter(store):
    batches, positions = read(rows(store), 9)[0], [Position()]
    for _ in batches:
        positions.append(rows(store).batch(positions[-1])[1])
    for batch, position in zip(batches, positions, strict=False):
        same(rows(store).batch(position)[0], batch)
    other = rows(store, seed=2).batch(Position())[0]
    assert not np.array_equal(other.tokens_BT, batches[0].tokens_BT)
    with pytest.raises(ConfigError, match="in the middle of a batch of 4 rows"):
        rows(store).batch(Position(0, 3))


def test_the_shares_of_several_processes_are_the_rows_of_one(store):
    whole, _ = read(rows(store), 6)
    parts = [read(rows(store, process_index=i, process_count=2), 6)[0] for i in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        joined = np.concatenate([np.asarray(share.tokens_BT) for share in shares])
        np.testing.assert_array_equal(joined, batch.tokens_BT)


def test_evaluation_has_every_row(store):
    held = rows(store, "held_out")
    plans = [held.plan(0, slot) for slot in range(held.windows)]
    batches = list(held.fixed(10_000))
    assert {b.tokens_BT.shape for b in batches} == {(BATCH, 32)}
    valid = sum(int(np.asarray(b.valid_BT).any(axis=1).sum()) for b in batches)
    assert valid == sum(len(plan) for plan in plans)


def test_a_part_smaller_than_a_batch_is_told(store, caplog):
    pipeline = rows(store, batch=60, window_tokens=10**6)
    with caplog.at_level(logging.WARNING):
        pipeline.batch(Position())
    (told,) = caplog.messages
    assert "group 1 of alternating(" in told
    assert "fewer than the 60 of a batch" in told
    with pytest.raises(StoreError, match=r"which fill no batch of 4000"):
        rows(store, batch=4000).batch(Position())


def test_a_plan_that_names_no_groups_is_refused(store, monkeypatch):
    from bert_variants.text.examples import alternating, by_part

    monkeypatch.setattr(alternating, "mixed", lambda *given: by_part.by_part(*given[:3], length=32))
    with pytest.raises(ConfigError, match="does not say which group"):
        rows(store, example="alternating()").batch(Position())


def test_streams_are_refused():
    call = registry.write("alternating", {"examples": ("stream()",)})
    with pytest.raises(registry.RegistryError, match="'alternating' mixes rows"):
        registry.lookup("example", call)

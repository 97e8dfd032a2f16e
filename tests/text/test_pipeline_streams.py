"""Lanes: places of consecutive batches are contiguous streams; all else is as in other orders."""

from __future__ import annotations

import dataclasses
import itertools
from unittest import mock

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text.test_pipeline import read, same

from bert_variants import registry
from bert_variants.config import ConfigError
from bert_variants.text import pipeline as module
from bert_variants.text.examples.stream import stream
from bert_variants.text.orders import LEFT_OVER, lanes
from bert_variants.text.pipeline import Pipeline, Position, prefetch
from bert_variants.text.store import StoreError

BATCH = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return corpora.small_store(tmp_path_factory.mktemp("streams"))


def rows(store, **changes):
    values = {
        "example": "stream()",
        "length": 16,
        "batch": BATCH,
        "seed": 1,
        "window_tokens": 1000,
        "split": "train",
    }
    values.update(changes)
    return Pipeline(store, values.pop("split"), **values)


def epoch(pipeline, number):
    """The batches of an epoch."""
    batches, position = [], Position(number)
    while position.epoch == number:
        batch, position = pipeline.batch(position)
        batches.append(batch)
    return batches


# ---- the order


def test_the_worked_lanes():
    order, full = lanes(7, 3, 0)
    assert order.tolist() == [0, 3, 5, 1, 4, 6, 2]
    assert full == 6
    assert lanes(6, 3, 0)[0].tolist() == [0, 2, 4, 1, 3, 5]
    assert lanes(2, 3, 0)[0].tolist() == [0, 1]
    assert lanes(2, 3, 0)[1] == 0
    assert lanes(0, 3, 5)[0].tolist() == []


@given(st.integers(0, 200), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_each_place_goes_through_one_stretch(count, batch, epoch):
    order, full = lanes(count, batch, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert full == count // batch * batch
    assert (order[batch:] == order[:-batch] + 1).all()  # the left over ones too


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (23, 4), (5, 6), (100, 64), (64, 64)])
def test_no_row_is_left_over_for_good(count, batch):
    left = []
    for number in range(batch):
        order, full = lanes(count, batch, number)
        left.append(set(order[full:].tolist()))
    if count >= batch:
        assert not set.intersection(*left)
        assert all(len(one) == count % batch for one in left)


# ---- batches


def follow(batches):
    """(row before, row) of each place of consecutive batches, as (identity, tokens, continues)."""
    each = [
        list(zip(b.example_id_B.tolist(), b.tokens_BT.tolist(), b.labels["continues"], strict=True))
        for b in batches
    ]
    return [pair for one, two in itertools.pairwise(each) for pair in zip(one, two, strict=True)]


def test_a_row_goes_on_exactly_where_it_says_so(store):
    pipeline = rows(store)
    batches, position = read(pipeline, 200)
    assert pipeline.windows > 2
    assert position.epoch > 2
    goes_on = 0
    for (before, _, _), (identity, _, continues) in follow(batches):
        goes_on += continues
        if continues:
            assert identity == before + 1
    assert goes_on > 0.8 * len(follow(batches))
    # where none goes on a window begins: then all begin
    counts = {int(b.labels["continues"].sum()) for b in batches}
    assert counts == {0, BATCH}


def test_the_text_of_a_place_is_one_piece_of_the_corpus(store):
    """Joined, the rows of a place stand in the window's own stream, token for token."""
    pipeline = rows(store)
    window = pipeline._planned(0, 0).window
    tokens: list[int] = []
    for begin, end in itertools.pairwise(window.sentences[window.documents].tolist()):
        tokens += [*window.tokens[begin:end].tolist(), store.vocab.sep]
    whole = " ".join(map(str, tokens))
    first = epoch(pipeline, 0)
    begins = [i for i, b in enumerate(first) if not b.labels["continues"].any()]
    length = begins[1]
    assert length > 3
    found = [
        [t for b in first[:length] for t in b.tokens_BT[k][b.valid_BT[k]].tolist()]
        for k in range(BATCH)
    ]
    for place in found:
        assert f" {' '.join(map(str, place))} " in f" {whole} "
    assert len({tuple(place) for place in found}) == BATCH


def test_an_epoch_has_every_row_at_most_once_and_says_what_is_left_over(store):
    pipeline = rows(store)
    for number in range(2):
        batches = epoch(pipeline, number)
        ids = [i for b in batches for i in b.example_id_B.tolist()]
        assert len(ids) == len(set(ids))
        assert all((b.visit_B == number).all() for b in batches)
        plans = [pipeline.plan(number, slot) for slot in range(pipeline.windows)]
        assert len(ids) == sum(len(plan) // BATCH * BATCH for plan in plans)
        text = sum(int(b.maskable_BT.sum()) for b in batches)
        for plan in plans:
            text += plan.dropped[LEFT_OVER]
        assert text == sum(int(np.where(p.start >= 0, p.length, 0).sum()) for p in plans)
        assert sum(p.dropped[LEFT_OVER] for p in plans) > 0


def test_a_batch_has_rows_of_one_window(store):
    pipeline = rows(store)
    stride = (1 << 32) // pipeline.windows
    for batch in epoch(pipeline, 0):
        assert len({i // stride for i in batch.example_id_B.tolist()}) == 1


def test_what_is_left_over_changes_with_the_epoch(store):
    pipeline = rows(store, copies=1)
    missing = []
    for number in range(BATCH):
        ids = {i for b in epoch(pipeline, number) for i in b.example_id_B.tolist()}
        planned = [pipeline._planned(number, slot) for slot in range(pipeline.windows)]
        every = {p.first_id + r for p in planned for r in range(len(p.plan))}
        missing.append(every - ids)
    assert all(missing)
    assert not set.intersection(*missing)


def test_any_position_can_be_gone_to_at_once(store):
    batches, _ = read(rows(store), 60)
    position = Position()
    for n, batch in enumerate(batches):
        if n % 7 == 3:
            same(rows(store).batch(Position.of(int(position)))[0], batch)
        position = rows(store).advance(position, BATCH)


def test_a_position_within_a_batch_is_refused(store):
    after = rows(store, batch=4).batch(Position())[1]
    with pytest.raises(ConfigError, match="in the middle of a batch of 6 rows"):
        rows(store).batch(after)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_keep_their_lanes(store, count):
    alone, after = read(rows(store), 40)
    size = BATCH // count
    for part in range(count):
        shares, end = read(rows(store, process_index=part, process_count=count), 40)
        assert end == after
        for whole, share in zip(alone, shares, strict=True):
            here = slice(part * size, (part + 1) * size)
            np.testing.assert_array_equal(share.tokens_BT, whole.tokens_BT[here])
            np.testing.assert_array_equal(
                share.labels["continues"], whole.labels["continues"][here]
            )


def test_prefetching_changes_nothing(store):
    expected, after = read(rows(store), 60)
    with prefetch(rows(store), Position(), depth=3) as batches:
        found = [next(batches) for _ in range(60)]
    for a, (b, _) in zip(expected, found, strict=True):
        same(a, b)
    assert found[-1][1] == after


def test_copies_repeat_the_rows(store):
    pipeline = rows(store, copies=2)

    def contents(number):
        return {
            i: tuple(t)
            for b in epoch(pipeline, number)
            for i, t in zip(b.example_id_B.tolist(), b.tokens_BT.tolist(), strict=True)
        }

    first, again, other = contents(0), contents(2), contents(1)
    both = first.keys() & again.keys()
    assert len(both) > 0.8 * len(first)
    assert all(first[i] == again[i] for i in both)
    assert set(first.values()) != set(other.values())


def test_a_plan_may_begin_anew_within_a_stretch(store):
    """Documents apart: each document's first row goes on from nothing, wherever it stands."""
    pipeline = rows(store, example="stream(documents='apart')")
    batches, _ = read(pipeline, 60)
    counts = {int(b.labels["continues"].sum()) for b in batches}
    assert len(counts) > 3
    sep = store.vocab.sep
    for (before, tokens, _), (identity, _, continues) in follow(batches):
        if continues:
            assert identity == before + 1
            assert sep not in tokens


# ---- evaluation


@pytest.mark.parametrize("batch", [4, 6, 7])
def test_evaluation_has_every_row_in_lanes(store, batch):
    pipeline = rows(store, split="held_out", batch=batch, window_tokens=400)
    assert pipeline.windows > 1
    found = list(pipeline.fixed(10**6))
    every = sum(len(pipeline.plan(0, slot)) for slot in range(pipeline.windows))
    valid = [b.valid_BT.any(1) for b in found]
    assert sum(int(v.sum()) for v in valid) == every
    assert min(int(v.sum()) for v in valid) < batch  # some window does not fill its last batch
    for v, b in zip(valid, found, strict=True):
        assert len(v) == batch
        assert (np.diff(v.astype(int)) <= 0).all()  # what is missing is at the end
        assert not b.labels["continues"][~v].any()
    for (before, _, _), (identity, _, continues) in follow(found):
        assert not continues or identity == before + 1
    assert sum(int(b.labels["continues"].sum()) for b in found) == every - sum(
        min(batch, len(pipeline.plan(0, slot))) for slot in range(pipeline.windows)
    )


def test_evaluation_takes_as_many_rows_as_it_is_asked_for(store):
    pipeline = rows(store, split="held_out", window_tokens=10**6)
    found = list(pipeline.fixed(2 * BATCH + 2))
    assert [int(b.valid_BT.any(1).sum()) for b in found] == [BATCH, BATCH, 2]
    assert [int(b.labels["continues"].sum()) for b in found] == [0, BATCH, 2]
    for a, b in zip(found, pipeline.fixed(2 * BATCH + 2), strict=True):
        same(a, b)


def test_evaluation_is_shared_like_batches(store):
    whole = list(rows(store, split="held_out").fixed(40))
    for part in range(3):
        share = rows(store, split="held_out", process_index=part, process_count=3)
        for a, b in zip(whole, share.fixed(40), strict=True):
            here = slice(2 * part, 2 * part + 2)
            np.testing.assert_array_equal(a.tokens_BT[here], b.tokens_BT)
            np.testing.assert_array_equal(a.labels["continues"][here], b.labels["continues"])


def test_fewer_rows_than_a_batch(store):
    """Training has no batch of them; evaluation has one that is not full."""
    pipeline = rows(store, split="held_out", batch=1000)
    with pytest.raises(
        StoreError, match=r"has \d+ rows of stream\(\), which fill no batch of 1000"
    ):
        pipeline.batch(Position())
    (*_, last) = pipeline.fixed(2000)
    assert last.tokens_BT.shape == (1000, 16)
    assert not last.labels["continues"].any()


# ---- windows, and what is refused


def test_windows_grow_with_the_batch(store):
    with mock.patch.multiple(module, WINDOW_TOKENS=500, LANE_ROWS=4):
        small = rows(store, window_tokens=0, batch=2)
        large = rows(store, window_tokens=0, batch=32)
        plain = rows(store, window_tokens=0, batch=32, example="single()")
    assert small.windows == plain.windows > large.windows
    assert large.windows == max(1, round(large.tokens / (4 * 32 * 16)))
    batches = epoch(large, 0)
    assert len(batches) >= 2 * large.windows


def test_streams_are_no_part_of_a_mix():
    with pytest.raises(registry.RegistryError, match=r"by_part.*mixes rows.*'stream\(\)'"):
        registry.lookup("example", "by_part(examples=('single()', 'stream()'))")


def test_an_example_of_streams_says_where_they_begin(store, monkeypatch):
    entries = dict(registry._ENTRIES["example"])
    monkeypatch.setitem(registry._ENTRIES, "example", entries)
    found = registry.entry("example", "stream")
    entries["silent"] = dataclasses.replace(
        found, name="silent", fn=stream, traits={**found.traits, "labels": ()}
    )
    with pytest.raises(ConfigError, match=r"silent.*no label 'continues'"):
        rows(store, example="silent()")


def test_half_of_the_places_may_read_backwards(store):
    """Forward rows are the first half of a window's, so of the places of an even batch."""
    pipeline = rows(store, example="xlnet_stream(directions='both')", length=20)
    for batch in epoch(pipeline, 0):
        counts = batch.labels["backward"].reshape(2, BATCH // 2).sum(1).tolist()
        assert counts in ([0, 3], [1, 3])  # the border may lie within a place's stretch
    found = follow(epoch(pipeline, 0))
    assert np.mean([continues for _, (_, _, continues) in found]) > 0.8

"""The order of rows: a pure function of the position, the same for any number of processes."""

from __future__ import annotations

import itertools
import threading
import time

import corpora
import numpy as np
import pytest

from bert_variants.config import ConfigError
from bert_variants.text.pipeline import Pipeline, Position, prefetch
from bert_variants.text.prefetch import Prefetch
from bert_variants.text.store import Store, StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return corpora.small_store(tmp_path_factory.mktemp("pipeline"))


def rows(store, **changes):
    values = {
        "example": "nsp_pairs()",
        "length": 32,
        "batch": 8,
        "seed": 1,
        "window_tokens": 1000,
        "split": "train",
    }
    values.update(changes)
    return Pipeline(store, values.pop("split"), **values)


def same(a, b):
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)
    assert sorted(a.labels) == sorted(b.labels)
    for name in a.labels:
        np.testing.assert_array_equal(a.labels[name], b.labels[name])


def read(pipeline, count, position=None):
    """``count`` batches and the position after them."""
    position, batches = position or Position(), []
    for _ in range(count):
        batch, position = pipeline.batch(position)
        batches.append(batch)
    return batches, position


def epoch_ids(pipeline, epoch):
    """The identities and tokens of an epoch's rows, in their order."""
    ids, tokens, position = [], [], Position(epoch)
    while position.epoch == epoch:
        batch, position = pipeline.batch(position)
        here = batch.visit_B == epoch
        ids += batch.example_id_B[here].tolist()
        tokens += batch.tokens_BT[here].tolist()
    return ids, tokens


def total(pipeline, epoch):
    return sum(len(pipeline.plan(epoch, slot)) for slot in range(pipeline.windows))


def test_a_position_is_one_number():
    for position in (Position(), Position(3, 5), Position(70_000, (9 << 24) | 77)):
        assert Position.of(int(position)) == position
    assert int(Position(2, 5)) == (2 << 40) + 5


def test_any_position_can_be_gone_to_at_once(store):
    batches, _ = read(rows(store), 60)
    position = Position()
    for n, batch in enumerate(batches):
        if n % 7 == 3:
            same(rows(store).batch(Position.of(int(position)))[0], batch)
        position = rows(store).advance(position, 8)


def test_an_epoch_has_every_row_once_and_batches_run_over_its_end(store):
    pipeline = rows(store, batch=7)
    assert pipeline.windows > 2
    ids, _ = epoch_ids(pipeline, 0)
    assert len(ids) == len(set(ids)) == total(pipeline, 0)
    position, seen = Position(), []
    while position.epoch < 2:
        batch, position = pipeline.batch(position)
        assert len(batch.visit_B) == 7
        seen += batch.visit_B.tolist()
    assert sorted(seen) == seen
    assert seen.count(0) == total(pipeline, 0)
    assert seen.count(1) == total(pipeline, 1)


@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_several_processes_are_the_rows_of_one(store, count):
    alone, after = read(rows(store), 50)
    for part in range(count):
        shares, end = read(rows(store, process_index=part, process_count=count), 50)
        assert end == after
        size = 8 // count
        for whole, share in zip(alone, shares, strict=True):
            for name, value in vars(whole).items():
                if isinstance(value, np.ndarray):
                    wanted = value[part * size : (part + 1) * size]
                    np.testing.assert_array_equal(getattr(share, name), wanted, err_msg=name)


def test_order_and_plan_change_with_epoch_and_seed(store):
    first, second = (epoch_ids(rows(store), epoch)[1] for epoch in (0, 1))
    other = epoch_ids(rows(store, seed=2), 0)[1]
    assert first[:20] != second[:20]
    assert {tuple(r) for r in first} != {tuple(r) for r in second}  # planned anew
    assert first[:20] != other[:20]


@pytest.mark.parametrize("copies", [1, 3])
def test_static_copies_repeat_rows_and_identities_in_another_order(store, copies):
    pipeline = rows(store, copies=copies)
    ids, tokens = epoch_ids(pipeline, 1)
    again, tokens_again = epoch_ids(pipeline, 1 + copies)
    assert ids != again
    assert dict(zip(ids, map(tuple, tokens), strict=True)) == dict(
        zip(again, map(tuple, tokens_again), strict=True)
    )
    if copies > 1:
        assert {tuple(r) for r in tokens} != {tuple(r) for r in epoch_ids(pipeline, 2)[1]}


def test_windows_are_shuffled_and_so_are_their_rows(store):
    ids, _ = epoch_ids(rows(store, copies=1), 0)
    stride = (1 << 32) // rows(store).windows
    of = [i // stride for i in ids]
    assert sorted(of) != of or sorted(ids) != ids
    assert len(set(of)) == rows(store).windows
    first = [i for i, w in zip(ids, of, strict=True) if w == of[0]]
    assert sorted(first) != first


def test_a_batch_larger_than_the_corpus_runs_over_several_epochs(store):
    pipeline = rows(store, batch=3000)
    batch, position = pipeline.batch(Position())
    assert len(batch.visit_B) == 3000
    assert batch.visit_B[-1] == position.epoch > 1


def test_fixed_rows_are_the_same_every_time_and_keep_their_shape(store):
    pipeline = rows(store, split="held_out", batch=16)
    batches = list(pipeline.fixed(40))
    assert [b.tokens_BT.shape for b in batches] == [(16, 32)] * 3
    assert [int(b.valid_BT.any(1).sum()) for b in batches] == [16, 16, 8]
    assert not batches[-1].maskable_BT[8:].any()
    for a, b in zip(batches, pipeline.fixed(40), strict=True):
        same(a, b)
    longer = list(pipeline.fixed(48))
    same(longer[0], batches[0])


def test_fixed_rows_end_with_the_split(store):
    pipeline = rows(store, split="held_out", batch=16)
    batches = list(pipeline.fixed(100_000))
    assert sum(int(b.valid_BT.any(1).sum()) for b in batches) == total(pipeline, 0)
    assert all((b.visit_B == 0).all() for b in batches)


@pytest.mark.parametrize("wanted", [3, 9, 40])
def test_fixed_rows_are_shared_like_batches(store, wanted):
    whole = list(rows(store, split="held_out").fixed(wanted))
    for part in range(4):
        shares = rows(store, split="held_out", process_index=part, process_count=4).fixed(wanted)
        for a, b in zip(whole, shares, strict=True):
            here = slice(2 * part, 2 * part + 2)
            np.testing.assert_array_equal(a.tokens_BT[here], b.tokens_BT)
            np.testing.assert_array_equal(a.valid_BT[here], b.valid_BT)
            np.testing.assert_array_equal(
                a.labels["next_sentence"][here], b.labels["next_sentence"]
            )


def test_documents_shorter_than_a_row_are_padded(store):
    batch, _ = rows(store, example="single()", length=512).batch(Position())
    assert (batch.valid_BT.sum(1) < 512).all()
    assert (batch.tokens_BT[~batch.valid_BT] == store.vocab.pad).all()


def test_what_cannot_be_is_refused(store):
    with pytest.raises(ConfigError, match="8 rows cannot be shared by 3 processes"):
        rows(store, process_count=3)
    with pytest.raises(ConfigError, match=r"data\.length is 4, expected at least 5"):
        rows(store, length=4).batch(Position())
    with pytest.raises(ConfigError, match="comes from other data"):
        rows(store).batch(Position(0, 1 << 39))
    with pytest.raises(ConfigError, match=r"beyond the .* rows of its window"):
        rows(store).batch(Position(0, 1 << 20))


def test_a_corpus_of_which_no_row_can_be_made_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("A\n\nB\n\nC\n")
    data = corpora.settings(tmp_path, f"text('{tmp_path}/a.txt')", tokenizer="wordpiece(size=40)")
    tiny = corpora.prepare(data)
    with pytest.raises(StoreError, match=r"makes no row.*fewer than 2 tokens"):
        rows(tiny, example="single()").batch(Position())


def test_damage_is_met_with_the_name_of_the_file(tmp_path):
    made = corpora.small_store(tmp_path)
    path = made.folder / "train-00000.tokens"
    data = bytearray(path.read_bytes())
    data[5] ^= 4
    path.write_bytes(data)
    with (
        prefetch(rows(Store.open(made.folder)), Position()) as batches,
        pytest.raises(StoreError, match=r"train-00000\.tokens is damaged"),
    ):
        list(itertools.islice(batches, 1000))


def test_prefetching_changes_nothing(store):
    expected, after = read(rows(store), 90)
    with prefetch(rows(store), Position(), depth=3) as batches:
        found = [next(batches) for _ in range(90)]
    for a, (b, _) in zip(expected, found, strict=True):
        same(a, b)
    assert found[-1][1] == after


def test_no_thread_is_left_and_the_iterator_ends():
    before = threading.active_count()
    with Prefetch(lambda n: (n, n + 1), 0, 2, ahead=lambda n: None) as items:
        assert [next(items)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert threading.active_count() == before
    assert list(items) == []


def test_only_depth_items_are_made_ahead():
    made = []

    def make(n):
        made.append(n)
        return n, n + 1

    with Prefetch(make, 0, 2) as items:
        next(items)
        time.sleep(0.1)
        assert made == [0, 1, 2]


def test_an_error_comes_with_its_type_after_what_was_ready():
    def make(n):
        if n == 2:
            raise KeyError("third")
        return n, n + 1

    with Prefetch(make, 0, 5) as items:
        assert [next(items)[0], next(items)[0]] == [0, 1]
        for _ in range(2):  # and again, if one goes on asking
            with pytest.raises(KeyError, match="third"):
                next(items)


def test_leaving_while_the_thread_waits_or_works_does_not_hang():
    started = threading.Event()

    def make(n):
        started.set()
        time.sleep(0.05)
        return n, n + 1

    begun = time.monotonic()
    with Prefetch(make, 0, 1):
        started.wait()
    with Prefetch(lambda n: (n, n + 1), 0, 1):
        time.sleep(0.05)
    assert time.monotonic() - begun < 5


def test_depth_is_checked():
    with pytest.raises(ValueError, match="depth is 0"):
        Prefetch(lambda n: (n, n), 0, 0)

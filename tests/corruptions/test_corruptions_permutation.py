"""XLNet's targets and orders: the numbers of the released sampler, and the order of the parts."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import config, registry
from bert_variants.config import ConfigError
from bert_variants.corruptions.ngrams import harmonic
from bert_variants.corruptions.permutation import choose_spans
from bert_variants.registry import RegistryError
from bert_variants.types import Corrupted

HALF, QUOTA = 256, 43


def text(count: int, length: int, *, pieces: int = 1, specials: tuple[int, ...] = ()):
    """Full rows of words of ``pieces`` tokens; special tokens at the given places."""
    batch = data.rows(0, count, length, full=True)
    rng = np.random.default_rng(1)
    maskable = np.ones((count, length), bool)
    maskable[:, list(specials)] = False
    tokens = rng.integers(5, data.VOCAB.size, (count, length)).astype(np.int32)
    words = np.broadcast_to(np.arange(length, dtype=np.int32) // pieces, (count, length))
    return batch.replace(
        tokens_BT=np.where(maskable, tokens, data.VOCAB.sep).astype(np.int32),
        maskable_BT=maskable,
        words_BT=np.where(maskable, words, -1).astype(np.int32),
    )


def run(call: str, batch, seed: int = 0) -> Corrupted:
    return jax.tree.map(np.asarray, data.corrupt(call, batch, seed=seed))


def chosen(found: Corrupted) -> np.ndarray:
    marks = np.zeros(found.tokens_BT.shape, bool)
    rows, slots = np.nonzero(found.weights_BP)
    marks[rows, found.at_BP[rows, slots]] = True
    return marks


@functools.cache
def spans(count: int = 6000, unit: str = "token", pieces: int = 1) -> np.ndarray:
    """The spans alone, of so many halves: bool [count, 256]."""
    starts = jnp.arange(HALF) % pieces == 0
    draw = functools.partial(choose_spans, shares=harmonic(5), context=6, unit=unit)
    one = jax.vmap(lambda key: draw(key, starts, jnp.ones(HALF, bool), QUOTA))
    return np.asarray(jax.jit(one)(jax.random.split(jax.random.key(5), count)))


def run_lengths(marks: np.ndarray) -> list[np.ndarray]:
    """The lengths of the runs of each row, in order."""
    padded = np.pad(marks, ((0, 0), (1, 1))).astype(np.int8)
    edges = np.diff(padded, axis=1)
    return [np.flatnonzero(row == -1) - np.flatnonzero(row == 1) for row in edges]


# ------------------------------------------------------------- how many, and which


def test_published_numbers():
    """85 of 512 tokens, 43 in the first half and 42 in the second; every row."""
    found = run("permutation()", text(64, 512))
    marks = chosen(found)
    assert found.at_BP.shape == (64, 86)
    assert (marks[:, :256].sum(1) == 43).all()
    assert (marks[:, 256:].sum(1) == 42).all()
    assert run("permutation(max_predictions=85)", text(2, 512)).at_BP.shape == (2, 85)


def test_special_tokens_are_never_targets():
    specials = (255, 400, 510, 511)
    found = run("permutation()", text(64, 512, specials=specials))
    assert not chosen(found)[:, list(specials)].any()
    assert (found.weights_BP.sum(1) == 85).all()


def test_what_one_part_lacks_the_other_takes():
    """A first part of two tokens, a second of special tokens alone, and the other way round."""
    batch = text(8, 16)
    first, second = (np.arange(16) < 2, np.arange(16) > 13)
    for free in (first, second):
        found = run("permutation(rate=0.2)", batch.replace(maskable_BT=np.tile(free, (8, 1))))
        np.testing.assert_array_equal(chosen(found).sum(1), np.full(8, 2))


def test_spans_alone_do_not_make_up_the_number():
    """zihangdai/xlnet's sampler: 36.4 of 43 tokens; single ones are the rest, 13 to 17 %."""
    taken = spans().sum(1)
    assert taken.max() <= QUOTA
    assert abs(taken.mean() - 36.4) < 0.4


def test_lengths_are_harmonic():
    """The first span of each half: .43796 .21898 .14599 .10949 .08759."""
    first = np.array([lengths[0] for lengths in run_lengths(spans())])
    shares = np.bincount(first, minlength=6)[1:] / first.size
    expected = harmonic(5)
    np.testing.assert_allclose(expected, [0.43796, 0.21898, 0.14599, 0.10949, 0.08759], atol=1e-5)
    sigma = (expected * (1 - expected) / first.size) ** 0.5
    assert (np.abs(shares - expected) < 4 * sigma).all()


def test_room_around_a_span():
    """A span of n takes 7n positions: before the first one stand at most 6 * 5 - 1."""
    marks = spans()
    first = marks.argmax(axis=1)
    assert first.max() <= 29
    assert first.min() == 0
    for row, lengths in zip(marks[:300], run_lengths(marks[:300]), strict=True):
        begins = np.flatnonzero(np.diff(np.pad(row, (1, 0)).astype(np.int8)) == 1)
        gaps = begins[1:] - begins[:-1] - lengths[:-1]
        # 6n less what stood before, then at most 29 before the next one
        assert (gaps >= 1).all()
        assert (gaps <= 6 * lengths[:-1] + 29).all()


def test_a_span_begins_a_word():
    marks = spans(800, "token", 3)
    begins = np.diff(np.pad(marks, ((0, 0), (1, 0))).astype(np.int8), axis=1) == 1
    assert (np.nonzero(begins)[1] % 3 == 0).all()
    assert set(np.concatenate(run_lengths(marks))) == {1, 2, 3, 4, 5}


def test_spans_of_words():
    """Whole words of three tokens, or nothing of them; the number is not exceeded."""
    marks = spans(800, "word", 3)
    assert set(np.concatenate(run_lengths(marks))) == {3, 6, 9, 12, 15}
    assert marks.sum(1).max() <= QUOTA
    assert marks.sum(1).mean() > 0.8 * QUOTA


def test_nothing_reaches_the_end():
    assert not spans()[:, -1].any()


def test_every_token_may_be_a_target():
    """The last ones of a part are rarer: no span ends there."""
    times = sum(chosen(run("permutation()", text(500, 128), seed=s)).sum(0) for s in range(2))
    inner = times.reshape(2, 64)[:, :-5]
    assert (np.abs(inner / inner.mean() - 1) < 0.6).all()
    assert times.min() > 0


# ------------------------------------------------------------- the order


def order_of_parts(found: Corrupted, first: int) -> tuple[np.ndarray, np.ndarray]:
    return found.order_BT[:, :first], found.order_BT[:, first:]


@pytest.mark.parametrize("reuse", [None, 20, 0, 64])
def test_parts_come_one_after_the_other(reuse):
    found = run(f"permutation(reuse={reuse})", text(16, 64, specials=(40, 63)))
    first = 32 if reuse is None else reuse
    early, late = order_of_parts(found, first)
    if first and first < 64:
        assert (early.max(1) < late.min(1)).all()
    marks = chosen(found) | ~found.maskable_BT
    for part, mark in ((early, marks[:, :first]), (late, marks[:, first:])):
        for values, is_late in zip(part, mark, strict=True):
            if not values.size:
                continue
            assert len(set(values[~is_late])) == 1, "ordinary tokens come together"
            assert len(set(values[is_late])) == is_late.sum(), "the others one by one"
            assert values[is_late].min() > values[~is_late].max()


def test_orders_are_uniform():
    """Which of two targets comes first is a fair coin; and it changes with the step."""
    found = run("permutation(reuse=0)", text(4000, 32))
    at = found.at_BP[:, :2]
    order = np.take_along_axis(found.order_BT, at, axis=1)
    assert abs((order[:, 0] < order[:, 1]).mean() - 0.5) < 4 * (0.25 / 4000) ** 0.5


def test_windows_share_a_permutation():
    """Window after window, the same order in each, as ``_local_perm`` makes it."""
    special = text(4, 32, specials=tuple(range(32)))  # all functional: every rank is to be seen
    found = run("permutation(reuse=16, window=8)", special.replace(valid_BT=np.ones((4, 32), bool)))
    for row in found.order_BT:
        for part, base in ((row[:16], 1), (row[16:], 18)):
            windows = part.reshape(2, 8) - base
            np.testing.assert_array_equal(windows[1], windows[0] + 8)
            np.testing.assert_array_equal(np.sort(windows[0]), np.arange(8))


def test_a_row_by_hand():
    """The order of the docstring's row: 0 for ordinary tokens, rank + 1 for the others."""
    batch = text(200, 9, specials=(7, 8))
    found = run("permutation(rate=0.3, reuse=0)", batch)
    assert (found.weights_BP.sum(1) == 3).all()
    late = chosen(found) | ~found.maskable_BT
    assert (found.order_BT[~late] == 0).all()
    assert found.order_BT[late].min() >= 1
    assert found.order_BT.max() <= 9
    np.testing.assert_array_equal(found.inputs_BT, batch.tokens_BT)


# ------------------------------------------------------------- rows that run backwards


def test_backward_rows_are_read_from_the_right():
    """Spans begin where words end: with words of three, at the last of each."""
    batch = text(300, 66, pieces=3)
    labels = {"backward": (np.arange(300) % 2).astype(np.int32)}
    # a high rate and no single tokens: only the spans are looked at
    found = chosen(run("permutation(rate=0.08, reuse=0)", batch.replace(labels=labels)))
    edges = np.diff(np.pad(found, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    long = {}
    for direction in (0, 1):
        starts, stops = [], []
        for row in edges[direction::2]:
            begin, end = np.flatnonzero(row == 1), np.flatnonzero(row == -1)
            spans = end - begin >= 3  # hardly made of single tokens
            starts += list(begin[spans] % 3)
            stops += list(end[spans] % 3)
        long[direction] = np.mean(np.array(starts) == 0), np.mean(np.array(stops) == 0)
    assert long[0][0] > 0.9 > long[0][1]
    assert long[1][1] > 0.9 > long[1][0]


@pytest.mark.slow
def test_backward_is_a_matter_of_the_row():
    batch = text(6, 32)
    none = run("permutation()", batch.replace(labels={"backward": np.zeros(6, np.int32)}))
    some = run(
        "permutation()", batch.replace(labels={"backward": np.eye(1, 6, 2, dtype=np.int32)[0]})
    )
    plain = run("permutation()", batch)
    np.testing.assert_array_equal(none.order_BT, plain.order_BT)
    others = np.arange(6) != 2
    np.testing.assert_array_equal(some.order_BT[others], plain.order_BT[others])


# ------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("permutation(max_ngram=0)", RegistryError, "max_ngram is 0, expected at least 1"),
        ("permutation(context=-1)", RegistryError, "context is -1"),
        ("permutation(unit='piece')", RegistryError, "unit"),
        ("permutation(reuse=17)", ValueError, "reuse is 17, expected 0 to 16"),
        ("permutation(window=5)", ValueError, "window is 5, which does not divide the 8 positions"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        data.corrupt(call, text(2, 16))


@pytest.mark.parametrize("call", ["permutation()", "causal()"])
def test_a_model_without_order_would_see_the_answers(call):
    good = config.Experiment(corruption=call, model="xlnet()", objectives="mlm")
    config.check(good)
    with pytest.raises(ConfigError, match=r"model .bert. reads all of it at once.*xlnet"):
        config.check(config.set_field(good, "model", "bert()"))
    as_probe = config.Experiment(objectives="mlm", evals=config.Evals(masks=(call,)))
    with pytest.raises(ConfigError, match="leaves what is to be predicted in the text"):
        config.check(as_probe)


def test_one_among_others_is_found_too():
    if "stages" not in registry.names("corruption"):
        pytest.skip("no stages")
    call = "stages(parts=('tokens()', 'permutation()'), until=(10,))"
    experiment = config.Experiment(corruption=call, objectives="mlm")
    with pytest.raises(ConfigError, match="leaves what is to be predicted"):
        config.check(experiment)


# ------------------------------------------------------------- left to right


def test_causal_by_hand():
    batch = text(2, 6, specials=(2,))
    valid = np.arange(6) < 5
    batch = batch.replace(
        valid_BT=np.tile(valid, (2, 1)), maskable_BT=batch.maskable_BT & valid[None]
    )
    found = run("causal()", batch)
    np.testing.assert_array_equal(found.order_BT[0], np.arange(6))
    np.testing.assert_array_equal(found.at_BP[0], [1, 3, 4, 0, 0])
    np.testing.assert_array_equal(found.weights_BP[0], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(found.targets_BP[0, :3], batch.tokens_BT[0, [1, 3, 4]])
    np.testing.assert_array_equal(found.inputs_BT, batch.tokens_BT)


def test_causal_in_packed_rows():
    """The first token of each sequence has nothing before it."""
    packs = np.array([[1, 1, 1, 2, 2, 0]], np.int32)
    batch = text(1, 6)
    valid = packs > 0
    batch = batch.replace(packs_BT=packs, valid_BT=valid, maskable_BT=valid)
    found = run("causal()", batch)
    np.testing.assert_array_equal(found.at_BP[0][found.weights_BP[0] > 0], [1, 2, 4])

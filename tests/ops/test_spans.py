"""The choices of ``ops/spans.py`` against loops over tokens, and by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.ops import spans

T = 12
row_of = lambda one: st.lists(one, min_size=T, max_size=T).map(np.array)  # noqa: E731
flags = row_of(st.booleans())
numbers = row_of(st.integers(-1, 4)).map(lambda x: x.astype(np.int32))
many = settings(max_examples=150, deadline=None)

groups = jax.jit(spans.groups)
run_starts, run_stops = jax.jit(spans.run_starts), jax.jit(spans.run_stops)
boundaries, one_a_run = jax.jit(spans.boundaries), jax.jit(spans.one_a_run)
number_words, earliest = jax.jit(spans.number_words), jax.jit(spans.earliest)


# ------------------------------------------------------------- groups


def slow_groups(*levels):
    found, group, before = [], -1, None
    for t in range(len(levels[0])):
        own = next(((n, level[t]) for n, level in enumerate(levels) if level[t] >= 0), None)
        group += own is not None and own != before
        found.append(-1 if own is None else group)
        before = own
    return found


def test_groups_worked_row():
    words, units = np.array([0, 1, 1, 2, 3, -1]), np.array([-1, -1, -1, 0, 0, -1])
    found = spans.groups(units.astype(np.int32), words.astype(np.int32))
    assert found.tolist() == [0, 1, 1, 2, 2, -1]


@given(numbers, numbers)
@many
def test_groups(units, words):
    assert groups(units, words).tolist() == slow_groups(units, words)
    assert groups(words).tolist() == slow_groups(words)


# ------------------------------------------------------------- words


def test_words_worked_row():
    words_T = np.array([0, 0, 0, 1, -1, 2, 3, -1], np.int32)
    found = spans.number_words(words_T, words_T >= 0)
    assert found.of_T.tolist() == [0, 0, 0, 1, -1, 2, 3, -1]
    assert found.size_W.tolist() == [3, 1, 1, 1, 0, 0, 0, 0]
    assert found.stop_W.tolist() == [2, 2, 4, 4, 0, 0, 0, 0]


@given(numbers, flags)
@many
def test_words(words, text):
    """Numbered from 0, cut by what is not text; text outside of words stands for itself."""
    expected, before = [], None
    for t in range(T):
        own = (words[t] if words[t] >= 0 else f"token {t}") if text[t] else None
        if own is not None and own != before:
            expected.append([])
        if own is not None:
            expected[-1].append(t)
        before = own
    of_T = np.full(T, -1)
    for number, at in enumerate(expected):
        of_T[at] = number
    sizes = [len(at) for at in expected]
    stops = []
    for at in expected:
        end = at[0]
        while end < T and text[end]:
            end += 1
        stops.append(of_T[end - 1] + 1)
    found = number_words(words, text)
    rest = [0] * (T - len(expected))
    assert found.of_T.tolist() == of_T.tolist()
    assert found.size_W.tolist() == sizes + rest
    assert found.stop_W.tolist() == stops + rest


# ------------------------------------------------------------- spans of words


def slow_accept(scores, lengths, apart):
    taken, covered = np.zeros(len(scores), bool), np.zeros(len(scores), bool)
    for word in np.argsort(scores, kind="stable"):
        stop = word + lengths[word]
        if lengths[word] and not covered[word : stop if apart else word + 1].any():
            taken[word] = covered[word:stop] = True
    return taken


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("longest", [1, 2, 5, 10])
def test_accept_is_the_sequential_rule(longest, apart):
    """2,000 rows of 64 words, some of which are none; and what they cover, from when on."""
    rng = np.random.default_rng(longest)
    scores = rng.permuted(np.tile(np.arange(64, dtype=np.float32), (2000, 1)), axis=1)
    lengths = rng.integers(0, longest + 1, scores.shape)
    lengths = np.minimum(lengths, 64 - np.arange(64)).astype(np.int32)

    def run(scores_W, lengths_W):
        taken_W = spans.accept(scores_W, lengths_W, longest, apart=apart)
        return taken_W, spans.covered_from(scores_W, lengths_W, taken_W, longest)

    found, first = map(np.asarray, jax.jit(jax.vmap(run))(scores, lengths))
    for b in range(2000):
        taken = slow_accept(scores[b], lengths[b], apart)
        np.testing.assert_array_equal(found[b], taken, err_msg=f"row {b}")
        expected = np.full(64, np.inf)
        for word in np.flatnonzero(taken):
            held = slice(word, word + lengths[b, word])
            expected[held] = np.minimum(expected[held], scores[b, word])
        np.testing.assert_array_equal(first[b], expected, err_msg=f"row {b}")


@pytest.mark.slow
@pytest.mark.parametrize(("longest", "apart"), [(10, False), (3, True)])
def test_sixteen_rounds_are_enough(longest, apart):
    """8,192 rows of 512 words, lengths as published: nothing is left to decide after 16 rounds."""
    shares = 0.8 ** np.arange(10) if longest == 10 else 1 / np.arange(1, 4)

    def run(key):
        score_key, length_key = jax.random.split(key)
        scores_W = jax.random.uniform(score_key, (512,))
        lengths_W = spans.draw_lengths(length_key, 512, shares)
        few, more = (
            spans.accept(scores_W, lengths_W, longest, apart=apart, rounds=rounds)
            for rounds in (16, 40)
        )
        return jnp.sum(few != more)

    wrong = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), 8192))
    assert wrong.sum() == 0


def test_too_few_rounds_accept_too_many():
    """Words of a chain that each decide about the next: what is not settled counts as accepted.

    All have length 2 and are tried from left to right: 0, 2 and 4 are accepted.
    """
    scores, lengths = np.arange(6, dtype=np.float32), np.full(6, 2, np.int32)
    exact = spans.accept(scores, lengths, 2, apart=False)
    assert exact.tolist() == [True, False, True, False, True, False]
    early = spans.accept(scores, lengths, 2, apart=False, rounds=2)
    assert (np.asarray(early) >= np.asarray(exact)).all()
    assert early.tolist() == [True, False, True, True, True, True]


@given(row_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, np.inf])), st.integers(0, T))
@many
def test_earliest(scores, n):
    scores = scores.astype(np.float32)
    n = min(n, int(np.isfinite(scores).sum()))
    order = np.lexsort((np.arange(T), scores))[:n]
    assert np.flatnonzero(earliest(scores, n)).tolist() == sorted(order.tolist())


def test_draw_lengths_of_one():
    assert (spans.draw_lengths(jax.random.key(0), 50, np.ones(1)) == 1).all()


# ------------------------------------------------------------- runs


def test_runs_by_hand():
    chosen = np.array([0, 1, 1, 0, 1], bool)
    assert spans.run_starts(chosen).tolist() == [5, 1, 1, 5, 4]
    assert spans.run_stops(chosen).tolist() == [-1, 3, 3, -1, 5]


def ends(chosen, at):
    """First and last-but-one position of the run that ``at`` is in."""
    start, stop = at, at
    while start > 0 and chosen[start - 1]:
        start -= 1
    while stop < len(chosen) and chosen[stop]:
        stop += 1
    return start, stop


@given(flags)
@many
def test_runs(chosen):
    numbers_T = np.arange(T, dtype=np.float32) / 7
    starts, stops = np.asarray(run_starts(chosen)), np.asarray(run_stops(chosen))
    same = np.asarray(one_a_run(numbers_T, chosen))
    for t in range(T):
        start, stop = ends(chosen, t) if chosen[t] else (T, -1)
        assert (starts[t], stops[t]) == (start, stop)
        assert not chosen[t] or same[t] == numbers_T[start]


def test_boundaries_worked_row():
    """S V X X V X S"""
    chosen = np.array([0, 0, 1, 1, 0, 1, 0], bool)
    visible = np.array([0, 1, 1, 1, 1, 1, 0], bool)
    at, weights = np.array([2, 3, 5, 0], np.int32), np.array([1, 1, 1, 0], np.float32)
    left, right, offset = spans.boundaries(chosen, visible, at, weights)
    assert left.tolist() == [1, 1, -1, -1]
    assert right.tolist() == [4, 4, -1, -1]
    assert offset.tolist() == [0, 1, 0, 0]


@given(flags, flags)
@many
def test_boundaries(chosen, text):
    """The ends of the row, specials beside the run, runs of one, all chosen, none chosen."""
    chosen = chosen & text
    at = np.flatnonzero(chosen)
    slots, weights = np.zeros(T, np.int32), np.zeros(T, np.float32)
    slots[: len(at)], weights[: len(at)] = at, 1
    left, right, offset = (x.tolist() for x in boundaries(chosen, text, slots, weights))
    for p, t in enumerate(at):
        start, stop = ends(chosen, t)
        there = start > 0 and stop < T and text[start - 1] and text[stop]
        assert (left[p], right[p]) == ((start - 1, stop) if there else (-1, -1))
        assert offset[p] == t - start
    for unused in range(len(at), T):
        assert (left[unused], right[unused], offset[unused]) == (-1, -1, 0)


def test_predict_by_hand():
    """Two rows, other fields too; a row's runs know nothing of the other row's."""
    batch = data.rows(0, 2, 7, full=True)
    maskable = np.array([[0, 1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 1, 0]], bool)
    chosen = np.array([[0, 0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1, 0]], bool)
    batch = batch.replace(maskable_BT=maskable)
    moved = np.zeros((2, 7), bool)
    found = spans.predict(batch, batch.tokens_BT, chosen, 4, moved_BT=moved)
    np.testing.assert_array_equal(found.at_BP, [[2, 3, 5, 0], [1, 5, 0, 0]])
    np.testing.assert_array_equal(found.weights_BP, [[1, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(found.left_BP, [[1, 1, -1, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(found.right_BP, [[4, 4, -1, -1], [-1, -1, -1, -1]])
    np.testing.assert_array_equal(found.offset_BP, [[0, 1, 0, 0], [0, 0, 0, 0]])
    assert found.moved_BT is moved

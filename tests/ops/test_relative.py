"""Distances: the table, the shift against explicit indexing, a query without keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants.ops import relative

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (1, 4), (2, 3), (5, 5), (7, 12), (6, 6)]  # T, K


def test_distances_by_hand():
    np.testing.assert_array_equal(relative.distances(2, 3), [3, 2, 1, 0, -1])
    np.testing.assert_array_equal(relative.distances(2, 3, both_ways=False), [3, 2, 1, 0])
    assert relative.distances(512, 896).size == 512 + 896


def test_sinusoids_are_two_halves():
    """sin 0 = 0 and cos 0 = 1; the second frequency of width 4 is 1 / 100."""
    found = relative.sinusoids(np.array([0, 1, -3]), 4)
    expected = [
        [0, 0, 1, 1],
        [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)],
        [np.sin(-3), np.sin(-0.03), np.cos(-3), np.cos(-0.03)],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == jnp.float32


def test_sinusoids_far_away():
    """In float32 the angle of distance 4000 is still right to a few thousandths."""
    distances = np.array([4000, 3999, -4000])
    frequency = 10000.0 ** (-2.0 * np.arange(8) / 16)
    angle = distances[:, None] * frequency
    found = relative.sinusoids(distances, 16)
    np.testing.assert_allclose(found, np.hstack([np.sin(angle), np.cos(angle)]), atol=5e-4)


def test_clamp_is_in_both_directions():
    far, near = (relative.sinusoids(np.array(d), 6, clamp=5) for d in ([9, 5, -8], [5, 5, -5]))
    np.testing.assert_array_equal(far, near)
    free = relative.sinusoids(np.array([9, 5, -8]), 6)
    assert (free[0] != far[0]).any()


def test_mirrored_is_the_table_of_negated_distances():
    distances = relative.distances(4, 6)
    found = relative.mirrored(relative.sinusoids(distances, 10))
    np.testing.assert_allclose(found, relative.sinusoids(-distances, 10), atol=1e-7)


def test_an_odd_width():
    with pytest.raises(ValueError, match="width is 5"):
        relative.sinusoids(np.arange(3), 5)


# ------------------------------------------------------------- the shift


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_shift_by_distances(queries, keys):
    """Entries that hold their own distance: (i, j) gets M + i - j."""
    rows = relative.distances(queries, keys)
    scores = jnp.broadcast_to(rows[None, None, None, :], (2, 3, queries, rows.size))
    found = relative.shift(scores, keys)
    memory = keys - queries
    expected = memory + np.arange(queries)[:, None] - np.arange(keys)[None, :]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (2, 3, queries, keys)))


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_shift_where_nothing_to_the_right_is_read(queries, keys):
    rows = relative.distances(queries, keys, both_ways=False)
    scores = jnp.broadcast_to(rows[None, None, None, :], (1, 2, queries, rows.size))
    found = np.asarray(relative.shift(scores, keys))
    expected = keys - queries + np.arange(queries)[:, None] - np.arange(keys)[None, :]
    left = expected >= 0
    assert (found[0, 0][left] == expected[left]).all()


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_shift_is_indexing(queries, keys):
    """Random numbers, one query after another, by the explicit rule r = K - (M + i - j)."""
    scores = jnp.asarray(RNG.normal(size=(2, 3, queries, keys + queries)), jnp.float32)
    found = np.asarray(relative.shift(scores, keys))
    for i in range(queries):
        for j in range(keys):
            distance = keys - queries + i - j
            np.testing.assert_array_equal(found[:, :, i, j], scores[:, :, i, keys - distance])


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_shift_at_some_positions(queries, keys):
    """The lines of ``shift``, the same position twice too, and in no order."""
    at = RNG.integers(0, queries, (2, 5)).astype(np.int32)
    whole = RNG.normal(size=(2, 3, queries, keys + queries)).astype(np.float32)
    some = np.stack([whole[b][:, at[b]] for b in range(2)])
    found = relative.shift_at(jnp.asarray(some), jnp.asarray(at), queries, keys)
    lines = np.asarray(relative.shift(jnp.asarray(whole), keys))
    for b in range(2):
        np.testing.assert_array_equal(found[b], lines[b][:, at[b]])


def test_gradient_of_shift_at():
    """Written by hand; against autodiff's of the same indexing."""
    queries, keys = 5, 8
    at = jnp.asarray(RNG.integers(0, queries, (2, 4)), jnp.int32)
    x = jnp.asarray(RNG.normal(size=(2, 3, 4, keys + queries)), jnp.float32)
    weights = jnp.asarray(RNG.normal(size=(2, 3, 4, keys)), jnp.float32)
    index = (queries - at)[:, None, :, None] + jnp.arange(keys)[None, None, None, :]

    def plain(x):
        return jnp.take_along_axis(x, jnp.broadcast_to(index, (2, 3, 4, keys)), axis=-1)

    ours = jax.grad(lambda x: (relative.shift_at(x, at, queries, keys) ** 2 * weights).sum())(x)
    autodiffs = jax.grad(lambda x: (plain(x) ** 2 * weights).sum())(x)
    np.testing.assert_allclose(ours, autodiffs, rtol=1e-6)
    assert (np.asarray(ours) == 0).any()


# ------------------------------------------------------------- the mixture


def test_mix_is_the_formula():
    scores = RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)
    seen = RNG.random((2, 4, 6)) < 0.6
    seen[:, :, 0] = True
    v = RNG.normal(size=(2, 6, 3, 5)).astype(np.float32)
    power = np.exp(np.float64(scores)) * seen[:, None]
    expected = np.einsum("bnqk,bknh->bqnh", power / power.sum(-1, keepdims=True), v)
    found = relative.mix(jnp.asarray(scores), jnp.asarray(seen), jnp.asarray(v))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_query_that_sees_nothing_reads_nothing():
    scores = jnp.asarray(RNG.normal(size=(1, 2, 3, 4)), jnp.float32)
    seen = jnp.asarray([[[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]]], bool)
    v = jnp.asarray(RNG.normal(size=(1, 4, 2, 5)), jnp.float32)
    found = relative.mix(scores, seen, v)
    assert (found[0, 1] == 0).all()
    assert (found[0, 0] != 0).all()
    np.testing.assert_allclose(found[0, 2], v[0, 2], rtol=1e-6)  # one key: its value
    only_that = jax.grad(lambda s, v: relative.mix(s, seen, v)[0, 1].sum(), (0, 1))(scores, v)
    assert all((g == 0).all() for g in only_that)


def test_one_line_of_what_is_seen_serves_every_query():
    scores = jnp.asarray(RNG.normal(size=(2, 2, 3, 4)), jnp.float32)
    seen = jnp.asarray(RNG.random((2, 1, 4)) < 0.7).at[:, :, 0].set(True)
    v = jnp.asarray(RNG.normal(size=(2, 4, 2, 5)), jnp.float32)
    each = jnp.broadcast_to(seen, (2, 3, 4))
    np.testing.assert_array_equal(relative.mix(scores, seen, v), relative.mix(scores, each, v))

"""Who may read whom: the fixture of the released code's masks, parts, packs, and no order."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants.ops import permutation

RANKS = np.array([2, 0, 4, 5, 1, 3], np.int32)
TARGETS, FUNCTIONAL = np.array([1, 3]), np.array([5])
EVERY = jnp.ones((1, 6), bool)


def order() -> jnp.ndarray:
    late = np.zeros(6, bool)
    late[TARGETS] = late[FUNCTIONAL] = True
    return permutation.places(jnp.asarray(RANKS), jnp.asarray(late))[None]


def blocked(visible) -> list[set[int]]:
    return [set(np.flatnonzero(~np.asarray(row)).tolist()) for row in visible[0]]


def test_places_by_hand():
    np.testing.assert_array_equal(order()[0], [0, 1, 0, 6, 0, 4])


def test_content_fixture():
    """zihangdai/xlnet:data_utils.py, the diagonal opened (modeling.py)."""
    found = blocked(permutation.content_visible(EVERY, order()))
    assert found == [{1, 3, 5}, {3, 5}, {1, 3, 5}, set(), {1, 3, 5}, {3}]


def test_query_fixture():
    """Of the targets: 1 comes first and sees ordinary tokens alone, 3 comes last."""
    at = jnp.asarray([[1, 3]], jnp.int32)
    assert blocked(permutation.query_visible(at, EVERY, order())) == [{1, 3, 5}, {3}]


def local_perm(ranks, target, functional):
    """The released rule, token by token: True where i may not read j (query, content)."""
    size = len(ranks)
    ordinary = ~target & ~functional
    place = np.where(ordinary, -1, ranks)
    own = np.where(target, place, place + 1)
    query = (own[:, None] <= place[None, :]) & ~ordinary[None, :]
    return query, query & ~np.eye(size, dtype=bool)


@pytest.mark.slow
def test_as_the_released_rule_says():
    """Random rows: the content mask of every token, the query mask of the targets."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        size = int(rng.integers(1, 12))
        ranks = rng.permutation(size).astype(np.int32)
        kind = rng.integers(0, 3, size)
        target, functional = kind == 1, kind == 2
        places = permutation.places(jnp.asarray(ranks), jnp.asarray(kind > 0))[None]
        query, content = local_perm(ranks, target, functional)
        valid = jnp.ones((1, size), bool)
        found = permutation.content_visible(valid, places)
        np.testing.assert_array_equal(found[0], ~content)
        at = np.flatnonzero(target).astype(np.int32)[None]
        found = permutation.query_visible(jnp.asarray(at), valid, places)
        np.testing.assert_array_equal(found[0], ~query[at[0]])


def test_padding_is_seen_by_nobody():
    valid = EVERY.at[0, 4:].set(False)
    assert not permutation.content_visible(valid, order())[0, :, 4:].any()
    at = jnp.asarray([[3]], jnp.int32)
    assert not permutation.query_visible(at, valid, order())[0, :, 4:].any()


def test_without_an_order_all_is_seen_but_oneself():
    valid = EVERY.at[0, 5].set(False)
    np.testing.assert_array_equal(permutation.content_visible(valid)[0], [[1, 1, 1, 1, 1, 0]])
    at = jnp.asarray([[0, 4]], jnp.int32)
    found = permutation.query_visible(at, valid)
    np.testing.assert_array_equal(found[0], [[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]])


def test_packed_sequences_do_not_see_each_other():
    packs = jnp.asarray([[1, 1, 1, 2, 2, 2]], jnp.int32)
    at = jnp.asarray([[1, 3]], jnp.int32)
    for places in (None, order()):
        content = permutation.content_visible(EVERY, places, packs)
        assert not content[0, :3, 3:].any()
        assert not content[0, 3:, :3].any()
        query = permutation.query_visible(at, EVERY, places, packs)
        assert not query[0, 0, 3:].any()
        assert not query[0, 1, :3].any()
        assert query[0, 0, :3].any()


def test_left_to_right_is_an_order_too():
    places = jnp.arange(4, dtype=jnp.int32)[None]
    valid = jnp.ones((1, 4), bool)
    np.testing.assert_array_equal(permutation.content_visible(valid, places)[0], np.tri(4))
    at = jnp.asarray([[0, 2]], jnp.int32)
    found = permutation.query_visible(at, valid, places)
    np.testing.assert_array_equal(found[0], [[0, 0, 0, 0], [1, 1, 0, 0]])


def test_a_row_of_minus_one_has_no_order():
    places = jnp.concatenate([order(), jnp.full((1, 6), -1, jnp.int32)])
    valid = jnp.ones((2, 6), bool)
    at = jnp.asarray([[1, 3], [1, 3]], jnp.int32)
    assert permutation.content_visible(valid, places)[1].all()
    found = permutation.query_visible(at, valid, places)
    np.testing.assert_array_equal(found[1:], permutation.query_visible(at[1:], valid[1:]))
    np.testing.assert_array_equal(
        found[:1], permutation.query_visible(at[:1], valid[:1], places[:1])
    )


def test_predicted_positions_come_last():
    at = jnp.asarray([[1, 4, 0]], jnp.int32)
    found = permutation.predicted_last(at, jnp.asarray([[1.0, 0.5, 0.0]]), 6)
    np.testing.assert_array_equal(found, [[0, 1, 0, 0, 1, 0]])

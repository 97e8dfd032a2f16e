"""Draws from a generator: their distribution, what decides them, and the text that they make."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants import keys
from bert_variants.ops import sampling
from bert_variants.plan import flops

DRAWS = 1 << 17


def row_keys(count: int, seed: int = 0) -> jax.Array:
    return jax.vmap(lambda n: keys.derive(keys.root(seed), n))(jnp.arange(count))


def drawn(logits_V: np.ndarray, temperature: float = 1.0, seed: int = 0) -> np.ndarray:
    """How often each id is drawn, of 2^17 draws in 64 rows."""
    slots = DRAWS // 64

    @jax.jit
    def run(row_keys):
        # a row after the other: 2^17 distributions at once would be large
        return jax.lax.map(
            lambda key: sampling.sample(
                key[None], jnp.broadcast_to(logits_V, (1, slots, len(logits_V))), temperature
            ),
            row_keys,
        )

    ids = np.asarray(run(row_keys(64, seed)))
    assert ids.dtype == np.int32
    assert 0 <= ids.min() <= ids.max() < len(logits_V)
    return np.bincount(ids.ravel(), minlength=len(logits_V))


def assert_drawn_from(counts: np.ndarray, shares: np.ndarray) -> None:
    """Every id as often as its probability says, within five standard deviations; and a chi-square
    of the ids that are expected at least ten times."""
    expected = counts.sum() * shares
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 5).all()
    often = expected >= 10
    chi = ((counts - expected)[often] ** 2 / expected[often]).sum()
    freedom = often.sum() - 1
    assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom), (chi, freedom)


@pytest.mark.parametrize("vocab", [7, sampling.BLOCK, sampling.BLOCK + 1, 600])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_distribution_is_the_softmax(vocab, temperature):
    """Also where V is no multiple of the block, and where the last block is nearly all padding."""
    logits = np.random.default_rng(vocab).normal(size=vocab).astype(np.float32) * 1.5
    logits[-1] = logits.max()  # what stands alone in its block is drawn as often as it should
    power = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    assert_drawn_from(drawn(logits, temperature), power / power.sum())


def test_the_wrong_distribution_is_seen():
    logits = np.random.default_rng(3).normal(size=300).astype(np.float32)
    power = np.exp(np.float64(logits) * 1.06)
    with pytest.raises(AssertionError):
        assert_drawn_from(drawn(logits), power / power.sum())


@pytest.mark.slow
def test_minus_infinity_is_never_drawn():
    """Whole blocks of it, in front, between and behind; and a row that has but one id."""
    logits = np.full(1100, -np.inf, np.float32)
    likely = [300, 301, 511, 1050]
    logits[likely] = [0.0, 1.0, 2.0, 0.5]
    counts = drawn(logits)
    assert counts.sum() == counts[likely].sum()
    power = np.exp(np.float64(logits[likely]))
    assert_drawn_from(counts[likely], power / power.sum())
    alone = np.full((1, 3, 1100), -np.inf, np.float32)
    alone[0, [0, 1, 2], [0, 777, 1099]] = [5.0, -300.0, 0.0]
    np.testing.assert_array_equal(sampling.sample(row_keys(1), alone), [[0, 777, 1099]])


@pytest.mark.parametrize("wanted", [0.0, 0.3, 1.0, 7.0, np.nan])
def test_rounding_never_chooses_the_impossible(wanted):
    """Running sums that fall, and rise where nothing is: whatever is wanted, a likely entry."""
    upper = np.array([0.0, 1e-7, 0.5, 0.4999999, 1.0, 1.0000001], np.float32)
    likely = np.array([False, False, True, False, True, False])
    found = sampling._first_above(upper[None], likely[None], np.float32([wanted]))
    assert int(found[0]) in (2, 4)
    assert int(sampling._first_above(upper[None], likely[None], np.float32([0.2]))[0]) == 2
    assert int(sampling._first_above(upper[None], likely[None], np.float32([0.5]))[0]) == 4


def test_large_logits_and_small_temperatures():
    logits = np.array([[[1e30, -1e30, 3.0], [0.0, 0.2, 0.1]]], np.float32)
    found = sampling.sample(row_keys(1), logits, 1e-4)
    np.testing.assert_array_equal(found, [[0, 1]])


def test_a_row_is_drawn_by_its_key_alone():
    """Not by its neighbours nor by its place; slots of a row are drawn apart."""
    logits = np.random.default_rng(0).normal(size=(6, 9, 400)).astype(np.float32)
    found = np.asarray(sampling.sample(row_keys(6), logits))
    order = np.array([4, 2, 0, 5, 1, 3])
    moved = sampling.sample(row_keys(6)[order], logits[order])
    np.testing.assert_array_equal(moved, found[order])
    other = logits.copy()
    other[1:] = other[1:] * 2 + 1
    np.testing.assert_array_equal(sampling.sample(row_keys(6), other)[0], found[0])
    assert (np.asarray(sampling.sample(row_keys(6, seed=1), logits)) != found).any()
    same = np.broadcast_to(logits[:1, :1], logits.shape)
    alike = np.asarray(sampling.sample(row_keys(6), same))
    assert len(np.unique(alike)) > 20


def count(jaxpr, primitive: str) -> int:
    """How often a primitive stands in a program, inner programs included."""
    total = 0
    for equation in jaxpr.eqns:
        total += equation.primitive.name == primitive
        for inner in flops._inner(equation.params):
            total += count(inner, primitive)
    return total


def test_no_gradient_is_even_begun():
    """Ids have none anyway; but without the stop the derivative of all that leads to them, over
    the whole vocabulary, would be traced and computed."""
    logits = jnp.zeros((2, 3, 300))

    def draw(logits):
        return sampling.sample(row_keys(2), logits)

    plain = jax.make_jaxpr(draw)(logits).jaxpr
    with_tangents = jax.make_jaxpr(lambda x, t: jax.jvp(draw, (x,), (t,))[0])(logits, logits).jaxpr
    for primitive in ("cumsum", "exp"):
        assert count(with_tangents, primitive) == count(plain, primitive) > 0


def test_replaced_by_hand():
    """Of a b c d, b and c are chosen; b is drawn again, c becomes x: it alone is replaced."""
    a, b, c, d, x = 11, 12, 13, 14, 20
    inputs, changed = sampling.replaced(
        np.array([[a, b, c, d]]),
        np.array([[1, 2, 0]]),
        np.float32([[1, 1, 0]]),
        np.array([[b, x, 9]]),
    )
    np.testing.assert_array_equal(inputs, [[a, b, x, d]])
    np.testing.assert_array_equal(changed, [[False, False, True, False]])


def test_the_first_token_can_be_replaced_and_unused_slots_touch_nothing():
    """(The published code never updates position 0, which is always [CLS].) A weight of 2 is one
    slot that counts twice."""
    tokens = np.array([[5, 6], [7, 8]])
    at, weights = np.array([[0, 0], [0, 0]]), np.float32([[2, 0], [0, 0]])
    inputs, changed = sampling.replaced(tokens, at, weights, np.array([[9, 1], [1, 1]]))
    np.testing.assert_array_equal(inputs, [[9, 6], [7, 8]])
    np.testing.assert_array_equal(changed, [[True, False], [False, False]])

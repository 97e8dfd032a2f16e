"""Unreduced losses against definitions in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import losses

RNG = np.random.default_rng(0)


def reference(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    total = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return total - np.take_along_axis(logits, targets[..., None], -1)[..., 0]


def test_cross_entropy_is_its_definition():
    logits = RNG.normal(size=(4, 5, 11)).astype(np.float32) * 3
    targets = RNG.integers(0, 11, (4, 5)).astype(np.int32)
    found = losses.cross_entropy(logits, targets)
    assert found.shape == (4, 5)
    np.testing.assert_allclose(found, reference(logits, targets), rtol=1e-5, atol=1e-6)


def test_cross_entropy_by_hand():
    """Two rows of three classes: log(1 + e + e^2) - 1 and log 3."""
    logits = np.array([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]], np.float32)
    found = losses.cross_entropy(logits, np.array([1, 2], np.int32))
    np.testing.assert_allclose(found, [1.4076059, 1.0986123], atol=1e-6)


def test_cross_entropy_gradient_is_softmax_minus_target():
    logits = RNG.normal(size=(3, 7)).astype(np.float32)
    targets = np.array([0, 6, 3], np.int32)
    grad = jax.grad(lambda x: losses.cross_entropy(x, targets).sum())(logits)
    np.testing.assert_allclose(grad, jax.nn.softmax(logits) - np.eye(7)[targets], atol=1e-6)


def test_large_logits_are_safe():
    logits = np.array([[1e4, -1e4, 0.0], [-3e38, 3e38, 0.0]], np.float32)
    targets = np.array([0, 1], np.int32)
    value, grad = jax.value_and_grad(lambda x: losses.cross_entropy(x, targets).sum())(logits)
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros((2, 3)))


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.asarray(RNG.normal(size=(2, 4096)), jnp.bfloat16)
    targets = np.array([3, 4], np.int32)
    found = losses.cross_entropy(logits, targets)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, reference(np.asarray(logits, np.float32), targets), rtol=1e-5)


def test_nothing_leaks_from_items_of_weight_zero():
    """Neither NaN nor infinity in the logits reaches the value or the gradient of the others."""
    logits = RNG.normal(size=(4, 5)).astype(np.float32)
    targets = np.array([0, 1, 2, 3], np.int32)
    weights = np.array([1, 0, 1, 0], np.float32)

    def loss(logits):
        return losses.weighted(losses.cross_entropy(logits, targets), weights).total

    clean_value, clean_grad = jax.value_and_grad(loss)(logits)
    for bad in (np.nan, np.inf, -np.inf):
        dirty = logits.copy()
        dirty[1], dirty[3, 2] = bad, bad
        value, grad = jax.value_and_grad(loss)(dirty)
        np.testing.assert_array_equal(value, clean_value)
        np.testing.assert_array_equal(grad, clean_grad)
    assert (np.asarray(clean_grad)[[1, 3]] == 0).all()


def test_weighted_and_mean():
    found = losses.weighted(np.array([1.0, 2.0, np.nan]), np.array([0.5, 2.0, 0.0]))
    assert (float(found.total), float(found.weight)) == (4.5, 2.5)
    both = found + found
    assert (float(both.total), float(both.weight)) == (9.0, 5.0)
    np.testing.assert_allclose(both.value(), 1.8, rtol=1e-6)
    nothing = losses.weighted(np.array([np.nan]), np.array([0.0]))
    assert float(nothing.value()) == 0


def test_correct():
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    np.testing.assert_array_equal(losses.correct(logits, np.array([1, 1])), [1.0, 0.0])


def test_of_equal_logits_the_first_is_the_largest():
    logits = np.array([[0.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    np.testing.assert_array_equal(losses.correct(logits, np.array([2, 0])), [0.0, 1.0])

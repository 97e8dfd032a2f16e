"""Unreduced losses: one number an item, float32. The caller weights, sums and divides once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.types import Leaf, Mean


@jax.custom_vjp
def cross_entropy(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    """-log softmax(logits)[target] in nats, of the targets' shape.

    The maximum is subtracted first, so large logits are safe. Targets outside [0, C) are the
    caller's error. An item whose loss nobody uses gets a gradient of exactly 0, also where its
    logits are NaN or infinite.
    """
    return _forward(logits_xC, targets_x)[0]


def _forward(logits_xC: Leaf, targets_x: Leaf) -> tuple[jax.Array, tuple[Leaf, ...]]:
    wide_xC = logits_xC.astype(jnp.float32)
    peak_x = jnp.max(wide_xC, axis=-1, keepdims=True)
    shifted_xC = wide_xC - peak_x
    total_x = jnp.log(jnp.sum(jnp.exp(shifted_xC), axis=-1))
    # a sum over equal ids, not a gather: the classes may be split over devices
    right_x = jnp.sum(jnp.where(_is_target(logits_xC, targets_x), shifted_xC, 0.0), axis=-1)
    return total_x - right_x, (logits_xC, targets_x, peak_x[..., 0] + total_x)


def _backward(saved: tuple[Leaf, ...], out_x: Leaf) -> tuple[jax.Array, None]:
    logits_xC, targets_x, total_x = saved
    shares_xC = jnp.exp(logits_xC.astype(jnp.float32) - total_x[..., None])
    error_xC = shares_xC - _is_target(logits_xC, targets_x).astype(jnp.float32)
    # autodiff would multiply 0 by NaN
    grad_xC = jnp.where(out_x[..., None] == 0, 0.0, error_xC * out_x[..., None])
    return grad_xC.astype(logits_xC.dtype), None


def _is_target(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    ids_xC = jax.lax.broadcasted_iota(targets_x.dtype, logits_xC.shape, logits_xC.ndim - 1)
    return ids_xC == targets_x[..., None]


cross_entropy.defvjp(_forward, _backward)


def correct(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    """1.0 where the largest logit is the target's, else 0.0."""
    return (jnp.argmax(logits_xC, axis=-1) == targets_x).astype(jnp.float32)


def weighted(values_x: Leaf, weights_x: Leaf) -> Mean:
    """Sum of ``weights * values`` beside the sum of weights.

    Items of weight 0 do not count, whatever their value: not even NaN or infinity passes, nor
    their gradient.
    """
    used_x = jnp.where(weights_x > 0, values_x, 0.0)
    weights_x = weights_x.astype(jnp.float32)
    return Mean(total=jnp.sum(used_x * weights_x), weight=jnp.sum(weights_x))

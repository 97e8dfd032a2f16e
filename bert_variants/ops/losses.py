"""Unreduced losses: one number an item, float32. The caller weights, sums and divides once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.types import Leaf, Mean


def cross_entropy(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    """-log softmax(logits)[target] in nats, of the targets' shape.

    The maximum is subtracted first, so large logits are safe. Targets outside [0, C) are the
    caller's error.
    """
    logits_xC = logits_xC.astype(jnp.float32)
    peak_x = jax.lax.stop_gradient(jnp.max(logits_xC, axis=-1, keepdims=True))
    shifted_xC = logits_xC - peak_x
    total_x = jnp.log(jnp.sum(jnp.exp(shifted_xC), axis=-1))
    right_x = jnp.take_along_axis(shifted_xC, targets_x[..., None], axis=-1)[..., 0]
    return total_x - right_x


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

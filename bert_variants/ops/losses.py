"""Unreduced losses: one number an item, float32. The caller weights, sums and divides once."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.ops.placement import on_one_device
from bert_variants.types import Leaf, Mean


def cross_entropy(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    """-log softmax(logits)[target] in nats, of the targets' shape.

    The maximum is subtracted first, so large logits are safe. Targets outside [0, C) are the
    caller's error. An item whose loss nobody uses gets a gradient of exactly 0, also where its
    logits are NaN or infinite.
    """
    # flat: XLA's CPU backend then keeps the maximum's broadcast inside the sum's kernel
    flat = _cross_entropy(logits_xC.reshape(-1, logits_xC.shape[-1]), targets_x.reshape(-1))
    return flat.reshape(targets_x.shape)


@jax.custom_vjp
def _cross_entropy(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    return _forward(logits_xC, targets_x)[0]


def _forward(logits_xC: Leaf, targets_x: Leaf) -> tuple[jax.Array, tuple[Leaf, ...]]:
    wide_xC = logits_xC.astype(jnp.float32)
    peak_x = jnp.max(wide_xC, axis=-1)
    log_sum_x = jnp.log(jnp.sum(jnp.exp(wide_xC - peak_x[..., None]), axis=-1))
    right_x = _at_target(wide_xC, targets_x) - peak_x
    return log_sum_x - right_x, (logits_xC, targets_x, peak_x + log_sum_x)


def _at_target(wide_xC: Leaf, targets_x: Leaf) -> jax.Array:
    if on_one_device():
        return jnp.take_along_axis(wide_xC, targets_x[..., None], axis=-1, mode="clip")[..., 0]
    # a sum over equal ids, not a gather: the classes may be split over devices
    return jnp.sum(jnp.where(_is_target(wide_xC, targets_x), wide_xC, 0), axis=-1)


def _backward(saved: tuple[Leaf, ...], out_x: Leaf) -> tuple[jax.Array, None]:
    logits_xC, targets_x, total_x = saved
    shares_xC = jnp.exp(logits_xC.astype(jnp.float32) - total_x[..., None])
    error_xC = shares_xC - _is_target(logits_xC, targets_x).astype(jnp.float32)
    # autodiff would multiply 0 by NaN
    grad_xC = jnp.where(out_x[..., None] == 0, 0.0, error_xC * out_x[..., None])
    return grad_xC.astype(logits_xC.dtype), None


def _is_target(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    return _ids(logits_xC) == targets_x[..., None]


def _ids(logits_xC: Leaf) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits_xC.shape, logits_xC.ndim - 1)


_cross_entropy.defvjp(_forward, _backward)


def correct(logits_xC: Leaf, targets_x: Leaf) -> jax.Array:
    """1.0 where the largest logit is the target's, of equal ones the first; else 0.0."""
    # not argmax: XLA's CPU backend does not vectorise its reduction of pairs
    peak_x = jnp.max(logits_xC, axis=-1)
    before_xC = _ids(logits_xC) < targets_x[..., None]
    earlier_x = jnp.any((logits_xC == peak_x[..., None]) & before_xC, axis=-1)
    return ((_at_target(logits_xC, targets_x) == peak_x) & ~earlier_x).astype(jnp.float32)


def weighted(values_x: Leaf, weights_x: Leaf) -> Mean:
    """Sum of ``weights * values`` beside the sum of weights.

    Items of weight 0 do not count, whatever their value: not even NaN or infinity passes, nor
    their gradient.
    """
    used_x = jnp.where(weights_x > 0, values_x, 0.0)
    weights_x = weights_x.astype(jnp.float32)
    return Mean(total=jnp.sum(used_x * weights_x), weight=jnp.sum(weights_x))

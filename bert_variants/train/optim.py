"""Optimizers and learning-rate schedules, registered.

An optimizer makes updates for a learning rate of 1; the step multiplies them by the schedule's
value at its own step number. So the rate is a pure function of the step, also after skipped steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_variants.config import ConfigError, Optim
from bert_variants.registry import lookup, register
from bert_variants.types import Leaf

Schedule = Callable[[Leaf], Leaf]


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as ``encoder/layers/attention/query/kernel``."""
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def matching(patterns: tuple[str, ...], *, invert: bool = False) -> Callable[[Any], Any]:
    """A mask function: True where a parameter's path matches one of the regular expressions."""

    def mask(params: Any) -> Any:
        def one(path: tuple[Any, ...], _: Leaf) -> bool:
            return any(re.search(p, path_name(path)) for p in patterns) != invert

        return jax.tree_util.tree_map_with_path(one, params)

    return mask


class Moments(NamedTuple):
    """First and second moments, and how many updates went into them."""

    count: Leaf
    mu: Leaf
    nu: Leaf


def scale_by_moments(
    b1: float, b2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
    """m / (sqrt(v) + eps), with or without Adam's bias correction.

    optax has only the corrected form; BERT, ALBERT, ELECTRA and DeBERTa were trained without it
    (google-research/bert:optimization.py). eps stands outside the root.
    """

    def init(params: Any) -> Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: Moments, params: Any = None) -> tuple[Any, Moments]:
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        by_mu = 1 / (1 - b1**count) if bias_correction else 1.0
        by_nu = 1 / (1 - b2**count) if bias_correction else 1.0
        updates = jax.tree.map(lambda m, v: m * by_mu / (jnp.sqrt(v * by_nu) + eps), mu, nu)
        return updates, Moments(count, mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_trust(excluded: tuple[str, ...]) -> optax.GradientTransformation:
    """LAMB's layer-wise ratio |w| / |u|, 1 where either is 0 or the path is excluded; no clamp.

    Stacked parameters (paths with ``layers/``) have one ratio for each layer, as if they were
    separate arrays. google-research/albert:lamb_optimizer.py.
    """
    out = matching(excluded)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def one(path: tuple[Any, ...], u: Leaf, w: Leaf, left_out: bool) -> Leaf:
            if left_out:
                return u
            axes = tuple(range(1 if "layers/" in path_name(path) else 0, w.ndim))
            norm_w = jnp.sqrt(jnp.sum(jnp.square(w), axis=axes, keepdims=True))
            norm_u = jnp.sqrt(jnp.sum(jnp.square(u), axis=axes, keepdims=True))
            ratio = norm_w / jnp.where(norm_u > 0, norm_u, 1.0)
            return u * jnp.where((norm_w > 0) & (norm_u > 0), ratio, 1.0)

        new = jax.tree_util.tree_map_with_path(one, updates, params, out(params))
        return new, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _clip(optim: Optim) -> optax.GradientTransformation:
    """Gradients of a larger global norm are scaled down to ``optim.clip``; 0: as they are.

    ``optax.clip_by_global_norm`` divides and multiplies each element; one factor for all fuses into
    what follows.
    """

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norm = optax.tree.norm(grads)
        factor = jnp.where(norm > optim.clip, optim.clip / norm, 1.0)
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), grads), state

    if not optim.clip:
        return optax.identity()
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def depth_factors(params: Any, decay: float, gap: int = 0) -> Any:
    """What each parameter's learning rate is multiplied by, broadcastable to it.

    Heads 1; the n layers below them, counted from the top as k = 0, 1, ..., ``decay ** (k + 1 +
    gap)``; what lies below those (embeddings and their projection) ``decay ** (n + 1 + gap)``. Of
    12 layers with 0.8 the top one has 0.8, the lowest 0.8^12, the embeddings 0.8^13; with a gap of
    1 they have 0.64, 0.8^13 and 0.8^14, as in google-research/electra:model/optimization.py, whose
    author calls that a leftover of a pooler (its issue 51).

    Layers are what has ``layers/`` in its path, stacked on the leading axis: one that several
    layers share is one, and each stack counts its own. Heads are what has ``heads/`` in it.
    """

    def stacked(path: tuple[Any, ...], leaf: Leaf) -> int:
        return leaf.shape[0] if "layers/" in path_name(path) else 0

    deepest = max(jax.tree.leaves(jax.tree_util.tree_map_with_path(stacked, params)), default=0)

    def one(path: tuple[Any, ...], leaf: Leaf) -> Leaf:
        count = stacked(path, leaf)
        if count:
            powers = jnp.arange(count, 0, -1) + gap
            return (decay**powers).reshape(count, *[1] * (leaf.ndim - 1)).astype(jnp.float32)
        in_heads = re.search(r"(^|/)heads/", path_name(path))
        return jnp.float32(1.0 if in_heads else decay ** (deepest + 1 + gap))

    return jax.tree_util.tree_map_with_path(one, params)


def scale_by_depth(decay: float, gap: int = 0) -> optax.GradientTransformation:
    """Updates times ``depth_factors``: the lower, the slower; weight decay too."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factors = depth_factors(updates, decay, gap)
        return jax.tree.map(lambda u, factor: u * factor, updates, factors), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def freeze(
    optimizer: optax.GradientTransformation, patterns: tuple[str, ...]
) -> optax.GradientTransformation:
    """``optimizer`` for the parameters whose path matches none of ``patterns``; the others stay.

    Raises (from ``init``):
        ConfigError: a pattern that matches nothing, or nothing is left to train.
    """
    moving, still = matching(patterns, invert=True), matching(patterns)
    inner = optax.chain(optax.masked(optimizer, moving), optax.masked(optax.set_to_zero(), still))

    def init(params: Any) -> Any:
        for pattern in patterns:
            if not any(jax.tree.leaves(matching((pattern,))(params))):
                raise ConfigError(f"optim.freeze: no parameter's path matches {pattern!r}.")
        if not any(jax.tree.leaves(moving(params))):
            raise ConfigError(f"optim.freeze is {patterns!r}, which leaves nothing to train.")
        return inner.init(params)

    return optax.GradientTransformation(init, inner.update)


@register("optimizer")
def adamw(
    optim: Optim,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    bias_correction: bool = True,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, after clipping by the global norm.

    ``bias_correction=False`` is BERT's optimizer (variant of google-research/bert:optimization.py).
    """
    return optax.chain(
        _clip(optim),
        scale_by_moments(b1, b2, eps, bias_correction),
        optax.add_decayed_weights(optim.weight_decay, matching(optim.no_decay, invert=True)),
    )


@register("optimizer")
def lamb(
    optim: Optim,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    bias_correction: bool = False,
) -> optax.GradientTransformation:
    """LAMB: AdamW's update times a trust ratio for each layer (You et al. 2019).

    Parameters that are not decayed take no ratio, as in google-research/albert.
    """
    return optax.chain(
        _clip(optim),
        scale_by_moments(b1, b2, eps, bias_correction),
        optax.add_decayed_weights(optim.weight_decay, matching(optim.no_decay, invert=True)),
        scale_by_trust(optim.no_decay),
    )


@register("schedule")
def bert_linear(optim: Optim, steps: int, *, power: float = 1.0) -> Schedule:
    """lr * step / warmup, then lr * (1 - step / steps): BERT's, with its drop after the warm-up.

    1e-4, 10,000, 1,000,000: step 9,999 gives 9.999e-5 and step 10,000 gives 9.9e-5.
    """

    def rate(step: Leaf) -> Leaf:
        warm = step / max(optim.warmup, 1)
        return optim.lr * jnp.where(step < optim.warmup, warm, _left(step, steps) ** power)

    return rate


@register("schedule")
def linear(optim: Optim, steps: int, *, power: float = 1.0, end: float = 0.0) -> Schedule:
    """Linear warm-up from lr / warmup to the peak, then linear decay to ``end`` * lr: continuous.

    facebookresearch/fairseq:polynomial_decay_schedule.py. 6e-4, 24,000, 500,000: step 24,000 gives
    6e-4, step 262,000 gives 3e-4.
    """

    def rate(step: Leaf) -> Leaf:
        warm = jnp.maximum(step, 1) / max(optim.warmup, 1)
        left = _left(step - optim.warmup, max(steps - optim.warmup, 1))
        return optim.lr * jnp.where(step < optim.warmup, warm, end + (1 - end) * left**power)

    return rate


@register("schedule")
def product(optim: Optim, steps: int) -> Schedule:
    """lr * (1 - step / steps) * min(1, step / warmup): ELECTRA's, whose peak is below lr."""

    def rate(step: Leaf) -> Leaf:
        warm = jnp.minimum(1.0, step / optim.warmup) if optim.warmup else 1.0
        return optim.lr * _left(step, steps) * warm

    return rate


@register("schedule")
def cosine(optim: Optim, steps: int, *, end: float = 0.0) -> Schedule:
    """Linear warm-up, then half a cosine down to ``end`` * lr."""

    def rate(step: Leaf) -> Leaf:
        warm = (step + 1) / max(optim.warmup, 1)
        left = _left(step - optim.warmup, max(steps - optim.warmup, 1))
        wave = 0.5 * (1 - jnp.cos(jnp.pi * left))
        return optim.lr * jnp.where(step < optim.warmup, warm, end + (1 - end) * wave)

    return rate


@register("schedule")
def constant(optim: Optim, steps: int) -> Schedule:
    """Linear warm-up, then lr."""
    del steps
    return lambda step: optim.lr * jnp.minimum(1.0, (step + 1) / max(optim.warmup, 1))


def _left(step: Leaf, steps: int) -> Leaf:
    """The share of the steps that is left, within [0, 1]."""
    return jnp.clip(1 - step / steps, 0.0, 1.0)


def build(optim: Optim, steps: int) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimizer and the schedule that a config names."""
    optimizer = lookup("optimizer", optim.optimizer)(optim)
    if optim.freeze:
        optimizer = freeze(optimizer, optim.freeze)
    if optim.layer_decay != 1:
        depth = scale_by_depth(optim.layer_decay, optim.layer_decay_gap)
        optimizer = optax.chain(optimizer, depth)
    return optimizer, lookup("schedule", optim.schedule)(optim, steps)

"""Scaled dot-product attention: one function for every model, the fastest form per backend."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from bert_variants.ops.dropout import dropout, keep_mask
from bert_variants.ops.precision import PRECISIONS, einsum, product
from bert_variants.types import Leaf

HIDDEN = -1e9  # added to the scores of keys that may not be seen; exp of it is 0 in float32


def visible(valid_BT: Leaf, packs_BT: Leaf | None = None) -> Leaf:
    """Which keys each query sees: bool [B, 1, 1, T], or [B, 1, T, T] for packed rows.

    Padding keys are hidden and padding queries still attend, as in BERT; their outputs are never
    read. In packed rows a query sees its own sequence only.
    """
    if packs_BT is None:
        return valid_BT[:, None, None, :]
    same_BTT = packs_BT[:, :, None] == packs_BT[:, None, :]
    return (same_BTT & valid_BT[:, None, :])[:, None]


def sees_itself(visible_BNTT: Leaf) -> Leaf:
    """bool [B, T]: which queries are text and not padding, from what ``visible`` gives."""
    if visible_BNTT.shape[2] == 1:
        return visible_BNTT[:, 0, 0]
    return jnp.diagonal(visible_BNTT[:, 0], axis1=1, axis2=2)


def attend(
    q_BTNH: Leaf,
    k_BTNH: Leaf,
    v_BTNH: Leaf,
    visible_BNTT: Leaf,
    *,
    precision: str = "float32",
    bias_BNTT: Leaf | None = None,
    scale: float | None = None,
    rate: float = 0.0,
    key: jax.Array | None = None,
    scores: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """softmax(q k / sqrt(H) + bias) v over the visible keys.

    On a GPU in bfloat16, with nothing asked that it cannot do (dropout, bias, scores), the fused
    kernel of cuDNN runs; everywhere else two products around a float32 softmax.

    Args:
        q_BTNH, k_BTNH, v_BTNH: queries, keys and values.
        visible_BNTT: bool, broadcastable to [B, N, T, T]; see ``visible``.
        precision: see ops/precision.py.
        bias_BNTT: added to the scores before the softmax, or None.
        scale: of q k; None: 1 / sqrt(H).
        rate, key: dropout on the probabilities; none where the key is None.
        scores: whether to return the scores before mask and softmax.

    Returns:
        The context [B, T, N, H], and the scores float32 [B, N, T, T] or None.
    """
    if scale is None:
        scale = q_BTNH.shape[-1] ** -0.5
    drops = rate > 0 and key is not None
    if _fused_fits(precision, drops=drops, bias=bias_BNTT is not None, scores=scores):
        context = jax.nn.dot_product_attention(
            q_BTNH, k_BTNH, v_BTNH, mask=visible_BNTT, scale=scale, implementation="cudnn"
        )
        return context, None
    # scaling the queries touches T * H numbers, scaling the scores T * T
    q_BTNH = q_BTNH * jnp.asarray(scale, q_BTNH.dtype)
    hidden = jnp.where(visible_BNTT, 0.0, HIDDEN)
    if not scores:
        words = jax.random.key_data(key) if drops else None
        rate = rate if drops else 0.0
        if bias_BNTT is not None:
            full = (*(q_BTNH.shape[i] for i in (0, 2, 1)), k_BTNH.shape[1])
            bias_BNTT = jnp.broadcast_to(bias_BNTT, full).astype(jnp.float32)
        return _mix(q_BTNH, k_BTNH, v_BTNH, hidden, bias_BNTT, words, rate, precision), None
    raw_BNTT = einsum("btnh,bsnh->bnts", q_BTNH, k_BTNH, precision).astype(jnp.float32)
    if bias_BNTT is not None:
        raw_BNTT = raw_BNTT + bias_BNTT
    masked_BNTT = raw_BNTT + jnp.broadcast_to(hidden, raw_BNTT.shape)
    shares_BNTT = jax.nn.softmax(masked_BNTT, axis=-1).astype(PRECISIONS[precision].activations)
    if drops:
        shares_BNTT = dropout(shares_BNTT, rate, key)
    context_BTNH = einsum("bnts,bsnh->btnh", shares_BNTT, v_BTNH, precision)
    return context_BTNH, raw_BNTT if scores else None


# Autodiff would keep or make five arrays of [B, N, T, T] float32; here it is one, and one in the
# format of the products. What the softmax's gradient subtracts, sum(share * d share) over the keys,
# is sum(context * d context) over H (FlashAttention, arXiv 2205.14135, appendix B.2).
@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _mix(
    q_BTNH: Leaf,
    k_BTNH: Leaf,
    v_BTNH: Leaf,
    hidden: Leaf,
    bias_BNTT: Leaf | None,
    words: Leaf,
    rate: float,
    precision: str,
) -> jax.Array:
    return _mix_forward(q_BTNH, k_BTNH, v_BTNH, hidden, bias_BNTT, words, rate, precision)[0]


def _mix_forward(
    q_BTNH: Leaf,
    k_BTNH: Leaf,
    v_BTNH: Leaf,
    hidden: Leaf,
    bias_BNTT: Leaf | None,
    words: Leaf,
    rate: float,
    precision: str,
) -> tuple[jax.Array, tuple[Leaf, ...]]:
    formats = PRECISIONS[precision]
    raw_BNTT = product("btnh,bsnh->bnts", q_BTNH, k_BTNH, precision)
    if bias_BNTT is not None:
        raw_BNTT = raw_BNTT + bias_BNTT
    masked_BNTT = raw_BNTT + jnp.broadcast_to(hidden, raw_BNTT.shape)
    power_BNTT = jnp.exp(masked_BNTT - jnp.max(masked_BNTT, axis=-1, keepdims=True))
    total_BNT = jnp.sum(power_BNTT, axis=-1)
    kept_BNTT = _dropped(power_BNTT / total_BNT[..., None], words, rate)
    kept_BNTT = kept_BNTT.astype(formats.activations).astype(formats.products)
    context_BTNH = product("bnts,bsnh->btnh", kept_BNTT, v_BTNH, precision)
    context_BTNH = context_BTNH.astype(formats.activations)
    biased = None if bias_BNTT is None else ()
    saved = (q_BTNH, k_BTNH, v_BTNH, power_BNTT, total_BNT, kept_BNTT, context_BTNH, words)
    return context_BTNH, (*saved, biased)


def _mix_backward(
    rate: float, precision: str, saved: tuple[Leaf, ...], out_BTNH: Leaf
) -> tuple[Leaf, ...]:
    q_BTNH, k_BTNH, v_BTNH, power_BNTT, total_BNT, kept_BNTT, context_BTNH, words, biased = saved
    to_v = product("bnts,btnh->bsnh", kept_BNTT, out_BTNH, precision)
    to_kept_BNTT = product("btnh,bsnh->bnts", out_BTNH, v_BTNH, precision)
    both = out_BTNH.astype(jnp.float32) * context_BTNH.astype(jnp.float32)
    inner_BNT = jnp.sum(both, axis=-1).transpose(0, 2, 1)
    to_share_BNTT = _dropped(to_kept_BNTT, words, rate) - inner_BNT[..., None]
    to_raw_BNTT = to_share_BNTT * power_BNTT / total_BNT[..., None]
    to_bias_BNTT = None if biased is None else to_raw_BNTT
    to_raw_BNTT = to_raw_BNTT.astype(PRECISIONS[precision].products)
    to_q = product("bnts,bsnh->btnh", to_raw_BNTT, k_BTNH, precision)
    to_k = product("bnts,btnh->bsnh", to_raw_BNTT, q_BTNH, precision)
    like = q_BTNH.dtype
    return to_q.astype(like), to_k.astype(like), to_v.astype(like), None, to_bias_BNTT, None


_mix.defvjp(_mix_forward, _mix_backward)


def _dropped(x: Leaf, words: Leaf, rate: float) -> jax.Array:
    return jnp.where(keep_mask(words, x.shape, rate), x * (1 / (1 - rate)), 0.0) if rate else x


def _fused_fits(precision: str, *, drops: bool, bias: bool, scores: bool) -> bool:
    return (
        precision == "bfloat16" and not (drops or bias or scores) and jax.default_backend() == "gpu"
    )

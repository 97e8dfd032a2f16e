"""Scaled dot-product attention: one function for every model, the fastest form per backend."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.ops.dropout import dropout
from bert_variants.ops.precision import PRECISIONS, einsum
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
    raw_BNTT = einsum(
        "btnh,bsnh->bnts", q_BTNH * jnp.asarray(scale, q_BTNH.dtype), k_BTNH, precision
    )
    raw_BNTT = raw_BNTT.astype(jnp.float32)
    if bias_BNTT is not None:
        raw_BNTT = raw_BNTT + bias_BNTT
    hidden = jnp.where(visible_BNTT, 0.0, HIDDEN)
    masked_BNTT = raw_BNTT + jnp.broadcast_to(hidden, raw_BNTT.shape)
    shares_BNTT = jax.nn.softmax(masked_BNTT, axis=-1).astype(PRECISIONS[precision].activations)
    if drops:
        shares_BNTT = dropout(shares_BNTT, rate, key)
    context_BTNH = einsum("bnts,bsnh->btnh", shares_BNTT, v_BTNH, precision)
    return context_BTNH, raw_BNTT if scores else None


def _fused_fits(precision: str, *, drops: bool, bias: bool, scores: bool) -> bool:
    return (
        precision == "bfloat16" and not (drops or bias or scores) and jax.default_backend() == "gpu"
    )

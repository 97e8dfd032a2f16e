"""Positions as distances: sinusoids of ``i - j``, and the shift that lines their scores up.

A key at position j is read by a query at position i through their distance alone, so that what was
read before (a memory of M positions in front of the T of a row: K = M + T keys) keeps its meaning
(Dai et al. 2019, arXiv 1901.02860, section 3.3; zihangdai/xlnet:modeling.py). Letters beside those
of ``types.py``: Q queries (T or P of them), K keys, R rows of the table of distances.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops.attention import HIDDEN
from bert_variants.ops.dropout import dropout
from bert_variants.ops.placement import place
from bert_variants.ops.precision import PRECISIONS, einsum
from bert_variants.types import Leaf


def distances(queries: int, keys: int, *, both_ways: bool = True) -> np.ndarray:
    """The distances that a table has rows for, descending: K .. -T + 1, or K .. 0.

    The first of them never occurs; with it the table is as long as ``shift`` wants it. For T = 2
    and K = 3 (M = 1): 3 2 1 0 -1, or 3 2 1 0.

    Args:
        queries: T.
        keys: K; the last T of them stand at the positions of the queries.
        both_ways: whether a query also reads keys to its right.
    """
    return np.arange(keys, -queries if both_ways else -1, -1)


def sinusoids(distances_R: np.ndarray, width: int, clamp: int = 0) -> jax.Array:
    """float32 [R, D]: sin(d f) in the first half, cos(d f) in the second, f_m = 10000^(-2m / D).

    Args:
        distances_R: integers.
        width: D.
        clamp: distances beyond it, in either direction, count as it; 0: none is too large.

    Raises:
        ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(f"width is {width}: half are sines, half cosines. Take an even number.")
    if clamp:
        distances_R = np.clip(distances_R, -clamp, clamp)
    frequency = 10000.0 ** (-2.0 * np.arange(width // 2) / width)
    angle = jnp.float32(distances_R)[:, None] * jnp.float32(frequency)[None, :]
    # whole on every device, where nothing has to be exchanged for it
    return place(jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1))


def mirrored(table_RD: Leaf) -> jax.Array:
    """The table of the negated distances: sines change their sign, cosines do not."""
    half = table_RD.shape[-1] // 2
    return place(jnp.concatenate([-table_RD[:, :half], table_RD[:, half:]], axis=-1))


def shift(scores_BNTR: Leaf, keys: int) -> jax.Array:
    """Scores with the rows of the table into scores with keys: (i, j) has distance M + i - j.

    Row r of the table is distance K - r, so query i wants the K entries from r = T - i on. The
    lines are written one after another; without the first T entries, and cut into lines that are
    one shorter, each begins one entry earlier than the one above. No gather. A worked case, T = 2,
    K = 3 (M = 1), entries named by their distances::

        3 2 1 0 -1   3 2 1 0 -1
            1 0 -1 3   2 1 0 -1      without the first two, in lines of four
            1 0 -1     2 1 0         their first three

    Args:
        scores_BNTR: R = K + T, or K + 1 where no key to the right is read: what the entries of
            such keys then hold means nothing.
        keys: K.

    Returns:
        [B, N, T, K].
    """
    batch, heads, queries, rows = scores_BNTR.shape
    flat = scores_BNTR.reshape(batch, heads, rows, queries)[:, :, 1:]
    return flat.reshape(batch, heads, queries, rows - 1)[..., :keys]


def shift_at(scores_BNPR: Leaf, at_BP: Leaf, queries: int, keys: int) -> jax.Array:
    """``shift`` where only the queries at some positions were computed: their lines of it.

    Args:
        scores_BNPR: R = K + T.
        at_BP: int32, the positions, 0 .. T - 1.
        queries: T.
        keys: K.

    Returns:
        [B, N, P, K].
    """
    return _windows(scores_BNPR, queries - at_BP, keys)


# The gradient of a slice is a scatter, which GPUs and CPUs are slow at. Here the parts do not
# overlap, so it is a slice too: of the gradient with zeros around it.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _windows(x_BNPR: Leaf, start_BP: Leaf, size: int) -> jax.Array:
    """``x[b, n, p, start[b, p] : start[b, p] + size]``."""
    one = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=size, axis=-1)
    return jax.vmap(jax.vmap(one, in_axes=(1, 0), out_axes=1))(x_BNPR, start_BP)


def _windows_forward(x_BNPR: Leaf, start_BP: Leaf, size: int) -> tuple[jax.Array, Leaf]:
    # the number of rows stands in the shape of an array without entries: a size is no pytree leaf
    rows = jnp.zeros((x_BNPR.shape[-1], 0), x_BNPR.dtype)
    return _windows(x_BNPR, start_BP, size), (start_BP, rows)


def _windows_backward(size: int, saved: tuple[Leaf, Leaf], out_BNPK: Leaf) -> tuple[Leaf, None]:
    start_BP, like = saved
    rows = like.shape[0]
    around = rows - size
    padded = jnp.pad(out_BNPK, [(0, 0), (0, 0), (0, 0), (around, around)])
    return _windows(padded, around - start_BP, rows), None


_windows.defvjp(_windows_forward, _windows_backward)


def mix(
    scores_BNQK: Leaf,
    visible_BQK: Leaf,
    v_BKNH: Leaf,
    *,
    precision: str = "float32",
    rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """softmax(scores) v over the visible keys: [B, Q, N, H]; 0 for a query that sees no key.

    (A softmax over keys that are all hidden would weigh them alike, and a target whose factors
    hold nothing yet would read itself.)

    Args:
        scores_BNQK: float32, scaled.
        visible_BQK: bool; Q may be 1: the same for every query.
        v_BKNH: values.
        precision: see ops/precision.py.
        rate, key: dropout on the probabilities; none where the key is None.
    """
    hidden_BNQK = jnp.where(visible_BQK, 0.0, HIDDEN)[:, None]
    shares_BNQK = jax.nn.softmax(scores_BNQK + hidden_BNQK, axis=-1)
    shares_BNQK = shares_BNQK.astype(PRECISIONS[precision].activations)
    if rate and key is not None:
        shares_BNQK = dropout(shares_BNQK, rate, key)
    context_BQNH = einsum("bnqk,bknh->bqnh", shares_BNQK, v_BKNH, precision)
    sees_BQ = jnp.any(visible_BQK, axis=-1)
    return jnp.where(sees_BQ[:, :, None, None], context_BQNH, 0)

"""Drawing tokens from a generator's distribution, and what text they make."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.types import Leaf

BLOCK = 128


def sample(keys_B: Leaf, logits_BPV: Leaf, temperature: float = 1.0) -> jax.Array:
    """One id for each slot from softmax(logits / temperature): int32 [B, P], without gradient.

    By the inverse of the distribution function, a uniform number a slot: first the block of 128
    ids, then the id in it. That reads the logits twice, where the Gumbel trick of the published
    code (google-research/electra:pretrain/pretrain_helpers.py) draws V random numbers a slot. Both
    draw from the same distribution, up to the rounding of float32 sums: ids of a probability below
    about 1e-7 are drawn too rarely to tell how often.

    Args:
        keys_B: typed keys, one a row, so that a row's draw depends on its key alone.
        logits_BPV: float; -inf is never drawn, unless a slot has nothing else.
        temperature: above 0; small ones draw the likeliest id.
    """
    logits_BPV = jax.lax.stop_gradient(logits_BPV).astype(jnp.float32)
    count, vocab_size = logits_BPV.shape[1:]
    peak_BP1 = jnp.max(logits_BPV, axis=-1, keepdims=True)
    power_BPV = jnp.exp((logits_BPV - peak_BP1) / temperature)
    blocks = -(-vocab_size // BLOCK)
    padded = jnp.pad(power_BPV, [(0, 0), (0, 0), (0, blocks * BLOCK - vocab_size)])
    power_BPKI = padded.reshape(*power_BPV.shape[:2], blocks, BLOCK)
    block_BPK = jnp.sum(power_BPKI, axis=-1)
    upper_BPK = jnp.cumsum(block_BPK, axis=-1)
    uniform_BP = jax.vmap(lambda key: jax.random.uniform(key, (count,)))(keys_B)
    wanted_BP = uniform_BP * upper_BPK[..., -1]
    chosen_BP = _first_above(upper_BPK, block_BPK > 0, wanted_BP)
    at = chosen_BP[..., None]
    before_BP = jnp.take_along_axis(upper_BPK - block_BPK, at, axis=2)[..., 0]
    power_BPI = jnp.take_along_axis(power_BPKI, at[..., None], axis=2)[:, :, 0]
    rest_BP = wanted_BP - before_BP
    place_BP = _first_above(jnp.cumsum(power_BPI, axis=-1), power_BPI > 0, rest_BP)
    return (chosen_BP * BLOCK + place_BP).astype(jnp.int32)


def _first_above(upper_xN: Leaf, likely_xN: Leaf, wanted_x: Leaf) -> jax.Array:
    """The first likely entry whose running sum is above what is wanted, else the last likely one.

    Running sums are rounded, by some backends not even monotonically: an entry of probability 0
    may seem to take up some of the range. It is never chosen.
    """
    size = upper_xN.shape[-1]
    entries = jax.lax.broadcasted_iota(jnp.int32, upper_xN.shape, upper_xN.ndim - 1)
    above_xN = likely_xN & (upper_xN > wanted_x[..., None])
    first_x = jnp.min(jnp.where(above_xN, entries, size), axis=-1)
    last_x = jnp.max(jnp.where(likely_xN, entries, 0), axis=-1)
    return jnp.minimum(first_x, last_x)


def replaced(
    tokens_BT: Leaf, at_BP: Leaf, weights_BP: Leaf, samples_BP: Leaf
) -> tuple[jax.Array, jax.Array]:
    """The original text with samples put in, and where that changed it.

    A worked row (what stands in unused slots changes nothing)::

        tokens    a b c d      at   1 2 0      samples  b x 9
        weights   1 1 0
        inputs    a b x d      replaced  0 0 1 0     (b was drawn again: it is not replaced)

    Args:
        tokens_BT: the original ids: what was [MASK] to the generator is never seen here.
        at_BP, weights_BP: the predicted positions, each once, and which slots are used.
        samples_BP: ids.

    Returns:
        ``inputs_BT`` int32 and ``replaced_BT`` bool.
    """
    length = tokens_BT.shape[1]
    place_BP = jnp.where(weights_BP > 0, at_BP, length)  # out of range: dropped
    put = jax.vmap(lambda row, place, ids: row.at[place].set(ids, mode="drop"))
    inputs_BT = put(tokens_BT, place_BP, samples_BP.astype(tokens_BT.dtype))
    return inputs_BT, inputs_BT != tokens_BT
